"""Wan's published weights, read and written in both key layouts: diffusers' and the original one.

Our parameters are stacked over layers, kernels are [..., inputs, outputs]; published tensors are one a layer and
[outputs, inputs, ...]. A table of `Entry` says for every array of ours which tensors hold it.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wvm_rl.errors import InputError
from wvm_rl.files import atomic

LAYOUTS = ("diffusers", "original")
SHARD_BYTES = 5 * 2**30  # of one file
Shapes = dict[str, tuple[int, ...]]

# Ours -> (diffusers, original).
TRANSFORMER = {
    "patch_embedding": ("patch_embedding", "patch_embedding"),
    "conditioner.time_in": ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    "conditioner.time_out": ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    "conditioner.time_proj": ("condition_embedder.time_proj", "time_projection.1"),
    "conditioner.text_in": ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    "conditioner.text_out": ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    "head.proj_out": ("proj_out", "head.head"),
    "head.scale_shift_table": ("scale_shift_table", "head.modulation"),
}
BLOCK = {
    **{f"attn1.to_{name}": (f"attn1.to_{name}", f"self_attn.{name}") for name in "qkv"},
    **{f"attn2.to_{name}": (f"attn2.to_{name}", f"cross_attn.{name}") for name in "qkv"},
    **{f"attn1.norm_{name}": (f"attn1.norm_{name}", f"self_attn.norm_{name}") for name in "qk"},
    **{f"attn2.norm_{name}": (f"attn2.norm_{name}", f"cross_attn.norm_{name}") for name in "qk"},
    "attn1.to_out": ("attn1.to_out.0", "self_attn.o"),
    "attn2.to_out": ("attn2.to_out.0", "cross_attn.o"),
    "norm2": ("norm2", "norm3"),  # the affine norm before the cross-attention: the layouts swap the two names
    "ffn_in": ("ffn.net.0.proj", "ffn.0"),
    "ffn_out": ("ffn.net.2", "ffn.2"),
    "scale_shift_table": ("scale_shift_table", "modulation"),
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "gamma": "gamma"}
RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
RESIDUAL["conv_shortcut"] = "shortcut"


@dataclass(frozen=True)
class Entry:
    """One array of ours and the published tensors that hold it, one or, for a stacked array, one a layer."""

    ours: str
    theirs: tuple[str, ...]
    stacked: bool
    unfolded: tuple[int, ...]  # shape of one layer of ours before axes are folded together
    axes: tuple[int, ...]  # order of those axes in a published tensor
    shape: tuple[int, ...]  # of a published tensor, axes of size 1 included

    def read(self, tensors: list[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Our array, of `shape`, from the published tensors."""
        size = [self.unfolded[axis] for axis in self.axes]
        layers = [np.asarray(tensor).reshape(size).transpose(np.argsort(self.axes)) for tensor in tensors]
        return np.stack(layers).reshape(shape)

    def write(self, array: Any) -> Iterator[np.ndarray]:
        """The published tensors of our array."""
        for layer in np.asarray(array) if self.stacked else [np.asarray(array)]:
            yield np.ascontiguousarray(layer.reshape(self.unfolded).transpose(self.axes).reshape(self.shape))


