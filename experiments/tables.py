"""Tables of the study from its rollouts alone: `python -m experiments.tables`.

Reads `experiments/results/study.parquet`, writes `study.md` and `study.tex` beside it. Scores are successes within the
time budget. A cell's interval is that of `wvm_rl.stats.success_interval`; over tasks it is the interquartile mean of
all runs, differences are paired by task and training seed, and resampled are runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from envs.tasks import TASKS
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.stats import Estimate, improvement, iqm, iqm_difference, success_interval

SCORE = "success_in_budget"
CELL = ["recipe", "episodes", "obs", "policy", "agent", "value"]
BASE = {"recipe": "suboptimal", "episodes": 100, "obs": "state", "policy": "flow"}
BRACKET = ("shuffled", "clock", "wvm", "oracle")  # values from none to all there is to know
JUDGED = ("awr", "filtered_bc_percentile", "cfg")  # methods that are to beat bc
EQUIVALENT = 0.05  # difference that counts as none
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


@dataclass
class TablesConfig:
    """Where the rollouts are and where the tables go."""

    study: str = str(Path(__file__).parent / "results" / "study.parquet")
    out: str | None = None  # folder; null: that of the study


class Study:
    """Scores of the study's runs.

    Raises:
        InputError: no such file.
    """

    def __init__(self, path: Path):
        try:
            self.rows = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no rollouts to read; run `python -m experiments.study` first") from error
        self.tasks = [task for task in TASKS if task in set(self.rows["env"])]

    def cell(self, agent: str, value: str, **where: object) -> dict[str, np.ndarray]:
        """Task -> successes [S,I] of the training seeds S from the initial states I."""
        chosen = {**BASE, **where, "agent": agent, "value": value}
        own = self.rows[np.logical_and.reduce([self.rows[name] == wanted for name, wanted in chosen.items()])]
        return {
            task: rows.pivot(index="seed", columns="initial_state", values=SCORE).to_numpy(float)
            for task in self.tasks
            if len(rows := own[own["env"] == task])
        }

    def values(self, agent: str, **where: object) -> list[str]:
        """Value sources that the study has for a method."""
        chosen = {**BASE, **where, "agent": agent}
        own = self.rows[np.logical_and.reduce([self.rows[name] == wanted for name, wanted in chosen.items()])]
        return list(dict.fromkeys(own["value"]))


def runs(cell: dict[str, np.ndarray], tasks: Sequence[str]) -> list[np.ndarray]:
    """Scores [S] of the runs of each task."""
    return [cell[task].mean(1) for task in tasks]


def shown(estimate: Estimate) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*estimate)


def per_task(grid: np.ndarray) -> str:
    return shown((float(grid.mean()), *success_interval(grid)))


def compared(title: str, study: Study, cells: dict[str, dict[str, np.ndarray]], against: str) -> Table:
    """A line a cell: each task, all tasks, the difference from another cell, and the chance to beat it."""
    base = cells[against]
    tasks = [task for task in study.tasks if task in base]
    header = ["", *tasks, "all tasks, IQM", f"minus {against}", f"chance to beat {against}"]
    lines = []
    for name, cell in cells.items():
        common = [task for task in tasks if task in cell and cell[task].shape == base[task].shape]
        line = [name, *(per_task(cell[task]) if task in cell else "" for task in tasks)]
        if common != tasks:
            lines.append([*line, "", "", ""])
            continue
        ours, theirs = runs(cell, tasks), runs(base, tasks)
        line.append(shown(iqm(ours)))
        same = name == against
        line += ["", ""] if same else [shown(iqm_difference(ours, theirs)), shown(improvement(ours, theirs))]
        lines.append(line)
    return title, header, lines


def bars(study: Study) -> Table:
    """What the study is to show: difference over all tasks, its bar, and whether the interval clears it."""
    bc = study.cell("bc", "none")
    wanted = [
        *((agent, "wvm", bc, "bc", 0.0, np.inf) for agent in JUDGED),
        ("awr", "shuffled", bc, "bc", -EQUIVALENT, EQUIVALENT),
        ("awr", "wvm", study.cell("awr", "oracle"), "awr, oracle", -EQUIVALENT, np.inf),
    ]
    lines = []
    for agent, value, base, name, low, high in wanted:
        own = study.cell(agent, value)
        tasks = [task for task in own if task in base]
        if not tasks:
            continue
        found = iqm_difference(runs(own, tasks), runs(base, tasks))
        bar = f"within ±{EQUIVALENT}" if np.isfinite(high) else f"above {low:g}"
        clears = "met" if low < found[1] and found[2] < high else "missed"
        clears += "" if len(tasks) == len(TASKS) else " so far"  # the bars are about all of them
        lines.append([f"{agent}, {value} minus {name}", str(len(tasks)), shown(found), bar, clears])
    return "Bars", ["difference of IQM", "tasks", "estimate", "bar", ""], lines


def tables(study: Study) -> list[Table]:
    """All tables that the study has rollouts for."""
    bc = study.cell("bc", "none")
    if not bc:
        raise InputError("the study has no run of bc yet: all others stand beside it")
    agents = [agent for agent in dict.fromkeys(study.rows["agent"]) if agent != "bc"]
    methods = {"bc": bc} | {agent: cell for agent in agents if (cell := study.cell(agent, "wvm"))}
    found = [compared("Methods, values of the critic", study, methods, "bc")]
    sources = {"bc": bc} | {value: cell for value in BRACKET if (cell := study.cell("awr", value))}
    found.append(compared("Value sources, awr", study, sources, "bc"))
    others = {
        f"{agent}, {value}": study.cell(agent, value)
        for agent in agents
        for value in study.values(agent)
        if value not in ("wvm", "shuffled", "clock") and (agent, value) != ("awr", "oracle")
    }
    if others:
        found.append(compared("Oracle, noise, other advantages and classical critic", study, {"bc": bc} | others, "bc"))
    kinds = ["recipe", "episodes", "obs"]
    for kind in dict.fromkeys(zip(*(study.rows[name] for name in kinds))):
        where = dict(zip(kinds, kind))
        if where.items() <= BASE.items() or not (base := study.cell("bc", "none", **where)):
            continue
        cells = {"bc": base, "awr": study.cell("awr", "wvm", **where)}
        found.append(compared("{recipe}, {episodes} episodes, from {obs}".format(**where), study, cells, "bc"))
    return [*found, bars(study)]


def markdown(found: list[Table]) -> str:
    """The tables in Markdown."""
    parts = []
    for title, header, lines in found:
        rows = [header, ["---"] * len(header), *lines]
        parts += [f"## {title}", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    return "\n".join(parts)


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
    study = Study(Path(config.study).expanduser())
    found = tables(study)
    folder = Path(config.out).expanduser() if config.out else Path(config.study).expanduser().parent
    commits = ", ".join(sorted(set(study.rows["commit"])))
    text = f"# The study\n\n{markdown(found)}\n{len(study.rows)} rollouts, of runs at {commits}.\n"
    for name, content in (("study.md", text), ("study.tex", latex(found))):
        with atomic(folder / name) as partial:
            partial.write_text(content)
    print(text)


if __name__ == "__main__":
    cli.run(main, TablesConfig, {})
