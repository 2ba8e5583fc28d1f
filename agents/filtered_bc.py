"""Filtered behaviour cloning: keep the samples whose advantage is high enough, Eq. E.6.

    binary:      w = 1[Delta >= 0]
    percentile:  w = 1[Delta >= q], q the (1 - keep) quantile of Delta over the training set

Dropped samples have weight 0 in the loss of Eq. E.5; batches are drawn from all samples, as for every method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.base import AgentConfig, Columns, Knob, best
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError


@dataclass
class FilteredBCBinaryConfig(AgentConfig):
    """Filtered cloning, binary: imitates the samples whose advantage is not negative.

    Without a knob: with another threshold it is the percentile filter.
    """

    scale_free = True

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        return Columns(weight=(advantage >= 0).astype(np.float32))


@dataclass
class FilteredBCPercentileConfig(AgentConfig):
    """Filtered cloning, percentile: imitates the share `keep` of samples with the highest advantage."""

    scale_free = True
    knob = Knob("keep", 1e-6, 1.0)

    keep: float = 0.7  # share of the training set's samples that is kept (E.6); ties with the last one are kept too

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise InputError(f"agent.keep={self.keep} must be above 0 and at most 1: 0.7 is the paper's")

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        return Columns(weight=best(advantage, self.keep).astype(np.float32))
