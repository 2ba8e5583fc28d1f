"""Reward-conditioned policies (Kumar et al. 2019, 1912.13465): learn pi(a | s, z), act with a high z.

z is the advantage Delta or the return-to-go G. With reward -1 a control step until success (Eq. 2) and a failure
counted as taking as long again as the longest episode, G_t = -(T-1-t) - [failure] * max T.

Kumar et al. standardise z against a state baseline. Here the baseline is the rank among samples at similar progress:
samples are split by value into `groups` of equal size and z becomes its rank within the group, in [0,1], rounded to
`bins` levels and scaled to [-1,1]. So the level that is asked for exists where all advantages are small (closing the
gripper), too, and although G falls with the time left. Not in an episode's last K - 1 steps, though, if z is the
advantage: its chunk ends there (E.4), so it is smaller than those of the same group that see further.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from agents.base import AgentConfig, Columns
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError

CONDITIONS = ("advantage", "return")


@dataclass
class RCPConfig(AgentConfig):
    """Reward-conditioned policy: learns actions given their advantage or return, asks for the best when acting."""

    conditions = True
    scale_free = True

    condition: str = "advantage"  # advantage | return: what the policy is conditioned on
    groups: int = 10  # groups of similar value within which the condition is ranked; 1 ranks over the whole dataset
    bins: int = 10  # levels of the condition
    ask: float = 0.95  # quantile of the dataset's conditions that is asked for when acting; 1 is the best

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise InputError(f"agent.condition={self.condition} is unknown: choose one of {', '.join(CONDITIONS)}")
        if self.groups < 1 or self.bins < 2:
            raise InputError(f"agent.groups={self.groups} must be at least 1 and agent.bins={self.bins} at least 2")
        if not 0 <= self.ask <= 1:
            raise InputError(f"agent.ask={self.ask} must be between 0 and 1: a quantile, 1 asks for the best")

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        score = advantage if self.condition == "advantage" else returns(episodes)
        level = quantiles_by_value(score, np.concatenate(list(values)), self.groups)
        level = np.minimum(np.floor(level * self.bins), self.bins - 1) / (self.bins - 1)
        return Columns(weight=np.ones(len(score), np.float32), cond=(2 * level - 1).astype(np.float32)[:, None])

    @property
    def reads_advantage(self) -> bool:
        return self.condition == "advantage"

    def act_cond(self, columns: Columns) -> np.ndarray | None:
        assert columns.cond is not None
        return np.quantile(columns.cond, self.ask, axis=0, method="lower").astype(np.float32)


def returns(episodes: Sequence[Episode]) -> np.ndarray:
    """Return-to-go [N] f64 in control steps: -(T-1-t), less the longest episode's length after a failure."""
    longest = max(len(episode.actions) for episode in episodes)
    return np.concatenate(
        [np.arange(1 - len(episode.actions), 1) - (0.0 if episode.success else longest) for episode in episodes]
    )


def quantiles_by_value(score: np.ndarray, value: np.ndarray, groups: int) -> np.ndarray:
    """Rank of each score among the samples of similar value, [N] in [0,1]; ties share their mean rank.

    Args:
        score: [N]. value: [N], progress in [0,1]. groups: number of groups of equal size, by value.
    """
    group = np.minimum((rankdata(value, "average") - 1) * groups // len(value), groups - 1)
    quantile = np.zeros(len(score))
    for index in np.unique(group):
        inside = group == index
        quantile[inside] = (rankdata(score[inside], "average") - 0.5) / inside.sum()
    return quantile
