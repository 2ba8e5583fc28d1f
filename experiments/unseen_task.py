"""How a critic scores a task that it never saw: `python -m experiments.unseen_task machine=mine`.

For every task a critic learns the other five and is scored on it, beside the critic that learned all six with the same
budget on the same machine (`experiments.cells`). Finished cells are kept and committed, interrupted ones go on. Writes
`experiments/results/unseen_task.md` and `unseen_task.json`; other budgets have files of their own.
"""

from dataclasses import dataclass, field
from itertools import product

from envs.tasks import TASKS
from experiments.ablations import SEED
from experiments.cells import (
    PAIRED,
    SCORES,
    Cell,
    Cells,
    averaged,
    check,
    differences,
    named,
    named_machine,
    publish,
    titles,
)
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.scoreboard import markdown_table

CELLS = Cells("unseen_task")


@dataclass
class UnseenTaskConfig:
    """Which tasks to leave out, and how long the critics train."""

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    vae_steps: int = 1200
    pool: int = 24_000
    steps: int = 1200  # updates of the model
    batch: int = 32  # windows an update
    machine: str | None = None  # name of this machine, for its cells: those of others are not taken for its own
    run: bool = True  # false: only the table, from the finished pairs of all machines

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(TASKS)}")
        check(self)


Pairs = dict[str, dict[str, tuple[Cell, Cell]]]  # task -> machine -> the critic that never saw it, and the one that did


def scored(config: UnseenTaskConfig, machine: str, without: str | None, task: str, run: bool = True) -> Cell | None:
    """Scores on a task of the critic that learned all, or all but one; None if absent and not to be run."""
    tasks = ",".join(task for task in TASKS if task != without)
    training = [f"data.tasks=[{tasks}]", f"vae.steps={config.vae_steps}", f"pool={config.pool}"]
    training += [f"model.steps={config.steps}", f"model.batch={config.batch}"]
    return CELLS(machine, f"without-{without or 'none'}", training, [f"tasks=[{task}]", f"seed={SEED}"], run)


def main(config: UnseenTaskConfig) -> None:
    """Trains and scores what is missing; writes the table of all finished tasks after every one."""
    for task in config.tasks if config.run else []:
        for without in (task, None):
            scored(config, named_machine(config), without, task)
        report(config)
    print(report(config))


def report(config: UnseenTaskConfig) -> str:
    """Writes table and numbers of all that is finished, asked for or not; returns the table."""
    found = finished(config)
    if not found:
        raise InputError(f"no finished pair of this budget in {CELLS.results / CELLS.name}: run some with run=true")
    budget = (
        f"{config.vae_steps} updates of the VAE, {config.pool} windows, {config.steps} updates of {config.batch} "
        f"windows of the model; scored on the benchmark's episodes of seed {SEED}"
    )
    commits = {cell["commit"] for pairs in found.values() for pair in pairs.values() for cell in pair}
    machines = sorted({machine for pairs in found.values() for machine in pairs})
    text = f"{table(found)}\nMachines: {', '.join(machines)}; {budget}."
    content = {
        task: {machine: {"unseen": unseen, "seen": seen} for machine, (unseen, seen) in pairs.items()}
        for task, pairs in found.items()
    }
    name = named(CELLS.name, config, "vae_steps", "pool", "steps", "batch")
    publish(CELLS.results / name, "Tasks left out of training", text, {"tasks": content}, commits)
    return table(found)


def finished(config: UnseenTaskConfig) -> Pairs:
    """All finished pairs of this budget."""
    found: Pairs = {}
    for task, machine in product(TASKS, CELLS.machines):
        unseen, seen = (scored(config, machine, without, task, run=False) for without in (task, None))
        if unseen and seen:
            found.setdefault(task, {})[machine] = unseen, seen
    return found


def table(found: Pairs) -> str:
    """Markdown: two lines a task, of the critic that never saw it and of the one that did; then their differences."""
    rows = [["task", "critic", "trainings", *titles(SCORES)]]
    gaps = [["unseen minus seen", "trainings", *titles(PAIRED)]]
    for task, machines in found.items():
        pairs = list(machines.values())
        for name, cells in zip(("unseen", "seen"), zip(*pairs)):
            rows.append([task, name, str(len(pairs)), *averaged(cells)])
        gaps.append([task, str(len(pairs)), *differences(pairs)])
    return f"{markdown_table(rows)}\n{markdown_table(gaps)}"


if __name__ == "__main__":
    cli.run(main, UnseenTaskConfig, {})
