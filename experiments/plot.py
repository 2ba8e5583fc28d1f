"""Figures of the study from its committed files alone: `python -m experiments.plot`.

Reads `experiments/results/study.parquet` and `study.json`; writes PDF and PNG, one or two columns of a paper wide, to
`experiments/results/study-figures/`. Scores are successes within the time budget with 95 % intervals (`wvm_rl.stats`).
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.comparisons import paired
from experiments.gather import NONE
from experiments.grids import Study
from experiments.tables import BRACKET
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.figures import COLUMN, OTHERS, PREDICTED, SAMPLES, TRUE
from wvm_rl.files import atomic
from wvm_rl.stats import crossed_mean, iqm, iqm_difference, recovered, success_interval

COLOURS = (TRUE, PREDICTED, *OTHERS, "0.6", "#F0E442")
MARKERS = "osD^v<>P"
STYLE: Any = {
    "font.size": 7,
    "pdf.fonttype": 42,  # TrueType: some venues refuse matplotlib's own, Type 3
    "axes.titlesize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
SUCCESS = "success in budget"
NOISE = "noisy "  # and its standard deviation: a value source's name
LEVEL = re.compile(rf"{NOISE}[0-9.e-]+")  # noise alone, with no other setting


@dataclass
class PlotConfig:
    """Where the study lies and where its figures go."""

    study: str = str(Path(__file__).parent / "results" / "study.parquet")
    out: str | None = None  # folder; null: `<study>-figures` beside it


@contextmanager
def drawn(folder: Path, name: str, width: float = COLUMN, height: float = 2.0, **layout: Any) -> Iterator[Any]:
    """Axes to draw on, saved as PDF and PNG."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **layout)
        yield axes
        for kind in ("pdf", "png"):
            with atomic(folder / f"{name}.{kind}") as partial:
                figure.savefig(partial, dpi=200, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {})
        plt.close(figure)


def bars(value: float, low: float, high: float) -> np.ndarray:
    """Lengths of an error bar's arms, [2,1]."""
    return np.array([[value - low], [high - value]])


def look(number: int, colours: tuple[str, ...] = COLOURS) -> Any:
    """Marker and colour of a method by its number, again from the first ones when they run out."""
    return {"marker": MARKERS[number % len(MARKERS)], "color": colours[number % len(colours)]}


def source_of(study: Study) -> str:
    """Values that methods are drawn with: the critic's, others that they are compared under, or those of most cells."""
    values = [value for agent in dict.fromkeys(study.rows["agent"]) for value in study.values(agent) if value != NONE]
    return next(iter([*study.sources, *sorted(values, key=values.count, reverse=True)]), NONE)


def methods(study: Study, folder: Path) -> None:
    """Success by task and method with the values of `source_of`, after the paper's Figure 6."""
    bc, source = study.baseline, source_of(study)
    agents = study.methods(source)
    with drawn(folder, "methods", 2.1 * COLUMN) as axis:
        for number, name in enumerate(["bc", *agents]):
            cell = bc if name == "bc" else study.cell(name, source)
            for place, task in enumerate(study.tasks):
                if task in cell:
                    rate, ends = cell[task].mean(), success_interval(cell[task])
                    x = place + 0.8 * ((number + 0.5) / (1 + len(agents)) - 0.5)
                    label = name if task == next(iter(cell)) else None
                    axis.errorbar(x, rate, bars(rate, *ends), label=label, ls="", **look(number), ms=3, lw=1)
        axis.set_xticks(range(len(study.tasks)), study.tasks)
        axis.set(ylim=(-0.03, 1.03), ylabel=SUCCESS)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=1 + len(agents), fontsize=6, columnspacing=1)


