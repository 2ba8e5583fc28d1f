"""How good values are: the truth and the scores of Suboptimal-Value-Bench, the paper's benchmark.

Rank correlations are Spearman's with average ranks (Pearson's as a second opinion). A constant prediction has none: it
scores NaN here, and whoever averages says whether NaN is left out or counts as 0.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr

from wvm_rl.advantage import tail


def bench_truth(length: int, first: int, last: int, kind: str) -> np.ndarray:
    """The benchmark's true value, piecewise linear through (0,0), (m,v_m), (n,v_n), (T-1,1) (B.1-B.3).

    Args:
        length: T. first, last: m, n with 0 < m < n < T-1, in the same unit as T.
        kind: "hesitation" (B.2) or "retry" (B.3).

    Returns:
        [T] f64.

    Raises:
        ValueError: the truth of such an episode is not defined; see `in_bench`.
    """
    if not in_bench(length, first, last, kind):
        raise ValueError(f"a {kind} in [{first}, {last}] of {length} steps has no true value (B.1-B.3)")
    span = last - first
    if kind == "hesitation":
        at_first = at_last = first / (length - 1 - span)
    else:
        at_first, at_last = first / (length - 2 * span), max(0.0, (first - span) / (length - 2 * span))
    return np.interp(np.arange(length), [0, first, last, length - 1], [0.0, at_first, at_last, 1.0])


def in_bench(length: int, first: int, last: int, kind: str) -> bool:
    """Whether B.1-B.3 define the truth: one hesitation or retry with 0 < m < n < T-1, and T > 2(n-m) for a retry."""
    inside = kind in ("hesitation", "retry") and 0 < first < last < length - 1
    return inside and (kind == "hesitation" or length > 2 * (last - first))


def hesitation_rmse(value: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square error over the frames of the hesitation (Eq. 8); NaN without frames.

    Args:
        value, truth: [F], at the frames in [m, n].
    """
    return float(np.sqrt(np.mean((np.asarray(value, float) - truth) ** 2))) if len(value) else float("nan")


def correlation(value: np.ndarray, truth: np.ndarray, method: str = "spearman") -> float:
    """Correlation of two sequences [F]; NaN if either is constant or F < 2.

    Retry-VOC takes it between prediction and truth over the frames of the retraction, Expert-VOC between prediction
    and time over an expert's episode.

    Args:
        method: "spearman" (ties share their average rank) or "pearson".
    """
    if len(value) < 2 or np.ptp(value) == 0 or np.ptp(truth) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inputs that are constant but for rounding: the result says it
        result = {"spearman": spearmanr, "pearson": pearsonr}[method](value, truth)
    return float(result.statistic)


def cycle_voc(value: np.ndarray) -> float:
    """Rank correlation on a clip played forward, then backward (Cycle-VOC); NaN if either half is constant.

    The mean of two halves: the forward one against time, the backward one against *minus* time, since a value that
    knows what it sees falls there. A clock scores 0, its values rising in both.

    Args:
        value: [2F], the second half at the frames of the first in reverse.
    """
    half = len(value) // 2
    time = np.arange(half)
    return (correlation(value[:half], time) + correlation(value[half:], -time)) / 2


def memory_voc(value: np.ndarray) -> float:
    """Rank correlation with time while one frame is repeated (Memory-VOC): 0 for a model that stays where it is.

    Values are rounded to 0.01, so that noise below that is no trend; constant ones score 0.

    Args:
        value: [F].
    """
    return float(np.nan_to_num(correlation(np.round(value, 2), np.arange(len(value)))))


def advantage_labels(length: int, lapses: np.ndarray, anchors: np.ndarray, horizon: int) -> np.ndarray:
    """Whether the `horizon` control steps after each anchor lie in a lapse: [N] f64 of 1, 0, or NaN if partly.

    Args:
        length: T. lapses: [L,3], kind, first and last control step. anchors: [N], control steps.
    """
    inside = np.zeros(length)
    for _, first, last in lapses:
        inside[first : last + 1] = 1
    counted = np.concatenate([[0.0], np.cumsum(inside)])
    after = tail(length, horizon)[anchors] + 1
    share = (counted[after] - counted[anchors]) / (after - anchors)
    return np.where(share == 1, 1.0, np.where(share == 0, 0.0, np.nan))


def calibration_bins(value: np.ndarray, truth: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Frames [bins] in bins of equal width of the predicted value, and the sum of prediction minus truth in each."""
    place = np.minimum((np.clip(value, 0, 1) * bins).astype(int), bins - 1)
    return np.bincount(place, minlength=bins), np.bincount(place, value - truth, minlength=bins)


def calibration_error(count: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Mean distance between predicted and true value in bins, weighted by their size; NaN without frames.

    Args:
        count, excess: [...,bins] of `calibration_bins`, or sums of them over trajectories.
    """
    with np.errstate(invalid="ignore"):
        return np.abs(excess).sum(-1) / count.sum(-1)


def wins(positive: Sequence[np.ndarray], negative: Sequence[np.ndarray]) -> np.ndarray:
    """How often a positive of trajectory i exceeds a negative of trajectory j, ties half: [I,J] f64.

    The area under the ROC curve is their sum over the number of pairs; any resample of trajectories is a weighted one.
    """
    high = np.concatenate([np.zeros(0), *positive])
    row = np.repeat(np.arange(len(positive)), [len(each) for each in positive])
    order = np.argsort(high)  # searching for what is sorted is several times as fast
    high, row = high[order], row[order]
    table = np.zeros((len(positive), len(negative)))
    for column, low in enumerate(negative):
        ordered = np.sort(low)
        twice = np.searchsorted(ordered, high) + np.searchsorted(ordered, high, "right")
        table[:, column] = np.bincount(row, twice, len(positive)) / 2
    return table
