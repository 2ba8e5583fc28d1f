"""How a critic scores a task that it never saw: `python -m experiments.unseen_task`.

For every task a critic learns the other five (`wvm_rl.pretrain`) and is scored on it (`wvm_rl.bench`), beside the
critic that learned all six. Finished cells are kept, interrupted ones go on. Writes
`experiments/results/unseen_task.md` and `unseen_task.json`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from envs.tasks import TASKS
from experiments.ablations import RESULTS, SCORES, run_module
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json

RUNS = Path("runs/unseen_task")


@dataclass
class UnseenTaskConfig:
    """Which tasks to leave out, and how long the critics train."""

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    vae_steps: int = 2000
    pool: int = 48_000
    steps: int = 2000  # updates of the model

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(TASKS)}")
        if min(self.vae_steps, self.pool, self.steps) < 1:
            raise InputError(f"vae_steps={self.vae_steps}, pool={self.pool}, steps={self.steps} must be at least 1")


def cell(config: UnseenTaskConfig, without: str | None) -> Path:
    """Trains a critic without a task, unless it is there; returns its folder."""
    folder = RUNS / f"{without or 'none'}-{config.vae_steps}-{config.pool}-{config.steps}"
    if not (folder / "config.json").exists():
        tasks = [task for task in TASKS if task != without]
        settings = [f"vae.steps={config.vae_steps}", f"pool={config.pool}", f"model.steps={config.steps}"]
        run_module("wvm_rl.pretrain", f"data.tasks=[{','.join(tasks)}]", *settings, f"out={folder}")
    return folder


def scores(critic: Path, task: str) -> dict[str, float]:
    """Scores of a critic on one task."""
    folder = critic.with_name(f"{critic.name}-bench-{task}")
    if not (folder / "bench.json").exists():
        run_module("wvm_rl.bench", "models=[wvm]", f"tasks=[{task}]", f"critic={critic}", f"hydra.run.dir={folder}")
    content = json.loads((folder / "bench.json").read_text())
    return {score: content[score] for score in SCORES}


def main(config: UnseenTaskConfig) -> None:
    """Trains and scores what is missing; writes the table after every task."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task in config.tasks:
        found[task] = {"unseen": scores(cell(config, task), task), "seen": scores(cell(config, None), task)}
        origin = provenance()
        text = f"# Tasks left out of training\n\n{table(found)}\n\n"
        with atomic(RESULTS / "unseen_task.md") as partial:
            partial.write_text(text + "\n".join(f"- {name}: {value}" for name, value in origin.items()) + "\n")
        write_json(RESULTS / "unseen_task.json", {"tasks": found, "provenance": origin})
    print(table(found))


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: two lines a task, of the critic that never saw it and of the one that did."""
    lines = [f"| task | critic | {' | '.join(name.replace('_', ' ') for name in SCORES)} |"]
    lines.append("|" + "---|" * (2 + len(SCORES)))
    for task, critics in found.items():
        for critic, values in critics.items():
            lines.append(f"| {task} | {critic} | {' | '.join(f'{values[score]:.3f}' for score in SCORES)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, UnseenTaskConfig, {})
