"""Suboptimal-Value-Bench, its RoboSuite part regenerated: `python -m wvm_rl.bench`.

Every task has fresh episodes with exactly one lapse (recipe `bench`) and experts. The critic stands beside the clock
and a per-frame regressor that learned from the same data. Scores as in PAPER.md section 4 (`wvm_rl.scores`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.collect import CollectConfig, collect, dataset_path
from envs.recipes import RECIPES
from envs.tasks import TASKS
from wvm_rl import cli
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.label import label
from wvm_rl.runs import Run, WandbConfig
from wvm_rl.scores import report, table, trajectories
from wvm_rl.values.base import Source
from wvm_rl.values.clock import Clock
from wvm_rl.values.frame import Frame, FrameConfig
from wvm_rl.values.wvm import WvmConfig

MODELS = ("wvm", "clock", "frame")


@dataclass
class BenchConfig:
    """Scores value sources on fresh episodes of all tasks."""

    models: list[str] = field(default_factory=lambda: list(MODELS))  # of wvm, clock, frame; the first is the subject
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    episodes: int = 50  # a task, half with a hesitation, half with a retry
    experts: int = 17  # expert episodes a task
    seed: int = 9000  # of the collection; not one that critics or policies learn from
    critic: str = "tiny"  # a critic shipped with this package, or the folder of one
    training_episodes: int = 120  # expert episodes a task for the per-frame regressor: the critic's own
    training_seed: int = 0  # of their collection
    frame: FrameConfig = field(default_factory=FrameConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    root: str | None = None  # data folder; null: `wvm_rl` in the user's cache
    workers: int | None = None  # processes that collect; null: one a core

    def __post_init__(self) -> None:
        if unknown := [model for model in self.models if model not in MODELS]:
            raise InputError(f"models has unknown {', '.join(unknown)}: choose from {', '.join(MODELS)}")
        if not self.models or not self.tasks:
            raise InputError("models and tasks must each name at least one")
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(TASKS)}")
        if self.episodes < 2 or self.experts < 1:
            raise InputError(f"episodes={self.episodes} must be at least 2 and experts={self.experts} at least 1")
        if self.training_episodes < 1:
            raise InputError(f"training_episodes={self.training_episodes} must be at least 1")
        if self.seed == self.training_seed:
            raise InputError(f"seed={self.seed} is training_seed: a benchmark needs episodes that nobody learned from")


def plans(config: BenchConfig, fps: float, size: int, recipe: str, episodes: int, seed: int) -> list[CollectConfig]:
    """What to collect of a recipe, one dataset a task."""
    if fps != round(fps):
        raise InputError(f"critic={config.critic} reads {fps} frames a second; only whole numbers can be collected")
    tasks: dict[str, Any] = TASKS
    recipes: dict[str, Any] = RECIPES
    settings: dict[str, Any] = {"episodes": episodes, "seed": seed, "fps": round(fps), "size": size}
    settings |= {"root": config.root, "workers": config.workers}
    return [CollectConfig(env=tasks[task](), recipe=recipes[recipe](), **settings) for task in config.tasks]


def scored(task: str, files: Iterable[Dataset], sources: Sequence[Source], camera: str) -> tuple[list[dict], int]:
    """Rows of a task's datasets for every source, and how many episodes have no score."""
    rows, rejected = [], 0
    for dataset in files:
        for source in sources:
            found = trajectories(task, source.name, dataset, label(dataset, source), camera)
            rows += found
        rejected += len(dataset) - len(found)
    return rows, rejected


def main(config: BenchConfig, folder: Path) -> None:
    """Collects what is missing, labels it, prints the table and writes `bench.json` and `trajectories.parquet`."""
    wvm = WvmConfig(critic=config.critic).source()
    fps, size, camera = wvm.critic.fps, wvm.critic.size, wvm.critic.camera
    fresh = {
        "bench": plans(config, fps, size, "bench", config.episodes, config.seed),
        "expert": plans(config, fps, size, "expert", config.experts, config.seed),
    }
    training = plans(config, fps, size, "expert", config.training_episodes, config.training_seed)
    known = training if "frame" in config.models else []
    names = [dataset_path(plan).name for plan in [*fresh["bench"], *fresh["expert"], *known]]
    run = Run.open(folder, asdict(config), config.wandb, {"critic": wvm.fingerprint, "episodes": ", ".join(names)})
    with run.stage("episodes"):
        lapses, experts, learned = ([Dataset(collect(plan)) for plan in each] for each in (*fresh.values(), known))
    sources: dict[str, Source] = {"wvm": wvm, "clock": Clock(), "frame": Frame(config.frame, learned, camera)}
    rows: list[dict] = []
    rejected = 0
    with run.stage("values"):
        for task, *files in zip(config.tasks, lapses, experts):
            more, without = scored(task, files, [sources[model] for model in config.models], camera)
            rows, rejected = rows + more, rejected + without
    content = report(rows, rejected, fps)
    run.write_rows("trajectories.parquet", rows)
    run.finish(content | {"critic": wvm.fingerprint, "wall_seconds": run.seconds}, "bench.json")
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table(content))
    console.print(f"run folder: {folder}")


if __name__ == "__main__":
    cli.run(main, BenchConfig, {}, run_dir="runs/bench-${seed}-${digest:}")
