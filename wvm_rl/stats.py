"""Intervals for success rates and for differences between paired rollouts."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, bootstrap

CONFIDENCE = 0.95
RESAMPLES = 10_000


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate (Wilson 1927)."""
    interval = binomtest(int(successes), int(count)).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def success_interval(success: np.ndarray) -> tuple[float, float]:
    """95 % interval of the success rate of rollouts [S,I] of S training seeds: Wilson's for one seed.

    For several the wider of Wilson's, which takes all rollouts for independent, and the crossed bootstrap's, which
    collapses where all agree. In a simulation with 3 seeds whose true rates differ by a standard deviation of 0.05,
    0.1 or 0.15 it covered the truth in 97, 95 and 92 % of cases: few seeds that differ much need more seeds.
    """
    success = np.asarray(success)
    low, high = wilson(int(success.sum()), success.size)
    if len(success) == 1:
        return low, high
    _, *crossed = crossed_mean(success)
    return min(low, crossed[0]), max(high, crossed[1])


def crossed_mean(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of rollouts [S,I] of S training seeds from the same I initial states, and its 95 % interval.

    Neither the rollouts of one policy nor those from one initial state are independent: the percentile bootstrap
    resamples seeds and initial states, each as a whole (the pigeonhole bootstrap, Owen 2007). Give differences of two
    methods to compare them pair by pair. A single seed says nothing about training: then the interval is that of the
    initial states alone.

    Returns:
        mean, low, high.
    """
    values = np.asarray(values, float)
    rng = np.random.default_rng(seed)
    seeds, states = (rng.integers(size, size=(RESAMPLES, size)) for size in values.shape)
    means = np.array([values[np.ix_(rows, columns)].mean() for rows, columns in zip(seeds, states)])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(values.mean()), float(low), float(high)


def stratified_mean(samples: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Mean over tasks of the means over trajectories, and its 95 % percentile-bootstrap interval within tasks.

    Args:
        samples: per task [n], no NaN; tasks without any are left out.

    Returns:
        mean, low, high; NaN where there is nothing to average, or a single trajectory to resample.
    """
    kept = [np.asarray(sample, float) for sample in samples if len(sample)]
    if not kept:
        return (float("nan"),) * 3
    mean = float(np.mean([sample.mean() for sample in kept]))
    if min(len(sample) for sample in kept) < 2:
        return mean, float("nan"), float("nan")

    def statistic(*resamples: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([resample.mean(axis) for resample in resamples], axis=0)

    interval = bootstrap(
        kept, statistic, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=seed, batch=1000
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)
