"""Scores of value sources on episodes with one lapse and on experts' (PAPER.md section 4), from trajectory to table.

Per trajectory (`trajectories`), then the mean over a task, then the mean over tasks (`pooled`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from wvm_rl.data.episodes import KINDS, Dataset, Episode
from wvm_rl.metrics import bench_truth, correlation, hesitation_rmse, in_bench
from wvm_rl.stats import stratified_mean

COLUMNS = {  # of the table: title -> key of the scores
    "Hesitation-RMSE": "hesitation_rmse",
    "Retry-VOC": "retry_voc",
    "where defined": "retry_voc_where_defined",
    "defined": "retry_voc_defined",
    "Pearson": "retry_pearson",
    "Expert-VOC": "expert_voc",
    "Pearson ": "expert_pearson",
}


def trajectories(task: str, model: str, dataset: Dataset, values: Sequence[np.ndarray], camera: str) -> list[dict]:
    """Scores of every episode that the benchmark defines a score for, a row each.

    Args:
        values: per episode [T], one a control step; they are scored at the frames of `camera` alone.

    Returns:
        Rows `task, model, episode, kind, points, score, pearson`: `kind` is hesitation (RMSE), retry or expert (VOC),
        `points` the number of frames scored. `score` and `pearson` are NaN where undefined.
    """
    rows = []
    for episode, value in zip(dataset, values):
        step = dataset.frames(episode.index, camera)[1]
        kind, inside, truth = _target(episode, step)
        if kind is None:
            continue
        predicted, pearson = value[step][inside], float("nan")
        if kind == "hesitation":
            score = hesitation_rmse(predicted, truth)
        else:
            score, pearson = correlation(predicted, truth), correlation(predicted, truth, "pearson")
        rows.append(
            {
                "task": task,
                "model": model,
                "episode": episode.index,
                "kind": kind,
                "points": int(inside.sum()),
                "score": score,
                "pearson": pearson,
            }
        )
    return rows


def _target(episode: Episode, step: np.ndarray) -> tuple[str | None, np.ndarray, np.ndarray]:
    """What an episode is scored on: kind (None: nothing), frames inside [F] bool, and the truth at those."""
    nothing = np.zeros(len(step), bool)
    if episode.quality == "expert" and episode.success and not len(episode.lapses):
        return "expert", ~nothing, step / max(len(episode) - 1, 1)
    if len(episode.lapses) != 1 or not episode.success:
        return None, nothing, nothing
    index, first, last = (int(number) for number in episode.lapses[0])
    if not in_bench(len(episode), first, last, KINDS[index]):
        return None, nothing, nothing
    inside = (step >= first) & (step <= last)
    return KINDS[index], inside, bench_truth(len(episode), first, last, KINDS[index])[step][inside]


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of one model: trajectory -> task -> mean of tasks, each with its 95 % interval `<key>_ci95`.

    `retry_voc` and `expert_voc` count undefined as 0; `*_where_defined` leaves them out; `*_defined` is the fraction.
    """
    scores: dict[str, Any] = {}
    _put(scores, "hesitation_rmse", _by_task(rows, "hesitation", "score"))
    for kind in ("retry", "expert"):
        ranks = _by_task(rows, kind, "score")
        defined = [np.isfinite(sample) for sample in ranks]
        _put(scores, f"{kind}_voc", [np.nan_to_num(sample) for sample in ranks])
        _put(scores, f"{kind}_voc_where_defined", [sample[known] for sample, known in zip(ranks, defined)])
        _put(scores, f"{kind}_pearson", [np.nan_to_num(sample) for sample in _by_task(rows, kind, "pearson")])
        scores[f"{kind}_voc_defined"] = stratified_mean(defined)[0]
    for kind in ("hesitation", "retry", "expert"):
        points = [row["points"] for row in rows if row["kind"] == kind]
        scores[f"{kind}_trajectories"] = len(points)
        scores[f"{kind}_points"] = float(np.mean(points)) if points else float("nan")  # frames a trajectory
    return scores


def _by_task(rows: Sequence[Mapping[str, Any]], kind: str, column: str) -> list[np.ndarray]:
    tasks = sorted({row["task"] for row in rows})
    samples = [[row[column] for row in rows if row["task"] == task and row["kind"] == kind] for task in tasks]
    return [np.array(sample, float) for sample in samples if sample]


def _put(scores: dict[str, Any], key: str, samples: list[np.ndarray]) -> None:
    mean, low, high = stratified_mean(samples)
    scores[key], scores[f"{key}_ci95"] = mean, [low, high]


def report(rows: Sequence[Mapping[str, Any]], rejected: int, fps: float) -> dict[str, Any]:
    """Content of `bench.json`: the first model's scores flat and by task, all models' under `models`."""
    models = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        tasks = dict.fromkeys(row["task"] for row in own)
        models[model] = pooled(own) | {"tasks": {task: pooled([r for r in own if r["task"] == task]) for task in tasks}}
    subject = next(iter(models))
    return {"model": subject, "fps": fps, "rejected": rejected, **models[subject], "models": models}


def table(content: Mapping[str, Any]) -> Table:
    """Formats a report: a row for each model, pooled and by task."""
    first = next(iter(content["models"].values()))
    counts = ", ".join(
        f"{first[f'{kind}_trajectories']} {kind} ({first[f'{kind}_points']:.1f} points each)"
        for kind in ("hesitation", "retry", "expert")
    )
    caption = (
        f"{counts} at {content['fps']:g} fps; {content['rejected']} rejected (no true value). Spearman with average "
        "ranks, undefined counted as 0 unless said; mean over trajectories, then over tasks; 95 % bootstrap intervals."
    )
    result = Table(title="Suboptimal-Value-Bench, RoboSuite", caption=caption)
    for title in ("task", "model", *COLUMNS):
        result.add_column(title, justify="left" if title in ("task", "model") else "right")
    for task in ["all", *first["tasks"]]:
        for model, scores in content["models"].items():
            chosen = scores if task == "all" else scores["tasks"][task]
            result.add_row(task, model, *(_cell(chosen, key) for key in COLUMNS.values()))
        result.add_section()
    return result


def _cell(scores: Mapping[str, Any], key: str) -> str:
    if not np.isfinite(scores[key]):
        return "undefined"
    if key.endswith("_defined") and not key.endswith("where_defined"):
        return f"{scores[key]:.0%}"
    low, high = scores[f"{key}_ci95"]
    return f"{scores[key]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) else "")
