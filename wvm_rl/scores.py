"""Scores of value sources on the benchmark's clips, as in the paper, a trajectory's and a model's.

A row is what one model says of one clip. Everything else is a function of rows: per trajectory, then the mean over a
task's, then the mean over tasks; areas under ROC curves are taken within tasks. 95 % bootstrap intervals resample
trajectories within tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wvm_rl.advantage import tail
from wvm_rl.data.clips import MADE
from wvm_rl.data.episodes import KINDS, Dataset, Episode
from wvm_rl.metrics import (
    advantage_labels,
    bench_truth,
    calibration_bins,
    calibration_error,
    correlation,
    cycle_voc,
    hesitation_rmse,
    in_bench,
    memory_voc,
    wins,
)
from wvm_rl.stats import Pool, auroc, interval, resampled, stratified_mean

Row = Mapping[str, Any]
CLIPS = ("bench", *MADE)  # episodes as they were, and those made from experts'; any other clip is a shift, scored apart
ANCHORS = 5  # control steps between two chunks whose advantages are ranked
COMPARED = ("hesitation_rmse", "retry_voc", "lapse_auroc")  # with the other models, in pairs


def trajectories(
    task: str, model: str, clip: str, dataset: Dataset, values: Sequence[np.ndarray], horizon: int
) -> list[dict[str, Any]]:
    """What a model says of every episode, a row each.

    Args:
        clip: one of CLIPS, or the name of a shift: the same episodes otherwise seen, or others of their own.
        values: per episode [T], one a control step; they are scored at the stored frames alone.
        horizon: K, control steps an advantage looks ahead.

    Returns:
        Rows `task, model, clip, episode, kind, success, first, last, step [F], value [F], final, truth [F] or None,
        delta [N], lapse [N]`: kind is that of the one lapse, expert, failure, cycle or frozen, or `rejected` where the
        truth is not defined; first and last are the lapse's control steps or -1; final is the last step's value; delta
        are advantages and lapse their labels; those of an episode's last K-1 steps look less far ahead, as methods read
        them, so that even true values rank a little below 1.
    """
    rows = []
    for episode, value in zip(dataset, values):
        step = dataset.frame_steps(episode.index)
        kind, bounds, truth = _target(episode, step, clip)
        anchors = np.arange(0, len(episode), ANCHORS)
        delta = value[tail(len(episode), horizon)[anchors]] - value[anchors]
        rows.append(
            {
                "task": task,
                "model": model,
                "clip": clip,
                "episode": episode.index,
                "kind": kind,
                "success": episode.success,
                "first": bounds[0],
                "last": bounds[1],
                "step": step,
                "value": value[step].astype(np.float32),
                "final": float(value[-1]),
                "truth": truth,
                "delta": delta.astype(np.float32),
                "lapse": advantage_labels(len(episode), episode.lapses, anchors, horizon).astype(np.float32),
            }
        )
    return rows


def _target(episode: Episode, step: np.ndarray, clip: str) -> tuple[str, tuple[int, int], np.ndarray | None]:
    """Kind of a clip, bounds of its lapse, and the true value at its frames [F] f32."""
    if clip in MADE:
        return clip, (-1, -1), None
    if not episode.success:
        return "failure", (-1, -1), None
    if not len(episode.lapses):
        return "expert", (-1, -1), (step / max(len(episode) - 1, 1)).astype(np.float32)
    index, first, last = (int(number) for number in episode.lapses[0])
    if len(episode.lapses) != 1 or not in_bench(len(episode), first, last, KINDS[index]):
        return "rejected", (first, last), None
    truth = bench_truth(len(episode), first, last, KINDS[index])[step].astype(np.float32)
    return KINDS[index], (first, last), truth


# Scores


def _inside(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true values at the frames of the lapse."""
    step = np.asarray(row["step"])
    chosen = (step >= row["first"]) & (step <= row["last"])
    return np.asarray(row["value"])[chosen], np.asarray(row["truth"])[chosen]


def _against(part: Callable[[Row], tuple[np.ndarray, np.ndarray]], method: str) -> Callable[[Row], float]:
    return lambda row: correlation(*part(row), method)


def _whole(row: Row) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(row["value"]), np.asarray(row["step"])


# Scores of one trajectory: key -> kind it is taken of, and how; NaN where undefined.
SCORES: dict[str, tuple[str, Callable[[Row], float]]] = {
    "hesitation_rmse": ("hesitation", lambda row: hesitation_rmse(*_inside(row))),
    "retry_voc": ("retry", _against(_inside, "spearman")),
    "retry_pearson": ("retry", _against(_inside, "pearson")),
    "expert_voc": ("expert", _against(_whole, "spearman")),
    "expert_pearson": ("expert", _against(_whole, "pearson")),
    "cycle_voc": ("cycle", lambda row: cycle_voc(np.asarray(row["value"]))),
    "memory_voc": ("frozen", lambda row: memory_voc(np.asarray(row["value"]))),
    "frozen_range": ("frozen", lambda row: float(np.ptp(row["value"]))),
}
RANKED = ("retry_voc", "expert_voc", "cycle_voc")  # undefined for constant values, which count as 0
CORRELATIONS = (*RANKED, "retry_pearson", "expert_pearson")