def transformer_entries(shapes: Shapes, patch: tuple[int, int], layout: str) -> list[Entry]:
    """The table of a video transformer.

    Args:
        shapes: of our parameters.
        patch: latent rows and columns a token covers.
    """
    at, entries = LAYOUTS.index(layout), []
    for name, shape in shapes.items():
        stacked = name.startswith("stack.blocks.")
        module, names = (name.removeprefix("stack.blocks."), BLOCK) if stacked else (name, TRANSFORMER)
        stem, _, leaf = module.rpartition(".")
        theirs = names[module][at] if module in names else f"{names[stem][at]}.{LEAVES[leaf]}"
        every = tuple(f"blocks.{layer}.{theirs}" for layer in range(shape[0])) if stacked else (theirs,)
        one = shape[1:] if stacked else shape
        if name == "patch_embedding.kernel":
            unfolded = (*patch, one[0] // (patch[0] * patch[1]), one[1])
            entries.append(Entry(name, every, stacked, unfolded, (3, 2, 0, 1), (one[1], unfolded[2], 1, *patch)))
        elif leaf == "scale_shift_table":
            entries.append(Entry(name, every, stacked, one, (0, 1), (1, *one)))
        else:
            entries.append(_plain(name, every, stacked, one))
    return entries


def vae_entries(shapes: Shapes, blocks: int, layout: str) -> list[Entry]:
    """The table of a VAE.

    Args:
        shapes: of our parameters.
        blocks: residual blocks a level of the encoder.
    """
    entries = []
    for name, shape in shapes.items():
        stem, _, leaf = name.rpartition(".")
        rename = _original_vae if layout == "original" else _diffusers_vae
        theirs = (f"{rename(stem, blocks)}.{LEAVES[leaf]}",)
        if leaf == "gamma":
            singles = 2 if ".attention." in name else 3
            entries.append(Entry(name, theirs, False, shape, (0,), (*shape, *(1,) * singles)))
        else:
            entries.append(_plain(name, theirs, False, shape))
    return entries


def _plain(name: str, theirs: tuple[str, ...], stacked: bool, shape: tuple[int, ...]) -> Entry:
    """Kernels [..., I, O] are published as [O, I, ...], everything else as it is."""
    rank = len(shape)
    axes = (rank - 1, rank - 2, *range(rank - 2)) if name.endswith(".kernel") else tuple(range(rank))
    return Entry(name, theirs, stacked, shape, axes, tuple(shape[axis] for axis in axes))


def _diffusers_vae(stem: str, blocks: int) -> str:
    return stem.replace(".attention", ".attentions.0").replace("sampler.conv", "sampler.resample.1")


def _original_vae(stem: str, blocks: int) -> str:
    if stem in ("quant_conv", "post_quant_conv"):
        return {"quant_conv": "conv1", "post_quant_conv": "conv2"}[stem]
    side, rest = stem.split(".", 1)
    if found := re.fullmatch(r"mid_block\.resnets\.(\d)\.(\w+)", rest):
        return f"{side}.middle.{2 * int(found[1])}.{RESIDUAL[found[2]]}"
    if found := re.fullmatch(r"mid_block\.attention\.(\w+)", rest):
        return f"{side}.middle.1.{found[1]}"
    way = "downsamples" if side == "encoder" else "upsamples"
    if found := re.fullmatch(r"(?:down|up)_blocks\.(\d+)\.resnets\.(\d+)\.(\w+)", rest):
        return f"{side}.{way}.{found[1]}.{way}.{found[2]}.{RESIDUAL[found[3]]}"
    if found := re.fullmatch(r"(?:down|up)_blocks\.(\d+)\.(?:down|up)sampler\.(conv|time_conv)", rest):
        last = blocks + (side == "decoder")
        return f"{side}.{way}.{found[1]}.{way}.{last}.{'resample.1' if found[2] == 'conv' else found[2]}"
    return f"{side}.{ {'conv_in': 'conv1', 'norm_out': 'head.0', 'conv_out': 'head.2'}[rest] }"


class Weights:
    """The tensors of a folder's safetensors files, one or sharded, by name; read when asked for."""

    def __init__(self, folder: Path):
        self.folder, self._files = folder, {}
        index = sorted(folder.glob("*.safetensors.index.json"))
        if index:
            try:
                names: dict[str, str] = json.loads(index[0].read_text())["weight_map"]
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{index[0]}: not an index of safetensors files; fetch it again") from error
            paths = {folder / file for file in names.values()}
        else:
            paths = set(folder.glob("*.safetensors"))
            if len(paths) != 1:
                pickles = ", ".join(path.name for path in [*folder.glob("*.pth"), *folder.glob("*.bin")])
                hint = f" ({pickles}: pickles are not loaded, convert them)" if pickles else ""
                raise InputError(f"{folder} needs one safetensors file or an index of several{hint}")
        for path in sorted(paths):
            try:
                with safe_open(path, "flax") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
        if index and (lost := sorted(names.keys() - self._files.keys())):
            raise InputError(f"{index[0]}: names {lost[0]}, which no file holds; fetch them again")

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, entries: list[Entry], shapes: Shapes, dtype: Any) -> Iterator[tuple[str, np.ndarray]]:
        """Our arrays, one at a time: kernels of `dtype`, whatever they are stored as, the others of at least `dtype`.

        Raises:
            InputError: names the tensor that is unknown, missing, of another shape, or not finite in `dtype`.
        """
        known = {name for entry in entries for name in entry.theirs}
        for problem, names in (("unknown", self._files.keys() - known), ("missing", known - self._files.keys())):
            if names:
                raise InputError(
                    f"{self.folder}: tensor {min(names)} is {problem} ({len(names)} in all): do its weights and "
                    "config.json belong together?"
                )
        for entry in entries:
            tensors = []
            for name in entry.theirs:
                with safe_open(self._files[name], "flax") as file:
                    tensor = file.get_tensor(name)
                if tensor.shape != entry.shape:
                    raise InputError(
                        f"{self.folder}: {name} is {list(tensor.shape)}, its config.json needs {list(entry.shape)}"
                    )
                kernel = entry.ours.endswith(".kernel")
                tensor = np.asarray(tensor, dtype if kernel else jnp.promote_types(tensor.dtype, dtype))
                if not np.isfinite(np.asarray(tensor, np.float32)).all():
                    raise InputError(f"{self.folder}: {name} has values that are not finite: fetch it again")
                tensors.append(tensor)
            yield entry.ours, entry.read(tensors, shapes[entry.ours])


def write(folder: Path, entries: list[Entry], params: dict[str, Any], config: dict[str, Any]) -> None:
    """Writes a folder with config.json and diffusion_pytorch_model*.safetensors, several above `SHARD_BYTES`.

    Holds one file's tensors in memory at a time.
    """
    shard_of, size, last = {}, 0, 0
    for entry in entries:
        for name in entry.theirs:
            nbytes = math.prod(entry.shape) * params[entry.ours].dtype.itemsize
            if size and size + nbytes > SHARD_BYTES:
                last, size = last + 1, 0
            shard_of[name], size = last, size + nbytes
    stem = "diffusion_pytorch_model"
    files = [f"{stem}-{number + 1:05d}-of-{last + 1:05d}.safetensors" for number in range(last + 1)]
    files = files if last else [f"{stem}.safetensors"]
    with atomic(folder) as partial:
        partial.mkdir()
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if last:
            index = {"metadata": {}, "weight_map": {name: files[number] for name, number in shard_of.items()}}
            (partial / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        held: dict[str, np.ndarray] = {}
        left = Counter(shard_of.values())
        for entry in entries:
            for name, tensor in zip(entry.theirs, entry.write(params[entry.ours])):
                held[name] = tensor
                left[shard_of[name]] -= 1
                if not left[shard_of[name]]:
                    save_file(held, partial / files[shard_of[name]])
                    held = {}
