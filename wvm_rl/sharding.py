"""Devices as a named mesh: batches split over all of it, parameters and optimiser sharded over a part of it.

A mesh has the axes `data` and `fsdp`. Each of `data` groups of `fsdp` devices holds one copy of the model; every
device takes its share of the batch. A block's parameters are gathered where the block runs and let go of again
(ZeRO-3, arXiv 1910.02054). One device is the mesh 1 x 1.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wvm_rl.errors import InputError

SMALL = 1024  # parameters below this size are copied to every device
BATCH = ("data", "fsdp")
TABLES = ("text",)  # of a batch: rows that samples share, copied to every device


@dataclass
class MeshConfig:
    """Devices of a training; their product is the number of devices used."""

    data: int = 1  # copies of the model
    fsdp: int = 1  # devices that a copy is sharded over

    def __post_init__(self) -> None:
        if min(self.data, self.fsdp) < 1:
            raise InputError(f"mesh.data={self.data} and mesh.fsdp={self.fsdp} must be at least 1")

    def make(self) -> Mesh:
        """The mesh over the first devices.

        Raises:
            InputError: there are fewer devices, or several hosts of which some would be left out.
        """
        count, found = self.data * self.fsdp, jax.device_count()
        if count > found or (jax.process_count() > 1 and count != found):
            raise InputError(f"mesh.data={self.data} x mesh.fsdp={self.fsdp} needs {count} devices, there are {found}")
        return _mesh(self.data, self.fsdp, jax.devices()[:count])


def alone() -> Mesh:
    """The mesh of one device of this process."""
    return _mesh(1, 1, jax.local_devices()[:1])


def _mesh(data: int, fsdp: int, devices: list[jax.Device]) -> Mesh:
    return jax.make_mesh((data, fsdp), BATCH, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def parameter(mesh: Mesh, name: str, shape: tuple[int, ...]) -> NamedSharding:
    """Sharding of a parameter: along its largest side, stacked layers aside.

    Raises:
        InputError: the mesh divides no side.
    """
    parts = mesh.shape["fsdp"]
    if parts == 1 or math.prod(shape) < SMALL:
        return NamedSharding(mesh, P())
    first = 1 if ".blocks." in name else 0
    sides = [axis for axis in range(first, len(shape)) if shape[axis] % parts == 0]
    if not sides:
        raise InputError(
            f"mesh.fsdp={parts} divides no side of {name} {list(shape[first:])}: choose a divisor of the widths"
        )
    axis = max(sides, key=lambda axis: shape[axis])
    return NamedSharding(mesh, P(*[None] * axis, "fsdp"))


def check(mesh: Mesh, shapes: dict[str, tuple[int, ...]], size: int) -> None:
    """Refuses, before anything is computed, a mesh that does not divide a model's parameters or a batch of `size`."""
    for name, shape in shapes.items():
        parameter(mesh, name, shape)
    batch(mesh, {}, size)


def state(mesh: Mesh, tree: Any) -> Any:
    """Shardings of training state: whatever lies under a parameter's name lies as the parameter does."""

    def leaf(path: tuple[Any, ...], array: Any) -> NamedSharding:
        name = next((entry.key for entry in reversed(path) if hasattr(entry, "key")), "")
        return parameter(mesh, str(name), array.shape)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def batch(mesh: Mesh, arrays: dict[str, Any], size: int) -> dict[str, NamedSharding]:
    """Shardings of a batch of `size` samples: split, but for `TABLES`.

    Raises:
        InputError: the devices do not divide the batch.
    """
    if size % mesh.size:
        raise InputError(f"batch={size} must be a multiple of the mesh's {mesh.size} devices")
    split, copied = NamedSharding(mesh, P(BATCH)), NamedSharding(mesh, P())
    return {name: copied if name in TABLES else split for name in arrays}


def placed(array: np.ndarray, target: NamedSharding) -> jax.Array:
    """An array of equal content in every process, each putting the parts of its own devices there."""
    return jax.make_array_from_callback(array.shape, target, lambda index: array[index])


# Inside compiled functions; without an ambient mesh of these axes (`jax.set_mesh`) they change nothing.


def gathered(tree: Any) -> Any:
    """The arrays of a tree, whole on every device."""
    return jax.tree.map(lambda array: _constrained(array, P()), tree)


def over_batch(array: jax.Array) -> jax.Array:
    """An array whose first axis, the batch, is split over the mesh."""
    return _constrained(array, P(BATCH))


def _constrained(array: jax.Array, spec: P) -> jax.Array:
    ours = set(BATCH) <= set(jax.sharding.get_abstract_mesh().axis_names)
    return jax.lax.with_sharding_constraint(array, spec) if ours else array


# Several hosts


@dataclass
class HostsConfig:
    """Hosts of a training; every one runs the same command with its own index, on a file system they share."""

    coordinator: str | None = None  # address:port of the first host; auto: asks the scheduler; null: one host
    count: int = 1
    index: int = 0  # of this host

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InputError(f"hosts.index={self.index} must lie in [0, hosts.count={self.count})")
        manual = self.coordinator not in (None, "auto")
        if manual and not re.fullmatch(r"[^:]+:\d{1,5}", str(self.coordinator)):
            raise InputError(f"hosts.coordinator={self.coordinator}: give address:port of the first host, or auto")
        if manual and self.count < 2:
            raise InputError(f"hosts.coordinator={self.coordinator} needs hosts.count, at least 2")
        if self.count > 1 and self.coordinator is None:
            raise InputError(
                f"hosts.count={self.count} needs hosts.coordinator: address:port of the first host, or auto"
            )

    def start(self) -> None:
        """Joins the other hosts; before anything else of JAX.

        Raises:
            InputError: no scheduler to ask, or no answer.
        """
        try:
            if self.coordinator == "auto":
                jax.distributed.initialize()
            elif self.coordinator is not None:
                jax.distributed.initialize(self.coordinator, self.count, self.index)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"hosts.coordinator={self.coordinator}: {str(error).splitlines()[0]}") from error


def is_first() -> bool:
    """Whether this process is the one that writes files that all share."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(fact: bool) -> bool:
    """What the first process says, in every process."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(fact))) if jax.process_count() > 1 else fact


def whole(array: jax.Array) -> np.ndarray:
    """A sharded array's content, in every process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
