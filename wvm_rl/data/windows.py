"""Clip windows of episodes: nine frames in the order prefix, current, future, rewound and relabelled (no JAX).

Window t shows frames t-4 .. t+4 of an episode; frames before the first and after the last repeat those. The
critic sees windows t = 0 .. F-1 in order at inference (t < 3 start with repeated first frames), and the same
windows in training. Rewinding (after ReWiND) rearranges all nine frames, the labels follow their frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wvm_rl.errors import InputError

PREFIX, CURRENT, FUTURE = slice(0, 1), slice(1, 5), slice(5, 9)
CLIP, ANCHOR = 9, 4  # frames of a clip; place of frame t in it


@dataclass
class RewindConfig:
    """How training windows are rearranged, so that values learn to stay and to fall."""

    rewind: float = 0.5  # share of windows that do not simply rise (PAPER section 3)
    plateau: float = 0.1  # share of those that stand still; the others fall
    turn: float = 0.5  # share of both that change direction within the clip (measured lead, MACHINE.md)
    jitter: float = 0.0  # photometric augmentation: half-range of random brightness and contrast, as a fraction

    def __post_init__(self) -> None:
        for name in ("rewind", "plateau", "turn", "jitter"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"windows.{name}={getattr(self, name)} must lie in [0, 1]")


def motion(rng: np.random.Generator, config: RewindConfig) -> np.ndarray:
    """Direction of each step between the clip's frames: [8] of +1 (rising), 0 (still), -1 (falling)."""
    steps = np.ones(CLIP - 1, np.int64)
    if rng.random() >= config.rewind:
        return steps
    away = 0 if rng.random() < config.plateau else -1
    if rng.random() >= config.turn:
        return np.full(CLIP - 1, away)
    change = rng.integers(1, CLIP - 1)  # steps before the change
    if rng.random() < 0.5:
        steps[change:] = away  # rising, then still or falling
    else:
        steps[:change] = away  # still or falling, then rising
    return steps


def arrange(anchor: int, steps: np.ndarray, length: int) -> np.ndarray:
    """Frame at each place of the clip, [9]: `anchor` at place 4, others along `steps`, kept within the episode."""
    path = np.concatenate([[0], np.cumsum(steps)])
    return np.clip(anchor + path - path[ANCHOR], 0, length - 1)


def rising(anchors: np.ndarray, length: int) -> np.ndarray:
    """Prefix and current frames of the windows at `anchors`, unrewound: [N,5]."""
    return np.clip(anchors[:, None] + np.arange(-ANCHOR, 1), 0, length - 1)


@dataclass
class Film:
    """Frames of one expert episode with their labels."""

    frames: np.ndarray  # [F,H,W,3] u8
    progress: np.ndarray  # [F] f32 in [0,1]
    instruction: int  # row of the table of instructions


def progress(step: np.ndarray, steps: int) -> np.ndarray:
    """Expert progress t / (T-1) of frames at control steps `step` [F] of `steps`."""
    return (step / max(steps - 1, 1)).astype(np.float32)


class Windows:
    """An endless, seeded sequence of training windows: window i is a pure function of (films, config, seed, i).

    Tasks (instructions) are drawn alike, then a frame of that task's episodes.
    """

    def __init__(self, films: Sequence[Film], config: RewindConfig, seed: int):
        self.films, self.config, self.seed = films, config, seed
        tasks = sorted({film.instruction for film in films})
        self._places = [
            np.concatenate([_places(index, film) for index, film in enumerate(films) if film.instruction == task])
            for task in tasks
        ]

    def draw(self, index: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Frames [9,H,W,3] u8, their values [9] f32 and the instruction of window `index`."""
        rng, row, anchor = self._chosen(index)
        film = self.films[row]
        order = arrange(anchor, motion(rng, self.config), len(film.frames))
        frames = film.frames[order]
        if self.config.jitter:
            frames = _jittered(frames, rng, self.config.jitter)
        return frames, film.progress[order], film.instruction

    def film(self, index: int) -> int:
        """Which of the films window `index` shows."""
        return self._chosen(index)[1]

    def _chosen(self, index: int) -> tuple[np.random.Generator, int, int]:
        rng = np.random.default_rng([self.seed, index])
        places = self._places[rng.integers(len(self._places))]
        film, anchor = places[rng.integers(len(places))]
        return rng, int(film), int(anchor)

    def batch(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows start .. start+count-1: frames [N,9,H,W,3], values [N,9], instructions [N] i32."""
        frames, values, instructions = zip(*(self.draw(index) for index in range(start, start + count)))
        return np.stack(frames), np.stack(values), np.array(instructions, np.int32)


def _places(index: int, film: Film) -> np.ndarray:
    """(film, frame) of every window of a film, [F,2]."""
    return np.stack([np.full(len(film.frames), index), np.arange(len(film.frames))], 1)


def _jittered(frames: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """One brightness and contrast for all frames of a clip."""
    contrast, brightness = 1 + rng.uniform(-amount, amount), 255 * rng.uniform(-amount, amount)
    mean = frames.mean()
    return np.clip((frames - mean) * contrast + mean + brightness, 0, 255).astype(np.uint8)
