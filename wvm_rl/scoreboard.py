"""The benchmark's tables, from a report (`wvm_rl.scores`): for a terminal, in Markdown and in LaTeX."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from wvm_rl.report import BARS
from wvm_rl.scores import COMPARED, SCORES

COLUMNS = {  # of the table: title -> key of the scores
    "Hesitation-RMSE": "hesitation_rmse",
    "Retry-VOC": "retry_voc",
    "defined": "retry_voc_defined",
    "Expert-VOC": "expert_voc",
    "Cycle-VOC": "cycle_voc",
    "Memory-VOC": "memory_voc",
    "frozen range": "frozen_range",
    "failure AUROC": "failure_auroc",
    "lapse AUROC": "lapse_auroc",
}
DETAILS = {  # of a second table
    "Retry, where defined": "retry_voc_where_defined",
    "Retry, Pearson": "retry_pearson",
    "Expert, defined": "expert_voc_defined",
    "Expert, Pearson": "expert_pearson",
    "Cycle, defined": "cycle_voc_defined",
    "calibration": "calibration_error",
}
TEX = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "\\": r"\textbackslash{}"})
Grid = tuple[str, list[str], list[list[str]]]  # title, header, rows


def grids(content: Mapping[str, Any]) -> list[Grid]:
    """The tables of a report.

    Scores of each model, pooled, then the first model's by task and all models' in each shift; details of the same;
    and the first model against each other one, in pairs, with the bars that each reaches.
    """
    name, models = content["model"], content["models"]
    lines = [("all", model, scores) for model, scores in models.items()]
    lines += [(task, name, scores) for task, scores in models[name]["tasks"].items()]
    lines += [(shift, model, scores) for shift, found in content["shifts"].items() for model, scores in found.items()]
    result = [
        (
            title,
            ["task or shift", "model", *columns],
            [[place, model, *(cell(scores, key) for key in columns.values())] for place, model, scores in lines],
        )
        for title, columns in (("Suboptimal-Value-Bench, RoboSuite", COLUMNS), ("Details", DETAILS))
    ]
    titles = {title: key for title, key in COLUMNS.items() if key in COMPARED}
    pairs = [
        [model, *(cell(scores.get("difference", {}), key) for key in titles.values()), _bars(scores)]
        for model, scores in models.items()
    ]
    header = ["model", *(f"{name} minus it, {title}" for title in titles), f"bars met of {len(BARS)}"]
    return [*result, ("In pairs of trajectories", header, pairs)]


def _bars(scores: Mapping[str, Any]) -> str:
    missed = [key.replace("_", " ") for key in BARS if key not in scores["bars_met"]]
    unknown = " (floor not run)" if scores["hesitation_floor"] is None else ""
    return f"{len(scores['bars_met'])}" + (f", not {', '.join(missed)}{unknown}" if missed else "")


def tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables of a report for a terminal."""
    result = []
    for title, header, rows in grids(content):
        shown = Table(title=title)
        for column in header:
            shown.add_column(column, justify="left" if column in ("task or shift", "model") else "right")
        for line, after in zip(rows, [*rows[1:], None]):
            shown.add_row(*line, end_section=after is not None and line[0] == "all" != after[0])
        result.append(shown)
    return result


def caption(content: Mapping[str, Any]) -> str:
    """What the numbers of a report mean."""
    first = content["models"][content["model"]]
    kinds = [kind for kind in dict.fromkeys(kind for kind, _ in SCORES.values()) if first[f"{kind}_trajectories"]]
    counts = ", ".join(
        f"{first[f'{kind}_trajectories']} {kind} ({first[f'{kind}_points']:.1f} points each)" for kind in kinds
    )
    floor = first["hesitation_floor"]
    rate = content.get("critic_fps")
    read = f" (the critic reads {rate:g}, its values are linear between)" if rate else ""
    return (
        f"{counts}, scored at {content['fps']:g} fps{read}; {content['rejected']} rejected (no true value). "
        "Spearman with average ranks, undefined counted as 0; advantages over "
        f"{content['horizon_k']} control steps; mean over trajectories, then over tasks; 95 % bootstrap intervals over "
        "trajectories." + (f" Hesitation-RMSE of a regressor that sees the simulator: {floor:.3f}." if floor else "")
    )


def markdown(content: Mapping[str, Any]) -> str:
    """The tables and their caption in Markdown."""
    return "\n".join([*(markdown_table([header, *rows]) for _, header, rows in grids(content)), caption(content), ""])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    header, *lines = rows
    return "".join("| " + " | ".join(line) + " |\n" for line in (header, ["---"] * len(header), *lines))


def latex(content: Mapping[str, Any]) -> str:
    """The tables and their caption in LaTeX, for the package booktabs."""
    text = []
    for _, header, rows in grids(content):
        text.append(
            latex_table([header, *rows], "".join("l" if each in ("task or shift", "model") else "r" for each in header))
        )
    return "\n".join([*text, caption(content).translate(TEX), ""])


def latex_table(rows: Sequence[Sequence[str]], kinds: str) -> str:
    """A LaTeX table for the package booktabs; the first row is its header, `kinds` a letter l or r a column."""
    first, *body = (" & ".join(entry.translate(TEX) for entry in row) + r" \\" for row in rows)
    top = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", first, r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}", ""])


def cell(scores: Mapping[str, Any], key: str) -> str:
    """A score with its interval; - where it is not defined."""
    score, (low, high) = scores.get(key), scores.get(f"{key}_ci95", (None, None))
    if not _known(score):
        return "-"
    if key.endswith("_defined") and not key.endswith("_where_defined"):
        return f"{score:.0%}"
    return f"{score:.3f}" + (f" [{low:.3f}, {high:.3f}]" if _known(low) and _known(high) else "")


def _known(number: float | None) -> bool:
    """Undefined scores are NaN, and null in files."""
    return number is not None and bool(np.isfinite(number))
