"""A fixed pool of encoded training windows on disk: latents are made once, training only reads them.

Encoding costs more than a training step, and the VAE is frozen. Files of a pool's folder, memory-mapped:
latents.npy [N,2,h,w,z] f16 (current and future; [N,3,h,w,z] with the episode's first frame), values.npy [N,4] f32
(current frames), instructions.npy [N] i32.
Chunks are encoded in order and counted in progress.json, so a killed run goes on where it was.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wvm_rl.data.windows import CURRENT, Windows
from wvm_rl.errors import InputError
from wvm_rl.files import atomic

CHUNK_WINDOWS = 256  # windows between two entries of progress


@dataclass
class Pool:
    """Encoded windows, as arrays that may lie on disk."""

    latents: np.ndarray  # [N,2,h,w,z] f16, or [N,3,h,w,z]
    values: np.ndarray  # [N,4] f32
    instructions: np.ndarray  # [N] i32

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The windows `rows` as the loss reads them, without the table of instructions."""
        latents = self.latents[rows].swapaxes(0, 1)
        return {
            **dict(zip(("current", "future", "first"), latents)),
            "value": self.values[rows],
            "instruction": self.instructions[rows],
        }


def shuffled_rows(size: int, seed: int, step: int, batch: int) -> np.ndarray:
    """Rows of training step `step`: every epoch visits the pool once in its own order, whatever the batch size."""
    places = np.arange(step * batch, (step + 1) * batch)
    return np.array([_order(size, seed, int(epoch))[row] for epoch, row in zip(places // size, places % size)])


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


def fill(
    folder: Path,
    windows: Windows,
    encode: Callable[[np.ndarray], np.ndarray],
    count: int,
    latent: tuple[int, int, int],
    meta: dict[str, Any],
    first_frame: bool = False,
) -> Pool:
    """Encodes windows 0 .. count-1, or what is missing of them.

    Args:
        folder: of the pool; made if absent.
        windows: frames, values and instructions by index.
        encode: u8 frames [CHUNK_WINDOWS,1+4k,H,W,3] -> normalised latents [CHUNK_WINDOWS,1+k,h,w,z].
        count: windows; rounded up to whole chunks.
        latent: h, w, z.
        meta: JSON values that say what the pool belongs to.
        first_frame: whether every window has a third latent, of its episode's first frame standing still.

    Raises:
        InputError: the folder holds a pool of something else, or a part of one.
    """
    chunks = -(-count // CHUNK_WINDOWS)
    size = chunks * CHUNK_WINDOWS
    progress = folder / "progress.json"
    shapes = {
        "latents": ((size, 3 if first_frame else 2, *latent), np.float16),
        "values": ((size, 4), np.float32),
        "instructions": ((size,), np.int32),
    }
    done = 0
    if progress.exists():
        note = json.loads(progress.read_text())
        if note["meta"] != json.loads(json.dumps(meta)) or note["size"] != size:
            raise InputError(f"{folder} holds a pool of other windows: choose another folder or remove it")
        if absent := [name for name in shapes if not (folder / f"{name}.npy").exists()]:
            raise InputError(f"{folder} lacks {absent[0]}.npy: remove the folder, and its windows are encoded again")
        done = note["chunks"]
    else:
        for name, (shape, kind) in shapes.items():
            with atomic(folder / f"{name}.npy") as partial:
                np.lib.format.open_memmap(partial, "w+", kind, shape).flush()
        _note(progress, 0, size, meta)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
    for chunk in tqdm(range(done, chunks), desc="encoding windows", initial=done, total=chunks, unit="chunk"):
        part = slice(chunk * CHUNK_WINDOWS, (chunk + 1) * CHUNK_WINDOWS)
        frames, values, instructions = windows.batch(part.start, CHUNK_WINDOWS)
        arrays["latents"][part, :2] = encode(frames)[:, 1:]
        if first_frame:
            arrays["latents"][part, 2] = encode(windows.stills(part.start, CHUNK_WINDOWS))[:, 1]
        arrays["values"][part] = values[:, CURRENT]
        arrays["instructions"][part] = instructions
        for array in arrays.values():
            array.flush()
        _note(progress, chunk + 1, size, meta)
    return Pool(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes})


def finished(folder: Path) -> bool:
    """Whether every window of a pool is encoded."""
    try:
        note = json.loads((folder / "progress.json").read_text())
    except FileNotFoundError:
        return False
    return note["chunks"] * CHUNK_WINDOWS == note["size"]


def _note(path: Path, chunks: int, size: int, meta: dict[str, Any]) -> None:
    with atomic(path) as partial:
        partial.write_text(json.dumps({"chunks": chunks, "size": size, "meta": meta}))
