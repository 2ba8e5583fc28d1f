"""What every extraction method gives the trainer: one weight and, if it conditions, one condition per sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError


class Columns(NamedTuple):
    """Per-sample columns of a dataset; a sample is one control step t with the action chunk that starts there.

    weight: [N] f32 >= 0, factor of the sample's loss; 0 filters it out.
    cond: [N,C] f32 or None, what the policy is conditioned on beside the observation.
    hidden: share of training samples whose condition is hidden, so that the policy also learns to do without.
    """

    weight: np.ndarray
    cond: np.ndarray | None = None
    hidden: float = 0.0


NEAR = 0.05  # of the conditions' range: what lies so close to the one that is asked for is as good as it


class Knob(NamedTuple):
    """A setting that changes how many samples count (`agents.matching`), its extremes, and defaults that give way."""

    name: str
    low: float
    high: float
    beside: Mapping[str, float] = {}


@dataclass
class AgentConfig:
    """An extraction method: its settings and the pure function from advantages to columns.

    Subclasses implement `columns`; those that condition also implement `act_cond` and say so by `conditions`.

    Attributes:
        conditions: whether the policy is conditioned: whether the columns have a `cond`.
        scale_free: whether only sign and order of the advantages matter, so that `value.scale=rank` changes nothing.
        knob: setting that changes how many samples count; None if there is none.
    """

    conditions: ClassVar[bool] = False
    scale_free: ClassVar[bool] = False
    knob: ClassVar[Knob | None] = None

    def columns(self, advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> Columns:
        """Columns of the dataset.

        Args:
            advantage: [N] f64 over all control steps, in episode order (`wvm_rl.advantage`), as `checked` returns it.
            values: per episode [T] in [0,1], one value a control step.
            episodes: the episodes in the same order, N = sum of their lengths.
        """
        raise NotImplementedError

    @property
    def reads_advantage(self) -> bool:
        """Whether the columns depend on the advantages at all; if not, shuffled ones would be no null."""
        return True

    @property
    def strength(self) -> float:
        """Of classifier-free guidance when acting; others than 1, none, need hidden conditions and a flow."""
        return 1.0

    def act_cond(self, columns: Columns) -> np.ndarray | None:
        """Condition [C] f32 to ask for when acting; None for a method that does not condition."""
        return None

    def asked(self, columns: Columns) -> np.ndarray:
        """Which samples have the condition that is asked for when acting, or one as good, [N] bool; all without one."""
        asked = self.act_cond(columns)
        if columns.cond is None or asked is None:
            return np.ones(len(columns.weight), bool)
        return np.all(np.abs(columns.cond - asked) <= NEAR * np.ptp(columns.cond, axis=0), axis=1)


def checked(advantage: np.ndarray, values: Sequence[np.ndarray], episodes: Sequence[Episode]) -> np.ndarray:
    """The advantages as [N] f64, after checking that they belong to these episodes.

    Raises:
        InputError: lengths that do not fit, advantages or values that are not finite.
    """
    advantage = np.asarray(advantage, np.float64)
    if len(values) != len(episodes):
        raise InputError(f"values of {len(values)} episodes do not fit a dataset of {len(episodes)}: label it again")
    for episode, value in zip(episodes, values):
        if np.shape(value) != (len(episode.actions),) or not np.isfinite(value).all():
            raise InputError(
                f"values of episode {episode.index} must be {len(episode.actions)} finite numbers, one a control step"
                f" (shape {np.shape(value)}): label the dataset again"
            )
    count = sum(len(episode.actions) for episode in episodes)
    if advantage.shape != (count,):
        raise InputError(f"advantage has shape {advantage.shape}, the dataset {count} control steps: compute it again")
    if not np.isfinite(advantage).all():
        raise InputError(
            f"advantage of sample {int(np.argmin(np.isfinite(advantage)))} is not finite: check the values"
        )
    return advantage


def best(advantage: np.ndarray, share: float) -> np.ndarray:
    """Whether a sample is among the `share` with the highest advantage, [N] bool; ties with the last one are, too."""
    kept = max(1, round(share * len(advantage)))
    return advantage >= np.sort(advantage)[len(advantage) - kept]


def fitting(columns: Columns, count: int) -> Columns:
    """The columns as f32 arrays, after checking that they fit a dataset of `count` samples.

    Raises:
        InputError: other lengths, weights that are negative, not finite or all 0, conditions that are not finite.
    """
    weight = np.asarray(columns.weight, np.float32)
    if weight.shape != (count,):
        raise InputError(f"weights have shape {weight.shape}, the dataset {count} samples: compute the columns again")
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise InputError("weights must be finite and not negative: check the agent's settings and the values")
    if not weight.any():
        raise InputError(
            "the method keeps no sample of the dataset: choose another method or threshold, or other values"
        )
    if columns.cond is None:
        return Columns(weight)
    cond = np.asarray(columns.cond, np.float32)
    if cond.ndim != 2 or len(cond) != count or cond.shape[1] < 1 or not np.isfinite(cond).all():
        raise InputError(
            f"conditions have shape {cond.shape}, expected [{count}, C], finite: compute the columns again"
        )
    return Columns(weight, cond, columns.hidden)


def effective_fraction(weight: np.ndarray) -> float:
    """Effective sample size over N: (sum w)^2 / (N sum w^2), 1 for equal weights (Kish 1965); 0 if all are 0."""
    weight = np.asarray(weight, np.float64)
    square = np.sum(weight**2)
    return float(np.sum(weight) ** 2 / (weight.size * square)) if square > 0 else 0.0
