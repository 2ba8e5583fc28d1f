"""From values to advantages."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from wvm_rl.errors import InputError


def advantage(values: Sequence[np.ndarray], horizon_k: int) -> np.ndarray:
    """Delta(t) = V(min(t+K-1, T-1)) - V(t) of every control step (the paper, E.4).

    Args:
        values: per episode [T], one a control step.
        horizon_k: K, control steps.

    Returns:
        [N] f32 over all control steps, in episode order.
    """
    return np.concatenate([value[tail(len(value), horizon_k)] - value for value in values]).astype(np.float32)


def uncertainty(deviations: Sequence[np.ndarray], horizon_k: int) -> np.ndarray:
    """Standard deviation of every advantage, were the errors of its two values independent: a lower bound's width.

    At an episode's last step the two are one value, so there is none. In the steps before both read much the same
    frames, and err alike: there it is too wide.

    Args:
        deviations: per episode [T], standard deviations of the values.
        horizon_k: K, control steps.

    Returns:
        [N] f32.

    Raises:
        InputError: the source of the values gives none.
    """
    found = np.concatenate([np.hypot(each[tail(len(each), horizon_k)], each) for each in deviations]).astype(np.float32)
    found[np.cumsum([len(each) for each in deviations]) - 1] *= 0
    if not np.isfinite(found).all():
        raise InputError(
            "value.lower: not all values have a standard deviation: use value=wvm value.draws=8, or value.lower=0"
        )
    return found


def ranked(advantages: np.ndarray) -> np.ndarray:
    """Advantages [N] on the scale of ranks: which share of the dataset lies between an advantage and 0, with its sign.

    Signs and order stay, so that methods of thresholds at 0 or at a share keep the same samples.
    """
    ranks = rankdata(np.concatenate([advantages, [0.0]])) / (len(advantages) + 1)
    return (ranks[:-1] - ranks[-1]).astype(np.float32)


def shuffled(advantages: np.ndarray, seed: int) -> np.ndarray:
    """The advantages [N] permuted over the dataset: the same histogram without information."""
    return np.random.default_rng(seed).permutation(advantages)


def tail(length: int, horizon_k: int) -> np.ndarray:
    """Last step of the chunk that starts at each of `length` steps (the paper, E.4)."""
    return np.minimum(np.arange(length) + horizon_k - 1, length - 1)
