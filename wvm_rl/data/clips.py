"""Clips made from experts' episodes, on which a critic must not be fooled: played back, and standing still."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.layout import NO_LAPSES
from wvm_rl.data.writing import write, write_part
from wvm_rl.files import once

FROZEN_SECONDS = 5.0


def _cycle(frames: np.ndarray, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Forward, then backward."""
    return np.concatenate([frames, frames[::-1]])


def _frozen(frames: np.ndarray, fps: float, rng: np.random.Generator) -> np.ndarray:
    """A frame from anywhere in the episode, for `FROZEN_SECONDS`."""
    return np.repeat(frames[rng.integers(len(frames))][None], round(FROZEN_SECONDS * fps), 0)


MADE: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {"cycle": _cycle, "frozen": _frozen}


def derived(dataset: Dataset, clip: str, camera: str) -> Dataset:
    """The dataset of a clip of MADE for every successful expert episode, beside its source; made once."""
    path = dataset.path.with_name(f"{dataset.path.stem}-{camera}-{clip}-{dataset.fingerprint[:8]}.hdf5")

    def make() -> None:
        with TemporaryDirectory(dir=path.parent) as folder:
            parts = [_part(Path(folder), episode) for episode in _episodes(dataset, clip, camera)]
            write(path, parts, dataset.env_args)

    return Dataset(once(path, make))


def _part(folder: Path, episode: Episode) -> Path:
    path = folder / f"{episode.index:06d}.hdf5"
    write_part(path, episode)
    return path


def _episodes(dataset: Dataset, clip: str, camera: str) -> Iterator[Episode]:
    interval = round(dataset.control_freq / dataset.fps)
    experts = (each for each in dataset if each.quality == "expert" and each.success and not len(each.lapses))
    for index, episode in enumerate(experts):
        frames = dataset.frames(episode.index, camera)[0]
        made = MADE[clip](frames, dataset.fps, np.random.default_rng(zlib.crc32(episode.actions.tobytes())))
        length = interval * len(made)
        yield Episode(
            index=index,
            instruction=episode.instruction,
            success=True,
            quality="expert",
            lapses=NO_LAPSES,
            actions=np.zeros((length, episode.actions.shape[1]), np.float32),
            rewards=np.zeros(length, np.float32),
            obs={},
            states=np.zeros((length, 0)),
            model_file="",
            frames={camera: made},
            frame_step=np.arange(len(made), dtype=np.int32) * interval,
        )
