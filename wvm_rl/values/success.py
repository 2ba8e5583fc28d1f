"""The outcome alone: what a critic could say that only hears at the end whether the episode succeeded."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.values.base import ValueConfig, Values


class Success:
    """V(t) = success * discount^(T-1-t), the discounted return of a reward of 1 at a success's end.

    A constant 1 or 0 would carry no advantage; discounting makes all steps of a success advance, the last ones most,
    and leaves failures flat at 0.
    """

    name = "success"

    def __init__(self, discount: float):
        self.discount = discount
        self.fingerprint = f"success-1-{discount}"

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        for index in range(start, len(dataset)):
            episode = dataset[index]
            left = np.arange(len(episode))[::-1]
            value = episode.success * self.discount**left
            yield Values(np.arange(len(episode), dtype=np.int32), value.astype(np.float32))


@dataclass
class SuccessConfig(ValueConfig):
    """Discounted outcome of the episode: success or failure and nothing else."""

    discount: float = 0.99  # a control step

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.discount < 1:
            raise InputError(f"value.discount={self.discount} must lie in (0, 1)")

    def source(self) -> Success:
        return Success(self.discount)
