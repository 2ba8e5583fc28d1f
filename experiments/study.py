"""Does the critic help, and which extraction uses it best? `python -m experiments.study`.

    python -m experiments.study run=false     # only rows, tables and figures, of the runs that are finished

Parts, in order: what the bars of `experiments.tables` compare; more updates; more episodes, and experts' alone, on the
task where nothing helps; methods with the critic on six tasks; value sources under one method, and the best one with
shuffled values; on two tasks all methods with the oracle, noise, other data, other advantages, a classical critic,
stricter choices of samples, and policies that see pictures; at last shuffled values beside none, which the first part
holds, for more training seeds (`parts=[shuffled] seeds=24`). Every part is a sweep (`experiments.sweep`) of one folder:
cells that parts share run once, finished ones are kept, an interrupted study goes on, on another machine, too: run
folders lie in `experiments/results/study/` and are committed without weights and figures. After every program each
rollout so far is a row of `experiments/results/study.parquet`; at the end `experiments.tables` and `experiments.plot`
make tables and figures of it. Other numbers of `seeds` or `rollouts` are another study, with rows and tables of its
own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

from agents import AGENTS
from envs.tasks import TASKS
from experiments import plot, sweep, tables
from experiments.comparisons import JUDGED
from experiments.gather import BASE, NONE, SCORES, gather
from experiments.grids import Study
from experiments.sweep import SweepConfig
from wvm_rl import cli
from wvm_rl.config import GROUPS
from wvm_rl.errors import InputError

RESULTS = Path(__file__).parent / "results"
RUNS, RESULT = RESULTS / "study", RESULTS / "study.parquet"
TWO = ("lift", "can")
NOISE = (0.02, 0.05, 0.1)  # standard deviations
ADVANTAGES = (
    *(f"value.horizon_k={k}" for k in (10, 40, 80)),
    "value.scale=rank",
    *("value.draws=8", "value.draws=8 value.lower=1"),  # the mean of draws, and what it gains by their deviation
    *(f"value.horizon_k={k} agent.tau={200 / k:g}" for k in (10, 40, 80)),  # steady progress weighs as with K = 20
)
STRICT = (0.1, 0.3)  # shares of samples that count as good; of cfg it is 0.8 by default, of the percentile 0.7
SUBOPTIMAL = "data=suboptimal"
METHODS = tuple(name for name in AGENTS if name != "bc")
IMAGES = "obs=images trainer.batch=128"  # pictures cost more, an update and a sample
UPDATES = f"trainer.updates={BASE['updates']}"  # half the default (`experiments/README.md`)
LONGER = "trainer.updates=6000"
NO_FRAMES = "data.fps=0"  # where no critic looks
BC = f"{SUBOPTIMAL} agent=bc value=clock"  # which reads no value
CRITIC = "tiny"  # one for all parts; newer ones would make them incomparable
WVM = f"value=wvm value.critic={CRITIC}"
SHUFFLED = f"{WVM} value.shuffle=true"


def _cells(agents: tuple[str, ...], value: str, data: str = SUBOPTIMAL) -> list[str]:
    return [f"{data} agent={agent} {value}" for agent in agents]


# What no values and true ones give.
BOUNDS = [f"{cell} {NO_FRAMES}" for cell in (BC, *_cells(("awr",), "value=oracle"))]
PARTS: dict[str, tuple[tuple[str, ...], list[str]]] = {  # name -> tasks and cells
    "bars": (
        tuple(TASKS),
        [BC, *_cells(JUDGED, WVM), *_cells(("awr",), SHUFFLED), *_cells(("awr",), "value=oracle")],
    ),
    "updates": (("lift", "cereal"), [f"{cell} {LONGER}" for cell in BOUNDS]),
    "limits": (
        ("cereal",),
        [*(f"{cell} data.episodes=300" for cell in BOUNDS), f"data=expert agent=bc value=clock {NO_FRAMES}"],
    ),
    "methods": (tuple(TASKS), [BC, *_cells(METHODS, WVM)]),
    "sources": (
        tuple(TASKS),
        [cell for value in ("value=oracle", "value=clock", SHUFFLED) for cell in _cells(("awr",), value)],
    ),
    "control": (tuple(TASKS), _cells(("rcp",), SHUFFLED)),  # what the best method does with values that know nothing
    "oracle": (TWO, _cells(METHODS, "value=oracle")),
    "noise": (
        TWO,
        [
            cell
            for noise in NOISE
            for cell in _cells(("awr", "filtered_bc_percentile"), f"value=noisy value.noise={noise}")
        ],
    ),
    "data": (
        TWO,
        [
            cell
            for data in ("data=mixed", f"{SUBOPTIMAL} data.episodes=20", f"{SUBOPTIMAL} data.episodes=300")
            for cell in (*_cells(("bc",), "value=clock", data), *_cells(("awr",), WVM, data))
        ],
    ),
    "advantages": (TWO, [f"{SUBOPTIMAL} agent=awr {WVM} {how}" for how in ADVANTAGES]),
    "iql": (TWO, _cells(("awr",), "value=iql")),
    "strict": (
        TWO,
        [
            f"{SUBOPTIMAL} agent={how}={share} {WVM}"
            for how in ("cfg agent.optimal", "filtered_bc_percentile agent.keep")
            for share in STRICT
        ],
    ),
    "images": (TWO, [f"{IMAGES} {cell}" for cell in (BC, *_cells(("awr",), WVM))]),
    "shuffled": (tuple(TASKS), [BC, *_cells(("awr",), SHUFFLED)]),  # within `bars`; alone for more `seeds`
}


@dataclass
class StudyConfig:
    """Which parts, and how many runs and rollouts a cell."""

    parts: list[str] = field(default_factory=lambda: list(PARTS))
    envs: list[str] = field(default_factory=lambda: list(TASKS))  # of those that a part has
    seeds: int = 8  # of training, a cell
    rollouts: int = 20  # a seed
    together: int = 16  # policies of one program, at most: the less, the less is lost by an interruption
    run: bool = True  # false: only the rows of what is finished
    folder: str | None = None  # of runs and results, in place of the committed ones: of other episodes, say

    def __post_init__(self) -> None:
        for name, known in (("parts", PARTS), ("envs", TASKS)):
            if unknown := [each for each in getattr(self, name) if each not in known]:
                raise InputError(f"{name} has unknown {', '.join(unknown)}: choose from {', '.join(known)}")
        if min(self.seeds, self.rollouts) < 1:
            raise InputError(f"seeds={self.seeds} and rollouts={self.rollouts} must be at least 1")


def sweeps(config: StudyConfig) -> Iterator[SweepConfig]:
    """The sweeps of the parts."""
    common = f"{UPDATES} seeds={config.seeds} evaluation.rollouts={config.rollouts}"
    for part in config.parts:
        tasks, cells = PARTS[part]
        if envs := [env for env in tasks if env in config.envs]:
            yield SweepConfig(
                envs=envs,
                cells=cells,
                common=common,
                folder=str(Path(config.folder).expanduser() if config.folder else RUNS),
                together=config.together,
                run=config.run,
            )


def result(config: StudyConfig) -> Path:
    """Where the rows of a study of so many seeds and rollouts lie."""
    plain = StudyConfig()
    size = config.seeds, config.rollouts
    other = "" if size == (plain.seeds, plain.rollouts) else "-{}x{}".format(*size)
    result = Path(config.folder).expanduser() / RESULT.name if config.folder else RESULT
    return result.with_stem(result.stem + other)


@cache
def folders(folder: str | None, seeds: int, rollouts: int) -> tuple[Path, ...]:
    """Of all runs of a study of so many seeds and rollouts, whichever parts and tasks are run now."""
    parts = sweeps(StudyConfig(folder=folder, seeds=seeds, rollouts=rollouts))
    return tuple(sorted({cell.folder for part in parts for cells in sweep.planned(part) for cell in cells}))


def gathered(config: StudyConfig) -> pd.DataFrame | None:
    """Writes the rows of the study's finished runs and returns them; None if there is none."""
    return gather(folders(config.folder, config.seeds, config.rollouts), result(config), critic=CRITIC)


def main(config: StudyConfig) -> None:
    """Runs the parts in order; writes the rows after each program, then tables and figures.

    Raises:
        InputError: what the first part that was refused says, after all else is done.
    """
    refused = list[InputError]()
    for part in sweeps(config):
        try:
            sweep.main(part, after=lambda: gathered(config))
        except sweep.RefusedError as error:  # by its programs; what else is wrong would be so for the next part, too
            refused.append(error)
    table = gathered(config)
    path = result(config)
    print("no run is finished" if table is None else f"{len(table)} rollouts in {path}")
    if table is not None and Study(path).cell("bc", NONE):  # beside which all others stand
        for score in SCORES:
            tables.main(tables.TablesConfig(str(path), score=score))
        plot.main(plot.PlotConfig(str(path)))
    if refused:
        raise refused[0]


if __name__ == "__main__":
    cli.run(main, StudyConfig, GROUPS)
