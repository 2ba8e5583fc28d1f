"""Tables of the study from its rollouts alone: `python -m experiments.tables`.

    python -m experiments.tables runs=runs/sweep     # of your own runs: writes study.parquet and tables of it there

Reads `experiments/results/study.parquet`, writes `study.md` and `study.tex`, named after it, beside it. Scores are
successes within the time budget. A cell's interval is that of `wvm_rl.stats.success_interval`; over tasks it is the
interquartile mean of all runs, differences are paired by task and training seed, and resampled are runs: intervals for
these initial states. Bars have the wider ones for other initial states beside them; differences of one task always are
such.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.tasks import TASKS
from experiments.gather import BASE, Study, gather
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.scoreboard import markdown_table
from wvm_rl.stats import Estimate, crossed_mean, improvement, iqm, iqm_difference, recovered, success_interval

BRACKET = ("shuffled", "clock", "wvm", "oracle")  # values from none to all there is to know
JUDGED = ("awr", "filtered_bc_percentile", "cfg")  # methods that are to beat bc
EQUIVALENT = 0.05  # difference that counts as none
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


@dataclass
class TablesConfig:
    """Where the rollouts are and where the tables go."""

    study: str = str(Path(__file__).parent / "results" / "study.parquet")
    out: str | None = None  # folder; null: that of the study
    runs: str | None = None  # folder of finished runs, whose rollouts are read in place of the study's


def paired(ours: dict[str, np.ndarray], *others: dict[str, np.ndarray]) -> tuple[list[str], list[list[np.ndarray]]]:
    """Tasks that all cells have, and each cell's scores [S,I] of them, of the same seeds and initial states."""
    tasks = [task for task in ours if all(task in other for other in others)]
    return tasks, [[cell[task] for task in tasks] for cell in (ours, *others)]


def shown(estimate: Estimate) -> str:
    value, low, high = estimate
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else "")


def per_task(grid: np.ndarray) -> str:
    return shown((float(grid.mean()), *success_interval(grid)))


def compared(title: str, study: Study, cells: dict[str, dict[str, np.ndarray]], against: str) -> list[Table]:
    """A line a cell: each task, the tasks shared with another cell together, the difference from it and the chance to
    beat it; and a table of the differences of each task.
    """
    base = cells[against]
    tasks = [task for task in study.tasks if task in base]
    header = ["", *tasks, "tasks", "these, IQM", f"minus {against}", f"chance to beat {against}"]
    lines, apart = [], []
    for name, cell in cells.items():
        common, (ours, theirs) = paired(cell, base)
        line = [name, *(per_task(cell[task]) if task in cell else "" for task in tasks), str(len(common))]
        line += [shown(iqm(ours)) if common else ""]
        if name == against or not common:
            lines.append([*line, "", ""])
        else:
            lines.append([*line, shown(iqm_difference(ours, theirs)), shown(improvement(ours, theirs))])
            known = {task: shown(crossed_mean(one - two)) for task, one, two in zip(common, ours, theirs)}
            apart.append([name, *(known.get(task, "") for task in tasks)])
    differences = (f"{title}: minus {against}, task by task", ["", *tasks], apart)
    return [(title, header, lines), *([differences] if apart else [])]


def leading(methods: dict[str, dict[str, np.ndarray]]) -> list[Table]:
    """The method that is best over all tasks, beside each other one; none if fewer than two have all tasks.

    It is the best of these very rollouts, so what it is ahead of the second is somewhat flattered.
    """
    whole = {name: cell for name, cell in methods.items() if cell.keys() == methods["bc"].keys()}
    if len(whole) < 3:  # bc and one other: `compared` has them
        return []
    best = max(whole, key=lambda name: iqm(list(whole[name].values()))[0])
    lines = []
    for name, cell in methods.items():
        tasks, (ours, theirs) = paired(whole[best], cell)
        if name != best and tasks:
            differences = (iqm_difference(ours, theirs), iqm_difference(ours, theirs, states=True))
            chance = improvement(ours, theirs)
            lines.append([f"{best} minus {name}", str(len(tasks)), *map(shown, (*differences, chance))])
    header = ["difference of IQM", "tasks", "estimate", "other initial states", "chance to beat it"]
    return [("The best method, values of the critic", header, lines)]


