"""Comparisons of a study's cells, each a table: with bc, with the best method, with other settings, with the bars.

Scores are successes within the time budget, if not said otherwise. Rates of one task, and differences, have intervals
for other initial states, too (`wvm_rl.stats`). Over tasks it is the interquartile mean of all runs, after Agarwal et
al., whose differences are paired by task and training seed; resampled are runs: intervals for these initial states.
Bars have the wider ones beside them. Interquartile means leave out the quarters of best and worst runs, which are whole
tasks where these differ in difficulty; so the mean of all stands beside them. Where all runs agree, or one training
seed tells of no other, no pooled interval is printed.
"""

import re

import numpy as np
import pandas as pd

from envs.tasks import TASKS
from experiments.gather import BASE, NONE
from experiments.grids import Study
from wvm_rl.stats import (
    Estimate,
    crossed_mean,
    improvement,
    iqm,
    iqm_difference,
    mean_difference,
    recovered,
    success_interval,
)

JUDGED = ("awr", "filtered_bc_percentile", "cfg")  # methods that are to beat bc
EQUIVALENT = 0.05  # difference that counts as none
FEW = 5  # training seeds below which intervals over them are too narrow (`experiments.coverage`)
SHAPING = re.compile(r" (K=|rank|lower|\d+ draws)")  # how advantages are made of values, in a cell's name
BESIDE = ["difference of IQM", "tasks", "estimate", "other initial states", "of means", "chance to beat it"]
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


def paired(ours: dict[str, np.ndarray], *others: dict[str, np.ndarray]) -> tuple[list[str], list[list[np.ndarray]]]:
    """Tasks that all cells have, and each cell's scores [S,I] of them, of the same seeds and initial states."""
    tasks = [task for task in ours if all(task in other for other in others)]
    return tasks, [[cell[task] for task in tasks] for cell in (ours, *others)]


def shown(estimate: Estimate) -> str:
    value, low, high = estimate
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low < high else "")


def per_task(grid: np.ndarray) -> str:
    return shown((float(grid.mean()), *success_interval(grid)))


def compared(title: str, study: Study, cells: dict[str, dict[str, np.ndarray]], against: str) -> list[Table]:
    """A line a cell: each task, the tasks shared with another cell together, the difference from it and the chance to
    beat it; and a table of the differences of each task. Only each task's scores where that cell is not there.
    """
    base = cells.get(against, {})
    tasks = [task for task in study.tasks if any(task in cell for cell in ([base] if base else cells.values()))]
    if not base:
        lines = [
            [name, *(per_task(cell[task]) if task in cell else "" for task in tasks)] for name, cell in cells.items()
        ]
        return [(title, ["", *tasks], lines)]
    header = [
        "",
        *tasks,
        "tasks",
        "these, IQM",
        f"minus {against}",
        f"mean minus {against}",
        f"chance to beat {against}",
    ]
    lines, apart = [], []
    for name, cell in cells.items():
        common, (ours, theirs) = paired(cell, base)
        line = [name, *(per_task(cell[task]) if task in cell else "" for task in tasks), str(len(common))]
        line += [shown(iqm(ours)) if common else ""]
        if name == against or not common:
            lines.append([*line, "", "", ""])
        else:
            found = iqm_difference(ours, theirs), mean_difference(ours, theirs), improvement(ours, theirs)
            lines.append([*line, *map(shown, found)])
            known = {task: shown(crossed_mean(one - two)) for task, one, two in zip(common, ours, theirs)}
            apart.append([name, *(known.get(task, "") for task in tasks)])
    differences = (f"{title}: minus {against}, task by task", ["", *tasks], apart)
    return [(title, header, lines), *([differences] if apart else [])]


def leading(methods: dict[str, dict[str, np.ndarray]], values: str) -> list[Table]:
    """The method that is best over all tasks, beside each other one; none if fewer than two have all tasks.

    It is the best of these very rollouts, so what it is ahead of the second is somewhat flattered.
    """
    whole = {name: cell for name, cell in methods.items() if cell.keys() == methods.get("bc", {}).keys()}
    if len(whole) < 3:  # bc and one other: `compared` has them
        return []
    best = max(whole, key=lambda name: iqm(list(whole[name].values()))[0])
    lines = [
        [f"{best} minus {name}", *line]
        for name, cell in methods.items()
        if name != best and (line := beside(whole[best], cell))
    ]
    return [(f"The best method, {values}", BESIDE, lines)]


