"""Many runs in few programs: `python -m experiments.sweep envs=[lift] "cells=['agent=bc value=clock','agent=awr']"`.

A cell is a run of `wvm_rl.train`, given by its overrides, in a folder of its own. Weights are data, so the policies of
all cells that share task, episodes and policy, and are all conditioned or all not, train and act in one program
(`wvm_rl.train.pipeline`), at most `together` of them; with `trainer.batching=map`, the default on CPUs, each gets the
numbers that it would have got alone, but for rounding (conditions of several sizes need `together=1`). Programs of as
many policies on the same episodes share one compilation, conditioned ones another. Finished cells
are skipped, an interrupted program of the same cells goes on, one that is refused does not hold up the others. Cells
for other machines:
`wvm_rl.train -m` with Hydra's launchers. Overrides of all cells are quoted like each one's:
`"common='data=mixed seeds=2'"`.
"""

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from envs.tasks import TASKS
from wvm_rl import cli
from wvm_rl.config import GROUPS, TrainConfig
from wvm_rl.errors import InputError
from wvm_rl.files import exclusive
from wvm_rl.fingerprint import fingerprint
from wvm_rl.runs import digest, finished_at, read_summary
from wvm_rl.summary import described
from wvm_rl.train import Job, pipeline
from wvm_rl.values.base import ValueConfig


class RefusedError(InputError):
    """Programs of a sweep that did not run."""


@dataclass
class SweepConfig:
    """Which cells, and how many policies go together."""

    envs: list[str] = field(default_factory=lambda: list(TASKS))
    cells: list[str] = field(default_factory=lambda: ["agent=bc value=clock", "agent=awr"])  # overrides of wvm_rl.train
    common: str = "data=suboptimal seeds=8 evaluation.rollouts=20"  # overrides of every cell
    folder: str = "runs/sweep"
    together: int = 64  # policies of one program, at most; a cell of more seeds is a program of its own
    run: bool = True  # false: only the plan

    def __post_init__(self) -> None:
        if not self.envs or not self.cells:
            raise InputError("envs and cells must each name at least one")
        if len(set(self.cells)) < len(self.cells):
            raise InputError("cells names one twice")
        if self.together < 1:
            raise InputError(f"together={self.together} must be at least 1")


@dataclass
class Cell:
    """One run of the sweep."""

    name: str
    config: TrainConfig
    folder: Path

    @property
    def finished(self) -> bool:
        return read_summary(self.folder) is not None

    @property
    def program(self) -> str:
        """Digest of what cells must share to train and act together."""
        settings = asdict(self.config)
        alone = ("agent", "value", "match_ess", "wandb", "defaults", "seed", "seeds")
        shared = {name: value for name, value in settings.items() if name not in alone}
        kind = {"policy": type(self.config.policy).__name__, "conditioned": self.config.agent.conditions}
        return fingerprint([shared, kind])[:8]


def planned(config: SweepConfig) -> list[list[Cell]]:
    """The cells of the sweep by program, in order.

    Raises:
        InputError: overrides that `wvm_rl.train` would refuse, or of Hydra itself; or a cell that is there twice.
    """
    ConfigStore.instance().store(name="train", node=TrainConfig)
    programs: dict[str, list[list[Cell]]] = {}
    folders: set[Path] = set()
    for env in config.envs:
        for overrides in config.cells:
            given = [f"env={env}", *config.common.split(), *overrides.split()]
            try:
                cli.check_overrides(given, GROUPS)
                composed = compose("train", given)
                cli.check_known(composed)
            except (HydraException, InputError) as error:
                raise InputError(f"cells: `{overrides}` with `{config.common}`: {error}") from error
            settings: Any = OmegaConf.to_object(composed)
            name = "-".join([env, *(part.partition("=")[2].replace("/", "_") for part in overrides.split())])
            cell = Cell(name, settings, Path(config.folder) / f"{name}-{digest(described(settings))}")
            alike = programs.setdefault(cell.program, [])
            if not alike or sum(each.config.seeds for each in [*alike[-1], cell]) > config.together:
                alike.append([])
            alike[-1].append(cell)
            if cell.folder in folders:
                raise InputError(f"envs and cells give {name} twice: leave one out")
            folders.add(cell.folder)
    return [cells for alike in programs.values() for cells in alike]