def _counted(key: str, sample: np.ndarray) -> np.ndarray:
    """Undefined correlations count as 0; of other scores those without frames are left out."""
    return np.nan_to_num(sample) if key in CORRELATIONS else sample[np.isfinite(sample)]


def pooled(rows: Sequence[Row]) -> dict[str, Any]:
    """Scores of one model, each with its 95 % interval `<key>_ci95`; NaN where there is nothing to score.

    Correlations count undefined as 0; `*_where_defined` leave those out, `*_defined` is the fraction defined.
    """
    scores: dict[str, Any] = {}
    for key, (kind, function) in SCORES.items():
        samples = _by_task(rows, kind, function)
        if key in RANKED:
            defined = [np.isfinite(sample) for sample in samples]
            _put(scores, f"{key}_where_defined", [sample[known] for sample, known in zip(samples, defined)])
            scores[f"{key}_defined"] = stratified_mean(defined)[0]
        _put(scores, key, [_counted(key, sample) for sample in samples])
    for key, (pools, joint) in {"failure_auroc": (_final(rows), False), "lapse_auroc": (_lapses(rows), True)}.items():
        scores[key], areas = auroc(pools, joint)
        scores[f"{key}_ci95"] = list(interval(areas))
    scores["calibration_error"], scores["calibration_error_ci95"] = _calibration(rows)
    for kind in dict.fromkeys(kind for kind, _ in SCORES.values()):
        points = [_points(row) for row in rows if row["kind"] == kind]
        scores[f"{kind}_trajectories"] = len(points)
        scores[f"{kind}_points"] = float(np.mean(points)) if points else float("nan")  # frames a trajectory
    return scores


def _points(row: Row) -> int:
    return len(_inside(row)[0]) if row["kind"] in ("hesitation", "retry") else len(row["value"])


def _tasks(rows: Sequence[Row]) -> list[list[Row]]:
    return [[row for row in rows if row["task"] == task] for task in sorted({row["task"] for row in rows})]


def by_trajectory(rows: Sequence[Row], key: str) -> dict[str, list[float]]:
    """A score of SCORES for every trajectory that it is taken of, by task; undefined correlations count as 0."""
    kind, function = SCORES[key]
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(row["task"], []).append(function(row))
    return {task: _counted(key, np.array(sample, float)).tolist() for task, sample in found.items()}


def _by_task(rows: Sequence[Row], kind: str, function: Callable[[Row], float]) -> list[np.ndarray]:
    samples = [[function(row) for row in own if row["kind"] == kind] for own in _tasks(rows)]
    return [np.array(sample, float) for sample in samples if sample]


def _final(rows: Sequence[Row]) -> list[Pool]:
    """Last values: successes should exceed failures."""
    pools = []
    for own in _tasks([row for row in rows if row["clip"] not in MADE]):
        high, low = ([np.array([row["final"]]) for row in own if row["success"] == fate] for fate in (True, False))
        pools.append((wins(high, low), np.ones(len(high)), np.ones(len(low))))
    return pools


def _lapses(rows: Sequence[Row]) -> list[Pool]:
    """Advantages of chunks: those outside lapses should exceed those inside; chunks on the edge are left out."""
    pools = []
    for own in _tasks([row for row in rows if row["kind"] in ("hesitation", "retry")]):
        high, low = ([np.asarray(row["delta"])[np.asarray(row["lapse"]) == label] for row in own] for label in (0, 1))
        pools.append((wins(high, low), np.array([len(each) for each in high]), np.array([len(each) for each in low])))
    return pools


def _calibration(rows: Sequence[Row]) -> tuple[float, list[float]]:
    """Mean over tasks, and its interval."""
    means, samples = [], []
    for number, own in enumerate(_tasks([row for row in rows if row["truth"] is not None])):
        bins = [calibration_bins(np.asarray(row["value"]), np.asarray(row["truth"])) for row in own]
        count, excess = (np.stack(each).astype(float) for each in zip(*bins))
        weights = resampled(len(own), number)
        means.append(calibration_error(count.sum(0), excess.sum(0)))
        samples.append(calibration_error(weights @ count, weights @ excess))
    if not means:
        return float("nan"), [float("nan")] * 2
    return float(np.mean(means)), list(interval(np.mean(samples, axis=0)))


def _put(scores: dict[str, Any], key: str, samples: list[np.ndarray]) -> None:
    mean, low, high = stratified_mean(samples)
    scores[key], scores[f"{key}_ci95"] = mean, [low, high]


def compared(subject: Sequence[Row], other: Sequence[Row]) -> dict[str, Any]:
    """Differences subject - other of the scores in COMPARED, with 95 % intervals over paired trajectories."""
    found: dict[str, Any] = {}
    for key in ("hesitation_rmse", "retry_voc"):
        kind, function = SCORES[key]
        mine, theirs = (_by_task(rows, kind, function) for rows in (subject, other))
        clean = np.nan_to_num if key in CORRELATIONS else np.asarray
        _put(found, key, [_counted(key, clean(one) - clean(two)) for one, two in zip(mine, theirs, strict=True)])
    (own, first), (others, second) = (auroc(_lapses(rows), joint=True) for rows in (subject, other))
    found["lapse_auroc"], found["lapse_auroc_ci95"] = own - others, list(interval(first - second))
    return found
