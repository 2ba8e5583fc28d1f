"""How a critic scores a task that it never saw: `python -m experiments.unseen_task`.

For every task a critic learns the other five and is scored on it, beside the critic that learned all six with the same
budget (`experiments.cells`). Finished cells are kept, interrupted ones go on. Writes
`experiments/results/unseen_task.md` and `unseen_task.json`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.tasks import TASKS
from experiments.cells import SCORES, header, publish, scored, trained
from wvm_rl import cli
from wvm_rl.errors import InputError

RUNS, RESULTS = Path("runs/unseen_task"), Path(__file__).parent / "results"


@dataclass
class UnseenTaskConfig:
    """Which tasks to leave out, and how long the critics train."""

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    vae_steps: int = 1200
    pool: int = 24_000
    steps: int = 1000  # updates of the model

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(TASKS)}")
        if min(self.vae_steps, self.pool, self.steps) < 1:
            raise InputError("vae_steps, pool and steps must each be at least 1")


def critic(config: UnseenTaskConfig, without: str | None) -> Path:
    """Folder of the critic that learned all tasks, or all but one."""
    tasks = ",".join(task for task in TASKS if task != without)
    budget = [f"vae.steps={config.vae_steps}", f"pool={config.pool}", f"model.steps={config.steps}"]
    return trained(RUNS, without or "none", [f"data.tasks=[{tasks}]", *budget])


def main(config: UnseenTaskConfig) -> None:
    """Trains and scores what is missing; writes the table after every task."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in config.tasks:
        found[task] = {
            name: scored(critic(config, without), [f"tasks=[{task}]"])
            for name, without in (("unseen", task), ("seen", None))
        }
        budget = f"{config.vae_steps} updates of the VAE, {config.pool} windows, {config.steps} updates of the model"
        commits = {cell["commit"] for cells in found.values() for cell in cells.values()}
        text = f"{table(found)}\n\nBudget: {budget}."
        publish(RESULTS / "unseen_task", "Tasks left out of training", text, {"tasks": found}, commits)
    print(table(found))


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown: two lines a task, of the critic that never saw it and of the one that did."""
    lines = header("task", "critic")
    for task, critics in found.items():
        for name, cell in critics.items():
            lines.append(f"| {task} | {name} | {' | '.join(f'{cell[score]:.3f}' for score in SCORES)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, UnseenTaskConfig, {})