def bracket(study: Study, folder: Path) -> None:
    """Gain of awr over bc by what its values know, of sources that were run on most tasks."""
    bc = study.baseline
    cells = {value: cell for value in BRACKET if (cell := study.cell("awr", value))}
    most = max(map(len, cells.values()), default=0)
    cells = {value: cell for value, cell in cells.items() if len(cell) == most}
    tasks, (base, *grids) = paired(bc, *cells.values())
    if not (tasks and cells):
        return
    gains = {value: iqm_difference(own, base) for value, own in zip(cells, grids)}
    with drawn(folder, "bracket") as axis:
        for place, (gain, low, high) in enumerate(gains.values()):
            axis.errorbar(gain, place, xerr=bars(gain, low, high), fmt="o", color=PREDICTED, ms=4, lw=1.2)
        axis.axvline(0, color="0.6", lw=0.7)
        axis.set_yticks(range(len(gains)), list(gains))
        title = ""
        if {"wvm", "oracle"} <= gains.keys() and gains["oracle"][1] > 0:
            known = dict(zip(cells, grids))
            share, low, high = recovered(known["wvm"], known["oracle"], base)
            title = f"the critic gives {share:.0%} [{low:.0%}, {high:.0%}] of the oracle's gain"
        label = f"awr minus bc, {SUCCESS} (IQM)\n{', '.join(tasks)}"
        axis.set(ylim=(-0.5, len(gains) - 0.5), xlabel=label, title=title)


def noise(study: Study, folder: Path) -> None:
    """Success against the noise of the values, for each method that was given some, above that of bc."""
    agents = dict.fromkeys(study.rows["agent"])
    noisy = {agent: [value for value in study.values(agent) if LEVEL.fullmatch(value)] for agent in agents}
    noisy = {agent: values for agent, values in noisy.items() if values}
    if not noisy:
        return
    noised: set[str] = set()
    with drawn(folder, "noise") as axis:
        for number, (agent, values) in enumerate(noisy.items()):
            levels = {"oracle": 0.0} | {value: float(value.removeprefix(NOISE)) for value in values}
            points = []
            for value, level in sorted(levels.items(), key=lambda item: item[1]):
                if cell := study.cell(agent, value):
                    tasks = [task for task in cell if task in study.cell(agent, max(levels, key=levels.__getitem__))]
                    noised.update(tasks)
                    points.append((level, *iqm([cell[task] for task in tasks])))
            level, rate, low, high = np.array(points).T
            arms = np.stack([rate - low, high - rate])
            axis.errorbar(level, rate, arms, label=agent, **look(number, COLOURS[1:]), ms=3, lw=1)
        tasks = [task for task in study.tasks if task in noised]
        if noised <= study.baseline.keys():
            without = iqm([study.baseline[task] for task in tasks])[0]
            axis.axhline(without, color="0.6", lw=0.7, ls="--", label="bc")
        label = f"standard deviation of the values' noise\n{', '.join(tasks)}"
        axis.set(xlabel=label, ylabel=f"{SUCCESS} (IQM)")
        axis.legend(fontsize=6)


def curves(cells: list[dict[str, Any]], study: Study, folder: Path) -> None:
    """Loss of each method's training with the values of `methods`, one panel a task; below, beside that of bc.

    A method's loss is that of the samples it favours, of cfg and rcp that of all samples given their condition: a lower
    one says that these are easier to fit.
    """
    bc = {cell["env"]: cell for cell in cells if cell["agent"] == "bc" and _plain(cell, study.base)}
    own = [*bc.values(), *(cell for cell in _shown(cells, study) if cell["env"] in bc)]
    shape: Any = {"nrows": 2, "ncols": len(bc), "sharex": True, "sharey": "row", "squeeze": False}
    with drawn(folder, "curves", 2.1 * COLUMN, 2.8, **shape) as axes:
        tasks, agents = list(bc), list(dict.fromkeys(cell["agent"] for cell in own))
        for cell in own:
            (step, loss), beside = (
                [each["curve"][key] for key in ("step", "loss")] for each in (cell, bc[cell["env"]])
            )
            column, shade = tasks.index(cell["env"]), {"color": look(agents.index(cell["agent"]))["color"], "lw": 0.8}
            axes[0, column].plot(step, loss, **shade)
            axes[1, column].plot(step, loss / np.interp(step, *beside), **shade)
        for axis, task in zip(axes[0], tasks):
            axis.set(title=task, yscale="log")
        axes[0, 0].set(ylabel="weighted loss")
        axes[1, 0].set(xlabel="update", ylabel="times that of bc")
        handles = [plt.Line2D([], [], color=look(number)["color"]) for number in range(len(agents))]
        axes[0, -1].figure.legend(handles, agents, loc="outside upper center", ncols=len(agents), fontsize=6)


