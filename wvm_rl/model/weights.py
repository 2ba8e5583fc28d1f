"""Parameters as flat dicts of named arrays: what training, Orbax and safetensors all read.

A module's graph is split off once; a name is the path of an array in it, joined by dots.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wvm_rl.errors import InputError

Params = dict[str, jax.Array]
Target = Callable[[str, tuple[int, ...]], Any]  # sharding of the parameter of a name and shape


class Graph:
    """A module without its arrays; `merge` puts named arrays back in. `graph_of` makes them."""

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module]):
        self._make = make
        self._graphdef, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(state)
        self.shapes = {_name(path): tuple(leaf.shape) for path, leaf in leaves}

    def init(self, seed: int, target: Target | None = None, names: Iterable[str] | None = None) -> Params:
        """Fresh parameters, f32.

        Args:
            seed: of all draws; a parameter's does not depend on which others are asked for.
            target: where each is made; None leaves it to JAX.
            names: of the parameters wanted; None for all.
        """
        wanted = self.shapes.keys() if names is None else list(names)

        def draw(key: jax.Array) -> Params:
            leaves = jax.tree.leaves(nnx.state(self._make(nnx.Rngs(params=key))))
            params = dict(zip(self.shapes, leaves))
            return {name: params[name] for name in wanted}

        # Hundreds of small draws run once: compiling them well takes five times as long as running them.
        options = {"xla_backend_optimization_level": 0}
        layout = {name: target(name, self.shapes[name]) for name in wanted} if target else None
        return jax.jit(draw, out_shardings=layout, compiler_options=options)(jax.random.key(seed))

    def merge(self, params: Params) -> Any:
        """The module carrying `params`, which may be tracers."""
        return nnx.merge(self._graphdef, jax.tree.unflatten(self._tree, [params[name] for name in self.shapes]))


_GRAPHS: dict[tuple[Callable[..., nnx.Module], str], Graph] = {}


def graph_of(module: Callable[..., nnx.Module], *settings: Any) -> Graph:
    """The graph of `module(*settings, rngs=...)`, made once a process: tracing a large module takes a second.

    Args:
        module: a class of module level.
        settings: numbers and dataclasses of them, whose `repr` tells them apart.
    """
    key = module, repr(settings)
    if key not in _GRAPHS:
        kept = deepcopy(settings)  # a caller may change theirs
        _GRAPHS[key] = Graph(lambda rngs: module(*kept, rngs=rngs))
    return _GRAPHS[key]


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))


MANTISSA = 10  # bits of half precision's
EMPTY = 0b11111  # bits that are all zero if the mantissa keeps but five
LARGE = 512  # numbers


def halved(params: dict[str, Any], mantissa: int = MANTISSA) -> dict[str, np.ndarray]:
    """Rounds f32 arrays to the nearest number of half precision, so that `save` takes half the room for them.

    Args:
        params: by name.
        mantissa: bits that are kept of its ten; the fewer, the less room the file takes once it is compressed.

    Raises:
        InputError: a number that half precision cannot hold, by name.
    """
    rounded = {}
    for name, value in params.items():
        array = np.asarray(value)
        if array.dtype == np.float32:
            with np.errstate(over="ignore"):
                half = jax.lax.reduce_precision(array.astype(np.float16), exponent_bits=5, mantissa_bits=mantissa)
            array = np.asarray(half, np.float32)
            if not np.isfinite(array).all():
                raise InputError(f"{name} has numbers beyond half precision: export with mantissa=null")
        rounded[name] = array
    return rounded


def save(path: Path, params: dict[str, Any]) -> None:
    """Writes one safetensors file, f32 arrays as f16 where that loses nothing; equal arrays give equal bytes.

    Large arrays whose f16 numbers leave the last bits empty (see `halved`) become u8 [2,...], lower bytes before
    upper ones: apart they compress better.
    """
    save_file({name: _packed(np.ascontiguousarray(params[name])) for name in sorted(params)}, path)


def _packed(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype("<f2")
    if not np.array_equal(half.astype(np.float32), array):
        return array
    if half.size < LARGE or (half.view(np.uint16) & EMPTY).any():
        return half
    return np.ascontiguousarray(np.moveaxis(half[..., None].view(np.uint8), -1, 0))


def _unpacked(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """f32 of an array as `_packed` leaves those of f32; others as they are."""
    if array.dtype == np.uint8 and array.shape == (2, *shape):
        array = np.ascontiguousarray(np.moveaxis(array, 0, -1)).view("<f2")[..., 0]
    return array.astype(np.float32) if array.dtype == np.float16 else array


def load(
    path: Path, shapes: dict[str, tuple[int, ...]], stored: Callable[[str], Any] = lambda name: np.float32
) -> dict[str, np.ndarray]:
    """Reads a safetensors file that must hold exactly the arrays named in `shapes`.

    Args:
        path: of the file.
        shapes: by name.
        stored: name -> type; f32 unless told otherwise.

    Raises:
        InputError: no such file, not safetensors, or a tensor unknown, missing, misshaped or not finite, by name.
    """
    try:
        with safe_open(path, "numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); make or fetch it again") from error
    unknown, missing = sorted(found.keys() - shapes.keys()), sorted(shapes.keys() - found.keys())
    if unknown:
        raise InputError(
            f"{path}: unknown tensor {unknown[0]} ({len(unknown)} in all): the settings beside it are another's"
        )
    if missing:
        raise InputError(
            f"{path}: tensor {missing[0]} is missing ({len(missing)} in all): the settings beside it are another's"
        )
    for name, shape in shapes.items():
        tensor = found[name]
        kind = np.dtype(stored(name))
        if kind == np.float32:
            tensor = found[name] = _unpacked(tensor, shape)
        if tensor.shape != shape or tensor.dtype != kind:
            raise InputError(
                f"{path}: {name} is {tensor.dtype}{list(tensor.shape)}, its config needs {kind}{list(shape)}"
            )
        if not np.isfinite(tensor.astype(np.float32)).all():
            raise InputError(f"{path}: {name} has values that are not finite: make it again")
    return found
