"""How a critic scores a task that it never saw: `python -m experiments.unseen_task`.

For every task a critic learns the other five and is scored on it, beside the critic that learned all six with the same
budget (`experiments.cells`). Finished cells are kept and committed, interrupted ones go on. Writes
`experiments/results/unseen_task.md` and `unseen_task.json`; other budgets have files of their own.
"""

from dataclasses import dataclass, field

from envs.tasks import TASKS
from experiments.ablations import SEED
from experiments.cells import SCORES, Cell, Cells, differences, header, header_of_differences, named, publish
from wvm_rl import cli
from wvm_rl.errors import InputError

CELLS = Cells("unseen_task")


@dataclass
class UnseenTaskConfig:
    """Which tasks to leave out, and how long the critics train."""

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    vae_steps: int = 1200
    pool: int = 24_000
    steps: int = 1200  # updates of the model
    batch: int = 32  # windows an update

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(TASKS)}")
        if min(self.vae_steps, self.pool, self.steps, self.batch) < 1:
            raise InputError("vae_steps, pool, steps and batch must each be at least 1")


def scored(config: UnseenTaskConfig, without: str | None, task: str, run: bool = True) -> Cell | None:
    """Scores on a task of the critic that learned all, or all but one; None if absent and not to be run."""
    tasks = ",".join(task for task in TASKS if task != without)
    training = [f"data.tasks=[{tasks}]", f"vae.steps={config.vae_steps}", f"pool={config.pool}"]
    training += [f"model.steps={config.steps}", f"model.batch={config.batch}"]
    return CELLS(f"without-{without or 'none'}", training, [f"tasks=[{task}]", f"seed={SEED}"], run)


def main(config: UnseenTaskConfig) -> None:
    """Trains and scores what is missing; writes the table of all finished tasks after every one."""
    for task in config.tasks:
        for without in (task, None):
            scored(config, without, task)
        pairs = {each: (scored(config, each, each, False), scored(config, None, each, False)) for each in TASKS}
        found = {each: {"unseen": pair[0], "seen": pair[1]} for each, pair in pairs.items() if pair[0] and pair[1]}
        budget = (
            f"{config.vae_steps} updates of the VAE, {config.pool} windows, {config.steps} updates of {config.batch} "
            "windows of the model"
        )
        commits = {cell["commit"] for cells in found.values() for cell in cells.values()}
        text = f"{table(found)}\n\nBudget: {budget}."
        name = named(CELLS.name, config, "vae_steps", "pool", "steps", "batch")
        publish(CELLS.results / name, "Tasks left out of training", text, {"tasks": found}, commits)
    print(table(found))


def table(found: dict[str, dict[str, Cell]]) -> str:
    """Markdown: two lines a task, of the critic that never saw it and of the one that did; then their differences."""
    lines = header("task", "critic")
    for task, critics in found.items():
        for name, cell in critics.items():
            lines.append(f"| {task} | {name} | {' | '.join(f'{cell[score]:.3f}' for score in SCORES)} |")
    gaps = header_of_differences("unseen minus seen")
    gaps += [f"| {task} | {' | '.join(differences([(two['unseen'], two['seen'])]))} |" for task, two in found.items()]
    return "\n".join([*lines, "", *gaps])


if __name__ == "__main__":
    cli.run(main, UnseenTaskConfig, {})
