"""Classifier-free guidance towards optimality (CFGRL, Frans et al. 2025, 2505.23458; RECAP of pi*0.6, 2511.14759).

A sample is optimal, o = 1, if its advantage is high enough. The flow learns pi(a | s, o), and with o hidden in a share
`drop` of the samples also pi(a | s). Acting follows

    v = v(s) + guidance * (v(s, o=1) - v(s)),

the flow of pi(a | s) p(o=1 | s, a)^guidance: 0 clones, 1 is the policy conditioned on o = 1, more improves further, as
far as the data reach.

CFGRL's threshold of 0 is for advantages that the data's own value function centres. A gain in progress is not centred:
it is 0 where time passes for nothing, so of a dataset that mostly gets on most samples are optimal. `optimal` asks for
the best share, as RECAP does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.base import AgentConfig, Columns, Knob, best
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError


@dataclass
class CFGConfig(AgentConfig):
    """Guided policy: learns actions with and without knowing whether they are optimal, acts beyond optimal."""

    conditions = True
    scale_free = True
    knob = Knob("optimal", 1e-6, 1 - 1e-6)

    optimal: float = 0.0  # share of samples that counts as optimal, the best; 0: those with advantage >= 0
    drop: float = 0.1  # share of training samples whose optimality is hidden
    guidance: float = 1.5  # strength of the guidance when acting

    def __post_init__(self) -> None:
        if not 0 <= self.optimal < 1:
            raise InputError(f"agent.optimal={self.optimal} must be at least 0 and below 1: 0 takes advantage >= 0")
        if not 0 < self.drop < 1:
            raise InputError(f"agent.drop={self.drop} must lie between 0 and 1: guidance needs both policies")
        if not 0 <= self.guidance < float("inf"):
            raise InputError(f"agent.guidance={self.guidance} must be 0 or more: 1 asks for optimal actions")

    @property
    def strength(self) -> float:
        return self.guidance

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        optimal = best(advantage, self.optimal) if self.optimal else advantage >= 0
        cond = np.where(optimal, 1.0, -1.0).astype(np.float32)[:, None]
        return Columns(weight=np.ones(len(advantage), np.float32), cond=cond, hidden=self.drop)

    def act_cond(self, columns: Columns) -> np.ndarray | None:
        return np.ones(1, np.float32)