def bars(study: Study) -> Table:
    """What the study is to show: difference over all tasks, its bar, and whether the interval clears it."""
    bc, oracle = study.cell("bc", "none"), study.cell("awr", "oracle")
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
        clears = clears if np.isfinite(found[1]) else "open: one seed has no interval"
        wider = shown(iqm_difference(ours, theirs, states=True))
        lines.append([f"{agent}, {value} minus {name}", str(len(tasks)), shown(found), wider, bar, clears])
    tasks, cells = paired(study.cell("awr", "wvm"), oracle, bc)
    if tasks:
        share = shown(recovered(*cells))
        lines.append(["share of awr's gain with the oracle, wvm", str(len(tasks)), share, "", "", ""])
    return "Bars", ["difference of IQM", "tasks", "estimate", "other initial states", "bar", ""], lines


def tables(study: Study) -> list[Table]:
    """All tables that the study has rollouts for."""
    bc = study.baseline
    agents = [agent for agent in dict.fromkeys(study.rows["agent"]) if agent != "bc"]
    methods = {"bc": bc} | {agent: cell for agent in agents if (cell := study.cell(agent, "wvm"))}
    found = [*compared("Methods, values of the critic", study, methods, "bc"), *leading(methods)]
    for agent in agents:
        sources = {"bc": bc} | {value: cell for value in BRACKET if (cell := study.cell(agent, value))}
        if len(sources) > 2:  # one alone is in the table of methods
            found += compared(f"Value sources, {agent}", study, sources, "bc")
    others = {
        f"{agent}, {value}": study.cell(agent, value)
        for agent in agents
        for value in study.values(agent)
        if value not in BRACKET
    }
    if others:
        found += compared("Noise, other advantages and classical critic", study, {"bc": bc} | others, "bc")
    kinds = list(BASE)
    for kind in dict.fromkeys(zip(*(study.rows[name] for name in kinds))):
        where = dict(zip(kinds, kind))
        if where == study.base or not (base := study.cell("bc", "none", **where)):
            continue
        cells = {
            f"{agent}, {value}": study.cell(agent, value, **where)
            for agent in agents
            for value in study.values(agent, **where)
        }
        title = "{recipe}, {episodes} episodes, from {obs}, {updates} updates".format(**where)
        title += f", {where['policy']} policy" if where["policy"] != study.base["policy"] else ""
        found += compared(title, study, {"bc": base} | cells, "bc")
    return [*found, bars(study)]


def markdown(found: list[Table]) -> str:
    """The tables in Markdown."""
    return "\n".join(f"## {title}\n\n{markdown_table([header, *lines])}" for title, header, lines in found)


def latex(found: list[Table]) -> str:
    """The tables in LaTeX, for the package booktabs."""
    parts = []
    for title, header, lines in found:
        body = [" & ".join(row).replace("_", r"\_").replace("±", r"$\pm$") + r" \\" for row in [header, *lines]]
        top = [f"% {title}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", body[0], r"\midrule"]
        parts += [*top, *body[1:], r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(parts)


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
    study = Study(path)
    found = tables(study)
    folder = Path(config.out).expanduser() if config.out else path.parent
    commits = ", ".join(sorted(set(study.rows["commit"])))
    text = f"# The study\n\n{markdown(found)}\n{len(study.rows)} rollouts, of runs at {commits}.\n"
    for ending, content in (("md", text), ("tex", latex(found))):
        with atomic(folder / f"{path.stem}.{ending}") as partial:
            partial.write_text(content)
    print(text)


if __name__ == "__main__":
    cli.run(main, TablesConfig, {})
