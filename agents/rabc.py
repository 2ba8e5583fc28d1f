"""Reward-aligned behaviour cloning (SARM, Chen et al. 2025, 2509.25358, Eq. 8-9; LeRobot's RA-BC).

    w~ = clip((Delta - (mu - 2 sigma)) / (4 sigma + eps), 0, 1),  mu and sigma those of Delta over the training set
    w = 1[Delta > kappa] + 1[0 <= Delta <= kappa] w~

As in LeRobot, a negative mu counts as 0 and sigma is at least eps; its normalisation within a batch cancels in the loss
of Eq. E.5, as that of `agents.awr` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.base import AgentConfig, Columns, Knob
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError

EPSILON = 1e-6


@dataclass
class RABCConfig(AgentConfig):
    """Reward-aligned cloning: full weight above `kappa`, none below 0, a soft one between."""

    knob = Knob("kappa", 0.0, 2.0)  # from a filter at 0 to the soft weight alone: a narrow range

    kappa: float = 0.01  # advantage from which a sample counts fully, value; 0.01 is LeRobot's

    def __post_init__(self) -> None:
        if not 0 <= self.kappa < float("inf"):
            raise InputError(f"agent.kappa={self.kappa} must be 0 or more: 0.01 is LeRobot's, 0 keeps what gains")

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        mean, deviation = max(advantage.mean(), 0.0), max(advantage.std(), EPSILON)
        soft = np.clip((advantage - (mean - 2 * deviation)) / (4 * deviation + EPSILON), 0, 1)
        weight = np.where(advantage > self.kappa, 1.0, np.where(advantage >= 0, soft, 0.0))
        return Columns(weight=weight.astype(np.float32))
