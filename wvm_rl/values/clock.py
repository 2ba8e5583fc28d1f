"""Sources that see nothing: the clock, and others that any critic should beat."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wvm_rl.data.episodes import Dataset
from wvm_rl.values.base import ValueConfig, Values

WALK = 0.02  # standard deviation of a random walk's step, every tenth of a second


def _walk(length: int, draw: list[int], per_second: int) -> np.ndarray:
    rng = np.random.default_rng(draw)
    every = max(1, per_second // 10)
    steps = rng.normal(0, WALK, -(-length // every))
    return np.clip(0.5 + np.interp(np.arange(length) / every, np.arange(len(steps)), np.cumsum(steps)), 0, 1)


BLIND: dict[str, Callable[[int, list[int], int], np.ndarray]] = {  # (length, seed, control steps a second) -> [T]
    "clock": lambda length, draw, per_second: np.linspace(0, 1, length),
    "reversed": lambda length, draw, per_second: np.linspace(1, 0, length),
    "constant": lambda length, draw, per_second: np.full(length, 0.5),
    "walk": _walk,
}


class Blind:
    """Values of a rule in BLIND, which sees no more of an episode than its length; drawn by file and episode."""

    def __init__(self, name: str):
        self.name, self.fingerprint = name, f"{name}-{2 if name == 'walk' else 1}"

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        rule = BLIND[self.name]
        for index in range(start, len(dataset)):
            length = dataset.lengths[index]
            value = rule(length, [zlib.crc32(dataset.path.name.encode()), index], dataset.control_freq)
            yield Values(np.arange(length, dtype=np.int32), value.astype(np.float32))


@dataclass
class ClockConfig(ValueConfig):
    """Time elapsed over episode length, V(t) = t / (T-1): a baseline that sees nothing but favours short episodes."""

    def source(self) -> Blind:
        return Blind("clock")
