"""Writes episodes (`wvm_rl.data.episodes`): whole or not at all, equal episodes as equal bytes.

Files are of HDF5's oldest format: newer ones hold the time at which a group was made.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wvm_rl.data.episodes import Episode
from wvm_rl.data.layout import check, single
from wvm_rl.files import atomic

# Neighbouring frames share a chunk, so gzip finds the last one within its window: a fifth of the raw bytes at level 1,
# a third of what lzf or one chunk a frame need, and faster than those to write and to read.
FRAMES_A_CHUNK = 32


def write_part(path: Path, episode: Episode) -> None:
    """Writes one episode."""
    with atomic(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        _write(file.create_group("demo"), episode)


def write(path: Path, parts: Sequence[Path], env_args: dict[str, Any]) -> None:
    """Joins the parts of `write_part` into one dataset."""
    with atomic(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        data = file.create_group("data")
        total = 0
        for index, part in enumerate(parts):
            with h5py.File(part, "r") as source:
                source.copy("demo", data, name=f"demo_{index}")
            total += int(data[f"demo_{index}"].attrs["num_samples"])
        data.attrs["env_args"] = json.dumps(env_args, sort_keys=True)
        data.attrs["total"] = total


def write_frames(demo: h5py.Group, frames: dict[str, np.ndarray], step: np.ndarray) -> None:
    """Writes `frames/<camera>` [F,H,W,3] u8 and `frames/step` [F] of one episode."""
    for camera in sorted(frames):
        images = frames[camera]
        chunk = (min(FRAMES_A_CHUNK, len(images)), *images.shape[1:])
        demo.create_dataset(f"frames/{camera}", data=images, chunks=chunk, compression="gzip", compression_opts=1)
    demo["frames/step"] = np.asarray(step, np.int32)


def _write(demo: h5py.Group, episode: Episode) -> None:
    dones = np.zeros(len(episode), np.int64)
    dones[-1] = 1
    demo["actions"] = episode.actions.astype(np.float32)
    demo["states"] = episode.states.astype(np.float64)
    demo["rewards"] = episode.rewards.astype(np.float32)
    demo["dones"] = dones
    for key in sorted(episode.obs):
        demo[f"obs/{key}"] = single(episode.obs[key])
    if len(episode.phase):
        demo["phase"] = episode.phase.astype(np.int32)
    if episode.frames:
        write_frames(demo, episode.frames, episode.frame_step)
    demo.attrs["num_samples"] = len(episode)
    demo.attrs["model_file"] = episode.model_file
    demo.attrs["instruction"] = episode.instruction
    demo.attrs["success"] = bool(episode.success)
    demo.attrs["quality"] = episode.quality
    demo.attrs["lapses"] = episode.lapses.astype(np.int32).reshape(-1, 3)
    if episode.seed is not None:
        demo.attrs["seed"] = int(episode.seed)
    check(f"episode {episode.index}", demo)
