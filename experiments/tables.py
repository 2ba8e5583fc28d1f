"""Tables of the study from its rollouts alone: `python -m experiments.tables`.

    python -m experiments.tables runs=runs/sweep     # of your own runs: writes study.parquet and tables of it there
    python -m experiments.tables score=success       # of success at all, in tables of their own

Reads `experiments/results/study.parquet`, writes `study.md` and `study.tex`, named after it, beside it. Scores are
successes within the time budget, if not said otherwise. Cells are compared where all settings but method and values
are alike. Rates of one task, and differences, have intervals for other initial states, too (`wvm_rl.stats`). Over tasks
it is the interquartile mean of all runs, after Agarwal et al., whose differences are paired by task and training seed;
resampled are runs: intervals for these initial states. Bars have the wider ones beside them. It leaves out the
quarters of best and worst runs, which are whole tasks where these differ in difficulty; so the mean of all stands
beside it. Where all runs agree, or one training seed tells of no other, no pooled interval is printed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from envs.tasks import TASKS
from experiments.gather import BASE, NONE, SCORES, Study, gather
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.scoreboard import latex_table, markdown_table
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

BRACKET = ("shuffled", "clock", "wvm", "oracle")  # values from none to all there is to know
JUDGED = ("awr", "filtered_bc_percentile", "cfg")  # methods that are to beat bc
EQUIVALENT = 0.05  # difference that counts as none
FEW = 5  # training seeds below which intervals over them are too narrow (`experiments.coverage`)
SHAPING = re.compile(r" (K=|rank|lower|\d+ draws)")  # how advantages are made of values, in a cell's name
BESIDE = ["difference of IQM", "tasks", "estimate", "other initial states", "of means", "chance to beat it"]
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


@dataclass
class TablesConfig:
    """Where the rollouts are and where the tables go."""

    study: str = str(Path(__file__).parent / "results" / "study.parquet")
    out: str | None = None  # folder; null: that of the study
    runs: str | None = None  # folder of finished runs, whose rollouts are read in place of the study's
    score: str = SCORES[0]  # of a rollout: success_in_budget | success


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
    return [(f"{agent} with other settings, minus the plain one, {_of(source)}", BESIDE, lines)] if lines else []


def beside(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[str]:
    """How far two cells are apart on the tasks that both have, as the columns of `BESIDE`; empty if there is none."""
    tasks, (one, two) = paired(ours, theirs)
    if not tasks:
        return []
    estimates = iqm_difference(one, two), iqm_difference(one, two, states=True), mean_difference(one, two)
    return [str(len(tasks)), *map(shown, (*estimates, improvement(one, two)))]


def _of(value: str) -> str:
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
    return f"Success at all, and its median seconds, {_of(value)}", ["", *tasks], lines


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


def tables(study: Study) -> list[Table]:
    """All tables that the study has rollouts for."""
    base = {"bc": bc} if (bc := study.cell("bc", NONE)) else {}
    agents = [agent for agent in dict.fromkeys(study.rows["agent"]) if agent != "bc"]
    found: list[Table] = []
    for source in study.sources:
        methods = base | {agent: cell for agent in agents if (cell := study.cell(agent, source))}
        found += [*compared(f"Methods, {_of(source)}", study, methods, "bc"), *leading(methods, _of(source))]
        if source == study.sources[0]:
            found.append(pace(study, methods, source))
    told = {(agent, source) for agent in agents for source in study.sources}
    for agent in agents:
        known = {value: cell for value in BRACKET if (cell := study.cell(agent, value))}
        if len(known) > 1 and not known.keys() <= set(study.sources):  # else it stands in the tables of methods
            found += compared(f"Value sources, {agent}", study, base | known, "bc")
            told |= {(agent, value) for value in known}
    others = {
        f"{agent}, {value}": study.cell(agent, value)
        for agent in agents
        for value in study.values(agent)
        if (agent, value) not in told
    }
    if others:
        found += compared("Other values and advantages", study, base | others, "bc")
    for agent in agents:
        found += [table for source in study.sources for table in variants(study, agent, source)]
    kinds = list(BASE)
    for kind in dict.fromkeys(zip(*(study.rows[name] for name in kinds))):
        where = dict(zip(kinds, kind))
        if where == study.base:
            continue
        cells = {"bc": cell} if (cell := study.cell("bc", NONE, **where)) else {}
        cells |= {
            f"{agent}, {value}": study.cell(agent, value, **where)
            for agent in agents
            for value in study.values(agent, **where)
        }
        title = "{recipe}, {episodes} episodes, from {obs}, {updates} updates".format(**where)
        title += f", {where['policy']} policy" if where["policy"] != study.base["policy"] else ""
        title += f", {where['settings']}" if where["settings"] else ""
        found += compared(title, study, cells, "bc")
    if study.score == SCORES[0] and (judged := bars(study))[2]:  # the score that they were set for
        found.append(judged)
    return found


def markdown(found: list[Table]) -> str:
    """The tables in Markdown."""
    return "\n".join(f"## {title}\n\n{markdown_table([header, *lines])}" for title, header, lines in found)


def latex(found: list[Table]) -> str:
    """The tables in LaTeX, for the package booktabs."""
    return "\n".join(
        f"% {title}\n{latex_table([header, *lines], 'l' + 'r' * (len(header) - 1))}" for title, header, lines in found
    )


def caption(study: Study) -> str:
    """Of how many rollouts and seeds, of which critic, and at which commits."""
    rows = study.rows
    seeds = sorted(set(rows.groupby([*BASE, "agent", "value", "env"])["seed"].nunique()))
    text = f"Score: {study.score}. {len(rows)} rollouts, {' or '.join(map(str, seeds))} training seeds of each cell"
    critics = sorted(set(rows.loc[rows["value"].str.split().str[0] == "wvm", "critic"]))
    text += f", values of critic {', '.join(critics)}" if critics else ""
    text += f", of runs at {', '.join(sorted(set(rows['commit'])))}."
    few = f" Intervals over fewer than {FEW} training seeds are too narrow (`experiments/README.md` says how much)."
    return text + (few if seeds[0] < FEW else "")


def main(config: TablesConfig) -> None:
    """Writes the tables and prints them."""
    path = Path(config.study).expanduser()
    if config.runs is not None:
        folder = Path(config.runs).expanduser()
        path = folder / "study.parquet"
        if gather(sorted(summary.parent for summary in folder.glob("*/summary.json")), path) is None:
            raise InputError(
                f"runs={config.runs} holds no finished run of wvm_rl.train: give the folder that they lie in"
            )
    study = Study(path, config.score)
    found = tables(study)
    folder = Path(config.out).expanduser() if config.out else path.parent
    text = f"# The study\n\n{markdown(found)}\n{caption(study)}\n"
    stem = path.stem if config.score == SCORES[0] else f"{path.stem}-{config.score}"
    for ending, content in (("md", text), ("tex", latex(found))):
        with atomic(folder / f"{stem}.{ending}") as partial:
            partial.write_text(content)
    print(text)


if __name__ == "__main__":
    cli.run(main, TablesConfig, {})
