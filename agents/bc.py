"""Behaviour cloning: every sample counts the same, w = 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.base import AgentConfig, Columns
from wvm_rl.data.episodes import Episode


@dataclass
class BCConfig(AgentConfig):
    """Behaviour cloning: imitates every sample alike, w = 1."""

    @property
    def reads_advantage(self) -> bool:
        return False

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        return Columns(weight=np.ones(len(advantage), np.float32))
