"""What every value source gives: one value in [0,1] at each of some control steps of an episode."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError


class Values(NamedTuple):
    """Values of one episode.

    step: [F] i32, control steps, rising. value: [F] f32 in [0,1]. std: [F] f32 or None, the source's uncertainty.
    """

    step: np.ndarray
    value: np.ndarray
    std: np.ndarray | None = None


class Source(Protocol):
    """A value source, ready to label.

    name: its registry name. fingerprint: hash of everything but the dataset that its values depend on.
    """

    name: str
    fingerprint: str

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        """Values of the episodes from `start` on, in order; those of an episode depend on that episode alone."""
        ...


@dataclass
class ValueConfig:
    """Where values come from, and how far ahead an advantage looks."""

    horizon_k: int = 20  # K, control steps over which the advantage is taken (PAPER.md E.4; the paper's K = H)
    shuffle: bool = False  # permute the advantages over the dataset: same histogram, no information (the null)

    def __post_init__(self):
        if self.horizon_k < 2:
            raise InputError(f"value.horizon_k={self.horizon_k} must be at least 2 control steps")

    def source(self) -> Source:
        """The source this configuration describes."""
        raise NotImplementedError(type(self).__name__)
