"""Advantage-weighted regression (Peng et al. 2019, 1910.00177) as the World Value Model paper uses it, Eq. E.7.

    w = min(exp(tau * Delta), delta)

The paper then renormalises w to mean 1 within each batch. Under its loss sum(w*l) / (sum(w) + 1e-6) (Eq. E.5) a common
factor of the batch's weights cancels but for the 1e-6, so renormalising changes nothing else and is not done twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.base import AgentConfig, Columns, Knob
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError


@dataclass
class AWRConfig(AgentConfig):
    """Advantage-weighted regression: w = min(exp(tau * advantage), clip)."""

    knob = Knob("tau", 0.0, 1e4, {"clip": 1e6})  # a clip near 1 bounds the effective sample size from below

    tau: float = 10.0  # inverse temperature, 1 / value; 10 for chunks of 1 s on simulated tasks, 2 on robots (E.7)
    clip: float = 2.0  # largest weight, delta in E.7

    def __post_init__(self) -> None:
        if not 0 <= self.tau < float("inf"):
            raise InputError(f"agent.tau={self.tau} must be 0 or more: 10 is the paper's, 0 makes it bc")
        if not 0 < self.clip < float("inf"):
            raise InputError(f"agent.clip={self.clip} must be above 0: 2 is the paper's")

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        weight = np.exp(np.minimum(self.tau * advantage, np.log(self.clip)))  # minimum first: no overflow
        return Columns(weight=weight.astype(np.float32))
