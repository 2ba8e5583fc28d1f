"""The clock: time elapsed as a share of the episode's length. Knows nothing but favours short episodes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wvm_rl.data.episodes import Dataset
from wvm_rl.values.base import ValueConfig, Values


class Clock:
    """V(t) = t / (T-1)."""

    name = "clock"
    fingerprint = "clock-1"

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        for index in range(start, len(dataset)):
            length = dataset.lengths[index]
            yield Values(np.arange(length, dtype=np.int32), np.linspace(0, 1, length, dtype=np.float32))


@dataclass
class ClockConfig(ValueConfig):
    """Time elapsed over episode length: a baseline that sees nothing."""

    def source(self) -> Clock:
        return Clock()
