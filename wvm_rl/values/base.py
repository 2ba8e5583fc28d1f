"""What every value source gives: one value in [0,1] at each of some control steps of an episode."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from wvm_rl.advantage import advantage, ranked, uncertainty
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.sidecar import Track
from wvm_rl.errors import InputError


class Values(NamedTuple):
    """Values of one episode.

    step: [F], control steps, rising; whole ones, but for frames from elsewhere. value: [F] f32 in [0,1]. std: [F] f32
    or None, the source's uncertainty.
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
        """Values of the episodes from `start` on, in order.

        Those of an episode depend on that episode alone, unless a source learns from the dataset that it values.
        """
        ...


@dataclass
class ValueConfig:
    """Where values come from, and how far ahead an advantage looks."""

    horizon_k: int = 20  # K, control steps over which the advantage is taken (the paper, E.4: K = H)
    scale: str = "raw"  # of advantages: raw | rank, the share of the dataset between an advantage and 0, signed
    lower: float = 0.0  # standard deviations that an advantage is lowered by, of a source that gives some
    shuffle: bool = False  # permute the advantages over the dataset: same histogram, no information (the null)

    def __post_init__(self):
        if self.horizon_k < 2:
            raise InputError(f"value.horizon_k={self.horizon_k} must be at least 2 control steps")
        if self.scale not in ("raw", "rank"):
            raise InputError(f"value.scale={self.scale}: choose raw or rank")
        if not 0 <= self.lower < float("inf"):
            raise InputError(f"value.lower={self.lower} must be 0 or more")

    def advantages(self, tracks: Sequence[Track]) -> np.ndarray:
        """Advantages [N] of the dataset's control steps, not yet shuffled.

        Raises:
            InputError: a lower bound is asked for, and the values have no standard deviations.
        """
        delta = advantage([track.progress for track in tracks], self.horizon_k)
        if self.lower:
            delta = delta - self.lower * uncertainty([track.std for track in tracks], self.horizon_k)
        return ranked(delta) if self.scale == "rank" else delta

    def shaping(self) -> dict[str, Any]:
        """The settings that values depend on: not what is made of them."""
        later = {each.name for each in fields(ValueConfig)}
        return {name: value for name, value in asdict(self).items() if name not in later}

    def source(self) -> Source:
        """The source this configuration describes."""
        raise NotImplementedError(type(self).__name__)