def jobs(programs: list[list[Cell]]) -> list[list[Job]]:
    """The runs of the cells.

    Raises:
        InputError: one was finished or begun with other episodes, or another critic, than it would have now.
    """
    sources: dict[str, Any] = {}
    for value in (cell.config.value for cells in programs for cell in cells):
        if _values(value) not in sources:
            sources[_values(value)] = value.source()
    return [
        [Job(cell.config, cell.folder, sources[_values(cell.config.value)]) for cell in cells] for cells in programs
    ]


def _values(value: ValueConfig) -> str:
    """What tells value sources apart: cells of other advantages share one."""
    return repr((type(value).__name__, value.shaping()))


def _short(commit: str) -> str:
    """A commit's first digits, with a plus if there was code that it lacks."""
    return commit[:9] + "+" * commit.endswith("+")


def show(programs: list[list[Cell]]) -> None:
    """Prints which cells share a program and what remains."""
    table = Table(title="programs and their cells")
    for column in ("program", "cell", "policies", "rollouts", "state"):
        table.add_column(column, justify="right" if column in ("policies", "rollouts") else "left")
    for number, cells in enumerate(programs):
        for cell in cells:
            seeds, rollouts = cell.config.seeds, cell.config.evaluation.rollouts
            state = f"finished at {_short(finished_at(cell.folder))}" if cell.finished else "to run"
            table.add_row(str(number), cell.name, str(seeds), str(seeds * rollouts), state)
        table.add_section()
    Console(soft_wrap=True).print(table)
    left = [cell for cells in programs for cell in cells if not cell.finished]
    policies = sum(cell.config.seeds for cell in left)
    rollouts = sum(cell.config.seeds * cell.config.evaluation.rollouts for cell in left)
    print(f"{len(left)} cells remain: {policies} policies, {rollouts} rollouts")


def main(config: SweepConfig, after: Callable[[], None] | None = None) -> None:
    """Runs what is not finished, program by program, and calls `after` after each.

    A cell that another process runs is waited for, and not run again if it has finished by then.

    Raises:
        RefusedError: what stopped the first program that was refused, after the others have run.
    """
    programs = planned(config)
    show(programs)
    if not config.run:  # finished runs stay as they are, whatever would come out now
        return
    runs, refused = jobs(programs), list[InputError]()
    for number, (cells, own) in enumerate(zip(programs, runs)):
        left = [(cell, job) for cell, job in zip(cells, own) if not cell.finished]
        if not left:
            continue
        with ExitStack() as locks:
            for folder in sorted(cell.folder for cell, _ in left):
                locks.enter_context(exclusive(folder / "run"))
            left = [(cell, job) for cell, job in left if not cell.finished]
            if not left:
                continue
            print(
                f"### program {number + 1} of {len(programs)}: {', '.join(cell.name for cell, _ in left)}", flush=True
            )
            place = Path(config.folder) / "programs" / fingerprint([cell.folder.name for cell, _ in left])[:8]
            try:
                pipeline([job for _, job in left], place / "checkpoints")
            except InputError as error:
                refused.append(error)
                print(f"refused, the others go on: {error}", file=sys.stderr, flush=True)
                continue
            shutil.rmtree(place)  # else cells that are deleted, to run again, would find their old policies
        if after:
            after()
    if refused:
        raise RefusedError(f"{len(refused)} of {len(programs)} programs did not run; the first: {refused[0]}")


if __name__ == "__main__":
    cli.run(main, SweepConfig, GROUPS)
