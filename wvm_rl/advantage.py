"""From values to advantages."""

from collections.abc import Sequence

import numpy as np


def advantage(values: Sequence[np.ndarray], horizon_k: int) -> np.ndarray:
    """Delta(t) = V(min(t+K-1, T-1)) - V(t) of every control step (PAPER.md E.4).

    Args:
        values: per episode [T], one a control step.
        horizon_k: K, control steps.

    Returns:
        [N] f32 over all control steps, in episode order.
    """
    parts = []
    for value in values:
        tail = np.minimum(np.arange(len(value)) + horizon_k - 1, len(value) - 1)
        parts.append(value[tail] - value)
    return np.concatenate(parts).astype(np.float32)


def shuffled(advantages: np.ndarray, seed: int) -> np.ndarray:
    """The advantages [N] permuted over the dataset: the same histogram without information."""
    return np.random.default_rng(seed).permutation(advantages)
