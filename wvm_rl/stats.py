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


def clustered_mean(values: np.ndarray, clusters: Sequence, seed: int = 0) -> tuple[float, float, float]:
    """Mean of `values` [N] and its 95 % percentile-bootstrap interval, resampling whole clusters.

    Rollouts of one policy are not independent, so a cluster is a (task, training seed). The mean is that of the cluster
    means; with a single cluster its values are resampled instead.

    Args:
        clusters: [N] labels.

    Returns:
        mean, low, high.
    """
    labels = np.asarray([str(cluster) for cluster in clusters])
    values = np.asarray(values, float)
    means = np.array([values[labels == label].mean() for label in np.unique(labels)])
    sample = means if len(means) > 1 else values
    if np.ptp(sample) == 0:
        return float(means.mean()), float(sample[0]), float(sample[0])
    interval = bootstrap(
        (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=seed
    ).confidence_interval
    return float(means.mean()), float(interval.low), float(interval.high)


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
