"""Intervals for success rates and for differences between paired rollouts.

scipy's `bootstrap` can do neither of two that are needed here: seeds crossed with initial states; and runs resampled
within tasks, methods in pairs, and pooled before the statistic.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest, bootstrap, trim_mean

CONFIDENCE = 0.95
RESAMPLES = 10_000
NO_INTERVAL = (float("nan"), float("nan"))


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate (Wilson 1927)."""
    found = binomtest(int(successes), int(count)).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def success_interval(success: np.ndarray) -> tuple[float, float]:
    """95 % interval of the success rate of rollouts [S,I] of S training seeds: Wilson's for one seed.

    For several the wider of Wilson's, which takes all rollouts for independent, and the crossed bootstrap's, which
    collapses where all agree (`python -m experiments.coverage` simulates how often it holds the truth).
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
    seeds, states = (_counts(rng.integers(size, size=(RESAMPLES, size))) for size in values.shape)
    means = (seeds @ values * states).sum(1) / values.size
    return float(values.mean()), *interval(means)


def _counts(drawn: np.ndarray) -> np.ndarray:
    """How often each of n is among the n drawn of every row, [R,n]."""
    rows, count = drawn.shape
    return np.bincount((drawn + count * np.arange(rows)[:, None]).ravel(), minlength=drawn.size).reshape(rows, count)


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
        return mean, *NO_INTERVAL

    def statistic(*resamples: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([resample.mean(axis) for resample in resamples], axis=0)

    found = bootstrap(
        kept, statistic, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=seed, batch=1000
    ).confidence_interval
    return mean, float(found.low), float(found.high)


Estimate = tuple[float, float, float]  # value, and the ends of its 95 % interval: NaN where one seed tells of no other


def iqm(grids: Sequence[np.ndarray]) -> Estimate:
    """Interquartile mean of all runs' scores (Agarwal et al. 2021, 2108.13264).

    Args:
        grids: per task the rollouts [S,I] of S training seeds from the same I initial states. Resampled are seeds
            within tasks, as rollouts of one policy are not independent: the interval is for these initial states.
            Few seeds make it too narrow; `python -m experiments.coverage` simulates by how much.
    """
    return _over_runs([np.asarray(grid, float)[..., None] for grid in grids], lambda runs: _iqm(runs[..., 0]))


def iqm_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], states: bool = False) -> Estimate:
    """Difference of two methods' interquartile means, resampled in pairs of equal task and training seed.

    Args:
        ours, theirs: per task [S,I], the same seeds from the same initial states.
        states: initial states are resampled, too: the interval is for others of the same law, and wider.
    """
    return _over_runs(_together(ours, theirs), lambda runs: _iqm(runs[..., 0]) - _iqm(runs[..., 1]), states)


def mean_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """Difference of two methods' means over tasks, resampled as `iqm_difference` does.

    Args:
        ours, theirs: per task [S,I], the same seeds from the same initial states.
    """
    return stratified_mean([np.mean(one, 1) - np.mean(two, 1) for one, two in zip(ours, theirs)])


def recovered(ours: Sequence[np.ndarray], best: Sequence[np.ndarray], base: Sequence[np.ndarray]) -> Estimate:
    """Share of the best's gain over a baseline that a method has, of interquartile means, resampled as differences are.

    Args:
        ours, best, base: per task [S,I], the same seeds from the same initial states.
    """

    def share(runs: np.ndarray) -> np.ndarray:
        own, most, least = (_iqm(runs[..., column]) for column in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (own - least) / (most - least)

    return _over_runs(_together(ours, best, base), share)


def improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """Chance that a run of one method beats a run of another, ties half, mean over tasks (2108.13264, section 4.2).

    Args:
        ours, theirs: per task [S,I]; resampled are seeds, as in `iqm`.
    """
    rng = np.random.default_rng(0)
    means, samples = [], []
    single = any(min(len(one), len(two)) < 2 for one, two in zip(ours, theirs))
    for one, two in zip(ours, theirs):
        rank = (np.sign(np.subtract.outer(np.mean(one, 1), np.mean(two, 1))) + 1) / 2
        rows, columns = (rng.integers(size, size=(RESAMPLES, size)) for size in rank.shape)
        means.append(rank.mean())
        samples.append(rank[rows[:, :, None], columns[:, None, :]].mean((1, 2)))
    return float(np.mean(means)), *(NO_INTERVAL if single else interval(np.mean(samples, axis=0)))


def _together(*methods: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Methods' rollouts per task, [S,I,K]."""
    return [np.stack([np.asarray(grid, float) for grid in grids], -1) for grids in zip(*methods)]


def _iqm(runs: np.ndarray) -> np.ndarray:
    return trim_mean(runs, 0.25, axis=-1)


def _over_runs(
    grids: Sequence[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray], states: bool = False
) -> Estimate:
    """A statistic of the runs' means [...,K], of rollouts per task [S,I,K], and its interval.

    Runs are resampled within tasks; so are initial states, if wanted.
    """
    rng = np.random.default_rng(0)
    scores = [grid.mean(1) for grid in grids]
    if min(map(len, grids)) < 2:
        return float(statistic(np.concatenate(scores))), *NO_INTERVAL
    drawn = [rng.integers(len(grid), size=(RESAMPLES, len(grid))) for grid in grids]
    samples = [score[place] for score, place in zip(scores, drawn)]
    if states:
        shares = [resampled(grid.shape[1], number) / grid.shape[1] for number, grid in enumerate(grids)]
        means = [np.einsum("sik,ri->rsk", grid, share) for grid, share in zip(grids, shares)]
        samples = [np.take_along_axis(mean, place[..., None], 1) for mean, place in zip(means, drawn)]
    return float(statistic(np.concatenate(scores))), *interval(statistic(np.concatenate(samples, 1)))


def resampled(count: int, *seed: int) -> np.ndarray:
    """How often each of `count` trajectories occurs in each bootstrap resample, [R,count] f64."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)


Pool = tuple[np.ndarray, np.ndarray, np.ndarray]  # `wvm_rl.metrics.wins` [I,J], positives [I], negatives [J]


def auroc(pools: Sequence[Pool], joint: bool, seed: int = 0) -> tuple[float, np.ndarray]:
    """Mean over tasks of the area under the ROC curve, and bootstrap samples of it [R], trajectories resampled.

    Equal seeds and sizes give equal resamples, so samples of two models may be subtracted.

    Args:
        pools: one a task; those without positives or negatives are left out.
        joint: rows and columns are the same trajectories, resampled together.

    Returns:
        mean and samples; NaN where no task has both classes.
    """
    means, samples = [], []
    for number, (table, high, low) in enumerate(pools):
        if not (high.sum() and low.sum()):
            continue
        rows = columns = resampled(len(high), seed, number)
        if not joint:
            columns = resampled(len(low), seed, number, 1)
        means.append(table.sum() / (high.sum() * low.sum()))
        with np.errstate(invalid="ignore"):
            samples.append(((rows @ table) * columns).sum(1) / ((rows @ high) * (columns @ low)))
    if not means:
        return float("nan"), np.full(RESAMPLES, np.nan)
    return float(np.mean(means)), np.mean(samples, axis=0)


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Percentile interval of bootstrap samples; NaN ones, without a class, are left out."""
    if np.isnan(samples).all():
        return NO_INTERVAL
    low, high = np.nanquantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
