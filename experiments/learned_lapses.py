"""How the critic judges a policy that learned by itself: `python -m experiments.learned_lapses`.

Nobody scripted what goes wrong in its rollouts, so only their outcome is known: does the final value tell failures from
successes, and does the value rise in those that succeed? For every task behaviour cloning from a few episodes with
lapses (`wvm_rl.train`) gives a policy that often fails. Finished runs are kept. Writes
`experiments/results/learned_lapses-<critic>.md` and, beside it, the numbers.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.render import RenderConfig, render
from envs.tasks import CONTROL_FREQUENCY, TASKS
from experiments.cells import named, publish, result_name, run_module, titles
from wvm_rl import cli
from wvm_rl.bench_sources import rows_of
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.rates import frame_rate
from wvm_rl.errors import InputError
from wvm_rl.runs import finished_at
from wvm_rl.scoreboard import cell, markdown_table
from wvm_rl.scores import pooled
from wvm_rl.values.clock import Blind
from wvm_rl.values.wvm import DEFAULT, Wvm, WvmConfig

RUNS, RESULTS = Path("runs/learned_lapses"), Path(__file__).parent / "results"
SHOWN = ("failure_auroc", "expert_voc", "expert_pearson")
HORIZON = 20  # control steps of an advantage; lapses are not marked, so none is scored


@dataclass
class LearnedLapsesConfig:
    """Which tasks, and how much."""

    critic: str = DEFAULT  # a critic shipped with this package, or the folder of one
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    episodes: int = 15  # of `suboptimal` data that a policy learns from
    updates: int = 3000  # of its training
    rollouts: int = 40  # a task

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(TASKS)}")


def folder_of(config: LearnedLapsesConfig, task: str) -> Path:
    """The run of a task's policy."""
    return RUNS / f"{task}-{config.episodes}-{config.updates}-{config.rollouts}"


def rollouts(config: LearnedLapsesConfig, task: str, source: Wvm) -> Dataset:
    """Rollouts of a policy, with the critic's frames, made once."""
    folder = folder_of(config, task)
    critic = source.critic
    path = folder / f"seen-{critic.fingerprint[:8]}.hdf5"
    if not path.exists():
        data = ["data=suboptimal", "data.fps=0", f"data.episodes={config.episodes}"]
        judged = [f"evaluation.rollouts={config.rollouts}", f"evaluation.keep={config.rollouts}"]
        settings = [f"env={task}", "agent=bc", "value=clock", f"trainer.updates={config.updates}", *data, *judged]
        run_module("wvm_rl.train", *settings, f"hydra.run.dir={folder}")
        partial = path.with_suffix(".rendering.hdf5")
        shutil.copy(folder / "rollouts.hdf5", partial)
        render(RenderConfig(str(partial), [critic.camera], frame_rate(critic.fps, CONTROL_FREQUENCY), critic.size))
        partial.rename(path)
    return Dataset(path)


def main(config: LearnedLapsesConfig) -> None:
    """Makes the rollouts that are missing and scores them all."""
    source = WvmConfig(critic=config.critic).source()
    clips = {(task, "bench"): rollouts(config, task, source) for task in config.tasks}
    rows = rows_of({"wvm": lambda *_: source, "clock": lambda *_: Blind("clock")}, clips, HORIZON)
    found: dict[str, dict[str, Any]] = {}
    for task in ["all", *config.tasks]:
        for model in ("wvm", "clock"):
            own = [row for row in rows if row["model"] == model and task in ("all", row["task"])]
            found[f"{task}, {model}"] = pooled(own) | {"failures": sum(not row["success"] for row in own)}
    rows_shown = [["task, model", "successes", "failures", *titles(SHOWN)]]
    for name, scores in found.items():
        counts = [str(scores[count]) for count in ("expert_trajectories", "failures")]
        rows_shown.append([name, *counts, *(cell(scores, key) for key in SHOWN)])
    table = markdown_table(rows_shown)
    text = (
        f"{table}\nBehaviour cloning from {config.episodes} episodes, {config.updates} updates; "
        f"critic {source.fingerprint[:12]}."
    )
    commits = {finished_at(folder_of(config, task)) for task in config.tasks}
    stem = f"learned_lapses-{result_name(source.critic, config.critic)}"
    name = named(stem, config, "tasks", "episodes", "updates", "rollouts")
    publish(RESULTS / name, "Rollouts of policies that learned by themselves", text, found, commits)
    print(table)


if __name__ == "__main__":
    cli.run(main, LearnedLapsesConfig, {})
