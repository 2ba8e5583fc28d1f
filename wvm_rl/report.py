"""What the benchmark reports: scores of all models, flat and by task, and which bars they reach."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wvm_rl.scores import CLIPS, Row, compared, pooled

BARS = {  # what the shipped critic is to reach; the first is a ceiling beside that of the floor + 0.01
    "hesitation_rmse": 0.04,
    "retry_voc": 0.95,
    "expert_voc": 0.995,
    "cycle_voc": 0.9,
    "frozen_range": 0.05,
    "failure_auroc": 0.95,
    "lapse_auroc": 0.9,
}
CEILINGS = ("hesitation_rmse", "frozen_range")
SHIFT_BARS = {"hesitation_rmse": 0.08, "retry_voc": 0.75}
BARRED = ("moved5", "moved10", "lit", "textured")  # shifts that have these bars


def unshifted(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Model -> its rows but for those of shifts; the first is the subject."""
    names = dict.fromkeys(row["model"] for row in rows)
    return {name: [row for row in rows if row["model"] == name and row["clip"] in CLIPS] for name in names}


def report(
    rows: Sequence[Row],
    floor: str | None,
    conditions: Mapping[str, Any],
    speeds: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Content of `bench.json`: the first model's scores flat and by task, all models' under `models`.

    Args:
        floor: model whose Hesitation-RMSE no critic can be asked to beat.
        conditions: what else a reader must know: frames a second, horizon and the like.
        speeds: model -> how fast it labels (`wvm_rl.speed.labelling_speed`), which stands beside its scores.
    """
    models: dict[str, Any] = {}
    by_model = unshifted(rows)
    for name, own in by_model.items():
        tasks = dict.fromkeys(row["task"] for row in own)
        models[name] = pooled(own) | {"tasks": {task: pooled([r for r in own if r["task"] == task]) for task in tasks}}
    for name, speed in speeds.items():
        models[name] |= speed
        for task, rate in speed["windows_per_second_by"].items():
            models[name]["tasks"][task]["windows_per_second"] = rate
    subject = next(iter(models))
    for name, scores in models.items():
        if name != subject:
            scores["difference"] = compared(by_model[subject], by_model[name])
        for part, lowest in ((scores, models.get(floor or "")), *_pairs(scores, models.get(floor or ""))):
            part["hesitation_floor"] = lowest["hesitation_rmse"] if lowest else None
        scores["bars_met"] = met(scores)
    shifts: dict[str, Any] = {}
    for shift in dict.fromkeys(row["clip"] for row in rows if row["clip"] not in CLIPS):
        own = [row for row in rows if row["clip"] == shift]
        shown = [name for name in by_model if any(row["model"] == name for row in own)]
        shifts[shift] = {name: pooled([row for row in own if row["model"] == name]) for name in shown}
        if shift in BARRED:
            for scores in shifts[shift].values():
                scores["bars_met"] = _reached(scores, SHIFT_BARS)
    rejected = sum(row["kind"] == "rejected" for row in by_model[subject])
    whole = {"model": subject, **conditions, "rejected": rejected, **models[subject]}
    return whole | {"models": models, "shifts": shifts}


def _pairs(scores: dict[str, Any], floor: dict[str, Any] | None) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    return [(part, floor["tasks"][task] if floor else None) for task, part in scores["tasks"].items()]


def met(scores: Mapping[str, Any]) -> list[str]:
    """The bars that a model's pooled scores reach; without a floor not that of Hesitation-RMSE, which is unknown."""
    floor = scores["hesitation_floor"]
    highest = -np.inf if floor is None else min(BARS["hesitation_rmse"], floor + 0.01)
    return _reached(scores, {**BARS, "hesitation_rmse": highest})


def _reached(scores: Mapping[str, Any], bars: Mapping[str, float]) -> list[str]:
    return [key for key, bar in bars.items() if (scores[key] <= bar if key in CEILINGS else scores[key] >= bar)]