def weights(cells: list[dict[str, Any]], study: Study, folder: Path) -> None:
    """What each method favours: histograms of weight or condition by kind of sample, of the first task."""
    own = _shown(cells, study)
    own = [cell for cell in own if cell["env"] == own[0]["env"]]
    with drawn(folder, "weights", 2.1 * COLUMN, 1.6, ncols=max(1, len(own)), squeeze=False) as axes:
        for axis, cell in zip(axes[0], own):
            for kind, row in cell["favour"]["kinds"].items():
                counts = np.array(row["histogram"])
                axis.stairs(counts / counts.sum(), cell["favour"]["edges"], color=SAMPLES[kind], lw=1)
            axis.set(ylim=(0, 1.02))
            axis.set_title(cell["agent"], fontsize=6)  # the longest stand side by side
        axes[0, 0].set(xlabel="weight, or condition", ylabel="share of a kind")
        handles = [plt.Line2D([], [], color=shade) for shade in SAMPLES.values()]
        axes[0, -1].figure.legend(handles, list(SAMPLES), loc="outside upper center", ncols=len(SAMPLES), fontsize=6)


def gain(study: Study, cells: list[dict[str, Any]], folder: Path) -> None:
    """Gain over bc against how well the method's favour tells progress from lapses, a point a task and cell.

    Filled where the values are those that `methods` shows.
    """
    bc, source = study.baseline, source_of(study)
    with drawn(folder, "gain", height=2.2) as axis:
        agents = list(dict.fromkeys(cell["agent"].split()[0] for cell in cells if cell["agent"] != "bc"))
        for cell in cells:
            grids, known = study.cell(cell["agent"], cell["value"]), cell["favour"]["auroc"]
            task = cell["env"]
            told = cell["agent"] != "bc" and known is not None and _plain(cell, study.base)
            if not told or task not in bc.keys() & grids.keys():
                continue
            better = crossed_mean(grids[task] - bc[task])
            style = look(agents.index(cell["agent"].split()[0]), COLOURS[1:])  # whatever its settings
            style |= {} if cell["value"] == source else {"markerfacecolor": "white"}
            axis.errorbar(known, better[0], bars(*better), ls="", **style, ms=3, lw=0.6)
        axis.axhline(0, color="0.6", lw=0.7)
        axis.set(xlabel=f"AUROC of favour, progress against lapses\n(filled: values of {source})")
        axis.set(ylabel=f"{SUCCESS}, minus bc")
        handles = [plt.Line2D([], [], **look(number, COLOURS[1:]), ls="", ms=3) for number in range(len(agents))]
        axis.figure.legend(handles, agents, loc="outside upper center", ncols=4, fontsize=6)


def _shown(cells: list[dict[str, Any]], study: Study) -> list[dict[str, Any]]:
    """Cells of the methods that `methods` shows, but bc."""
    source = source_of(study)
    agents = study.methods(source)
    return [cell for cell in cells if cell["value"] == source and cell["agent"] in agents and _plain(cell, study.base)]


def _plain(cell: dict[str, Any], base: dict[str, Any]) -> bool:
    return all(cell[name] == wanted for name, wanted in base.items())


def main(config: PlotConfig) -> None:
    """Draws everything that the study has runs for."""
    path = Path(config.study).expanduser()
    study = Study(path)
    beside = path.with_suffix(".json")
    if not beside.exists():
        raise InputError(f"{beside} is missing: `python -m experiments.study run=false` writes it")
    cells = json.loads(beside.read_text())["cells"]
    cells.sort(key=lambda cell: (study.tasks.index(cell["env"]), cell["agent"] != "bc"))  # as `methods` orders them
    folder = Path(config.out).expanduser() if config.out else path.with_name(f"{path.stem}-figures")
    methods(study, folder)
    bracket(study, folder)
    noise(study, folder)
    curves(cells, study, folder)
    weights(cells, study, folder)
    gain(study, cells, folder)
    print(f"figures in {folder}")


if __name__ == "__main__":
    cli.run(main, PlotConfig, {})
