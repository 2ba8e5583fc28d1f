"""Clip windows of episodes: nine frames in the order prefix, current, future, rewound and relabelled (no JAX).

Window t shows frames t-4 .. t+4 of an episode; frames before the first and after the last repeat those. The
critic sees windows t = 0 .. F-1 in order at inference (t < 4 start with repeated first frames), and the same
windows in training. Rewinding (after ReWiND) rearranges all nine frames, the labels follow their frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wvm_rl.errors import InputError

CURRENT = slice(1, 5)  # of a clip's frames; before them the prefix, after them the future
CLIP, ANCHOR = 9, 4  # frames of a clip; place of frame t in it

NO_TEXT = ""  # the only instruction of films, and of who learned from them, that come without


@dataclass
class WindowsConfig:
    """How training windows are rearranged, so that values learn to stay and to fall, and how their pictures vary."""

    rewind: float = 0.5  # share of windows that do not simply rise (PAPER section 3)
    plateau: float = 0.1  # share of those that stand still; the others fall
    turn: float = 0.5  # share of both that change direction within the clip (not in the paper)
    jitter: float = 0.0  # half-range of random contrast, brightness and, a third of it, tint, as a fraction
    shift: float = 0.0  # largest random translation across and down, as a fraction of the side

    def __post_init__(self) -> None:
        for name in ("rewind", "plateau", "turn", "jitter", "shift"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"windows.{name}={getattr(self, name)} must lie in [0, 1]")


def varied() -> WindowsConfig:
    """Windows of the recipe by which critics and their learned baselines are trained.

    More of them stand still than the paper's (0.5 and 0.1): an expert stands still only where it grasps and where it
    has finished, and values of a critic taught so were seen to drift there while an operator hesitated.
    """
    return WindowsConfig(rewind=0.6, plateau=0.4, jitter=0.1, shift=0.02)


def motion(rng: np.random.Generator, config: WindowsConfig) -> np.ndarray:
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

    def __init__(self, films: Sequence[Film], config: WindowsConfig, seed: int):
        self.films, self.config, self.seed = films, config, seed
        self._means: dict[int, np.ndarray] = {}
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
        frames = augmented(frames, rng, self.config)
        return frames, film.progress[order], film.instruction

    def background(self, index: int) -> np.ndarray:
        """Mean picture [H,W,3] u8 of the film that window `index` shows, changed as its frames are."""

        def mean(row: int) -> np.ndarray:
            if row not in self._means:
                self._means[row] = self.films[row].frames.mean(0).astype(np.uint8)
            return self._means[row]

        return self._alike(index, mean)

    def stills(self, start: int, count: int) -> np.ndarray:
        """First frames of the films that windows start .. start+count-1 show, changed as their frames are.

        Returns:
            [N,5,H,W,3] u8: standing still, as prefix and current frames of a film's first window do.
        """
        first = [self._alike(index, lambda row: self.films[row].frames[0]) for index in range(start, start + count)]
        return np.repeat(np.stack(first)[:, None], CURRENT.stop, 1)

    def _alike(self, index: int, picture: Callable[[int], np.ndarray]) -> np.ndarray:
        """The picture of a film's row, changed as the frames of window `index` are."""
        rng, row, _ = self._chosen(index)
        motion(rng, self.config)
        return augmented(picture(row), rng, self.config)

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


def augmented(frames: np.ndarray, rng: np.random.Generator, config: WindowsConfig) -> np.ndarray:
    """One translation, contrast, brightness and tint for all frames [...,H,W,3] u8 of a clip."""
    if config.shift:
        reach = round(config.shift * frames.shape[-2])
        down, across = rng.integers(-reach, reach + 1, 2)
        rows, columns = (np.arange(side) for side in frames.shape[-3:-1])
        rows, columns = np.clip(rows + down, 0, rows[-1]), np.clip(columns + across, 0, columns[-1])
        frames = frames[..., rows, :, :][..., columns, :]  # the border's pixels fill what was not seen
    if config.jitter:
        amount = config.jitter
        contrast = 1 + rng.uniform(-amount, amount)
        light = 255 * (rng.uniform(-amount, amount) + rng.uniform(-amount, amount, 3) / 3)
        values = np.arange(256)[:, None] - 127.5
        table = np.clip(values * contrast + 127.5 + light, 0, 255).astype(np.uint8)  # [256,3]
        frames = np.stack([table[frames[..., channel], channel] for channel in range(3)], -1)
    return frames
