"""How good values are: the truth and the scores of Suboptimal-Value-Bench (PAPER.md section 4).

Rank correlations are Spearman's with average ranks (Pearson's as a second opinion). A constant prediction has none: it
scores NaN here, and whoever averages says whether NaN is left out or counts as 0.
"""

import warnings

import numpy as np
from scipy.stats import pearsonr, spearmanr


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