def variants(study: Study, agent: str, source: str) -> list[Table]:
    """A method with other settings, its own or of how advantages are made of these values, beside the plain one."""
    plain, lines = study.cell(agent, source), []
    for name in dict.fromkeys(study.rows["agent"]):
        for value in study.values(name) if name.split()[0] == agent else ():
            same = value == source or SHAPING.match(value.removeprefix(source))
            if same and (name, value) != (agent, source) and (line := beside(study.cell(name, value), plain)):
                lines.append([f"{name}, {value}", *line])
    return [(f"{agent} with other settings, minus the plain one, {values_of(source)}", BESIDE, lines)] if lines else []


def beside(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[str]:
    """How far two cells are apart on the tasks that both have, as the columns of `BESIDE`; empty if there is none."""
    tasks, (one, two) = paired(ours, theirs)
    if not tasks:
        return []
    estimates = iqm_difference(one, two), iqm_difference(one, two, states=True), mean_difference(one, two)
    return [str(len(tasks)), *map(shown, (*estimates, improvement(one, two)))]


def values_of(value: str) -> str:
    return f"values of {'the critic' if value == 'wvm' else value}"


def pace(study: Study, methods: dict[str, dict[str, np.ndarray]], value: str) -> Table:
    """Success at all, however late, and the median seconds that it took."""
    rows = study.rows[(study.rows[list(BASE)] == pd.Series(study.base)).all(axis=1)]
    tasks = [task for task in study.tasks if any(task in cell for cell in methods.values())]
    lines = []
    for name, cell in methods.items():
        own = rows[(rows["agent"] == name) & rows["value"].isin([value, NONE])]
        found = {task: own[own["env"] == task] for task in tasks if task in cell}
        seconds = {task: each.loc[each["success"], "seconds"].median() for task, each in found.items()}
        text = {task: f"{each['success'].mean():.2f}" for task, each in found.items()}
        text |= {task: f"{text[task]}, {late:.1f} s" for task, late in seconds.items() if np.isfinite(late)}
        lines.append([name, *(text.get(task, "") for task in tasks)])
    return f"Success at all, and its median seconds, {values_of(value)}", ["", *tasks], lines


def bars(study: Study) -> Table:
    """What the study is to show: difference over all tasks, its bar, and whether the interval clears it."""
    bc, oracle = study.cell("bc", NONE), study.cell("awr", "oracle")
    wanted = [
        *((agent, "wvm", bc, "bc", 0.0, np.inf) for agent in JUDGED),
        ("awr", "shuffled", bc, "bc", -EQUIVALENT, EQUIVALENT),
        ("awr", "wvm", oracle, "awr, oracle", -EQUIVALENT, np.inf),
    ]
    lines = []
    for agent, value, base, name, low, high in wanted:
        tasks, (ours, theirs) = paired(study.cell(agent, value), base)
        if not tasks:
            continue
        found = iqm_difference(ours, theirs)
        bar = f"within ±{EQUIVALENT}" if np.isfinite(high) else f"above {low:g}"
        clears = "met" if low < found[1] and found[2] < high else "missed"
        clears += "" if set(TASKS) <= set(tasks) else " so far"  # the bars are about all of them
        if (seeds := min(map(len, ours))) < FEW:
            clears = f"open: {seeds} training seeds are too few to tell, {FEW} are needed"
        elif found[1] == found[2]:
            clears = "open: the runs do not differ"
        wider = shown(iqm_difference(ours, theirs, states=True))
        mean = shown(mean_difference(ours, theirs))
        lines.append([f"{agent}, {value} minus {name}", str(len(tasks)), shown(found), wider, mean, bar, clears])
    tasks, (critics, best, plain) = paired(study.cell("awr", "wvm"), oracle, bc)
    if tasks and iqm_difference(best, plain)[1] > 0:  # else there is no gain to share
        share = shown(recovered(critics, best, plain))
        lines.append(["share of awr's gain with the oracle, wvm", str(len(tasks)), share, "", "", "", ""])
    return "Bars", ["difference of IQM", "tasks", "estimate", "other initial states", "of means", "bar", ""], lines
