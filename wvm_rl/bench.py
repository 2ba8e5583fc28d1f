"""Suboptimal-Value-Bench, its RoboSuite part regenerated: `python -m wvm_rl.bench`.

Fresh episodes of every task (recipe `bench`): with one lapse, experts and failures; and clips made from the experts.
The critic stands beside sources that see nothing, regressors that learned from its own films, and a floor: a
regressor that sees the simulator. Scores are the paper's (`wvm_rl.scores`). Predictions made elsewhere are
scored from a parquet file (`wvm_rl.values.file`); `export=<folder>` writes the videos they are made from.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.collect import CollectConfig, dataset_path
from envs.looks import LOOKS
from envs.recipes import RECIPES
from envs.tasks import CONTROL_FREQUENCY, EVERY, TASKS
from wvm_rl import cli, figures, scoreboard
from wvm_rl.bench_clips import SHIFTS, clips, export
from wvm_rl.bench_sources import ASKED, FLOOR, LEARNED, MODELS, regressors_of, rows_of, sources_of
from wvm_rl.data.clips import FROZEN_SECONDS, MADE
from wvm_rl.data.windows import CLIP, WindowsConfig, varied
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, writable
from wvm_rl.footage import ScriptedFilms
from wvm_rl.mirror import WandbConfig
from wvm_rl.model.critic import Critic
from wvm_rl.report import report
from wvm_rl.runs import Run
from wvm_rl.speed import labelling_speed
from wvm_rl.values.clock import BLIND
from wvm_rl.values.file import Predictions
from wvm_rl.values.learned import RegressorConfig
from wvm_rl.values.regressors import Frame, Video
from wvm_rl.values.wvm import DEFAULT, WvmConfig


@dataclass
class BenchConfig:
    """Scores value sources on fresh episodes of all tasks."""

    models: list[str] = field(  # the first is the subject
        default_factory=lambda: [name for name in MODELS if name not in ASKED]
    )
    draws: int = 8  # of every chunk's distribution, whose mean is the model `draws`
    predictions: dict[str, str] = field(default_factory=dict)  # name -> parquet file of values made elsewhere
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    episodes: int = 77  # a task: 25 hesitations, 25 retries, 17 experts, 10 failures
    seed: int = 9000  # of the collection; not one that critics or policies learn from
    fps: int = 10  # frames a second kept and scored
    size: int | None = None  # pixels a side, a multiple of what the critic reads; null: as many
    shifts: list[str] = field(default_factory=list)  # see SHIFTS; `all` names every one
    horizon_k: int = 20  # control steps over which advantages are ranked
    critic: str = DEFAULT  # a critic shipped with this package, or the folder of one
    data: ScriptedFilms = field(default_factory=lambda: ScriptedFilms(seed=2))  # for regressors; DEFAULT saw more
    windows: WindowsConfig = field(default_factory=varied)  # how the films' pictures vary for them
    frame: RegressorConfig = field(default_factory=lambda: RegressorConfig(steps=4000, batch=128))
    video: RegressorConfig = field(default_factory=lambda: RegressorConfig(steps=4000, batch=16))
    floor: RegressorConfig = field(default_factory=lambda: RegressorConfig(steps=3000, batch=512))
    released: bool = True  # regressors that come with this package, if these are their settings; false: train again
    export: str | None = None  # folder for the videos and instructions instead of a run
    wandb: WandbConfig = field(default_factory=WandbConfig)
    root: str | None = None  # data folder; null: `wvm_rl` in the user's cache
    workers: int | None = None  # processes that collect; null: one a core it may use

    def __post_init__(self) -> None:
        self.root = self.root or self.data.root
        self.workers = self.data.workers if self.workers is None else self.workers
        if unknown := [model for model in self.models if model not in MODELS]:
            raise InputError(f"models has unknown {', '.join(unknown)}: choose from {', '.join(MODELS)}")
        if taken := [name for name in self.predictions if name in MODELS]:
            raise InputError(f"predictions.{taken[0]} has the name of a model: give it another")
        if absent := [name for name, path in self.predictions.items() if not Path(path).expanduser().is_file()]:
            raise InputError(f"predictions.{absent[0]}={self.predictions[absent[0]]} is no file")
        if not (self.models or self.predictions) or not self.tasks:
            raise InputError("models and tasks must each name at least one")
        if unknown := [task for task in self.tasks if task not in EVERY]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(EVERY)}")
        learned = [model for model in self.models if model in LEARNED]
        if learned and not self.export and (foreign := [task for task in self.tasks if task not in self.data.tasks]):
            raise InputError(f"models: {', '.join(learned)} learn nothing of {', '.join(foreign)}: leave them out")
        usual = varied()
        for name in ("rewind", "plateau", "turn"):
            if getattr(self.windows, name) != getattr(usual, name):
                raise InputError(
                    f"windows.{name} is of a critic's training; regressors learn by jitter and shift alone"
                )
        if self.episodes < 4:
            raise InputError(f"episodes={self.episodes} must be at least 4: one of each quality")
        if self.fps < 1:
            raise InputError(f"fps={self.fps} must be at least 1 frame a second")
        if self.draws < 1:
            raise InputError(f"draws={self.draws} must be at least 1: leave the model `draws` out to have none")
        if self.horizon_k < 2:
            raise InputError(f"horizon_k={self.horizon_k} must be at least 2 control steps")
        if "all" in self.shifts:
            self.shifts = [*LOOKS, *SHIFTS]
        if unknown := [shift for shift in self.shifts if shift not in LOOKS and shift not in SHIFTS]:
            raise InputError(
                f"shifts has unknown {', '.join(unknown)}: choose from all, {', '.join([*LOOKS, *SHIFTS])}"
            )


def plans(config: BenchConfig, critic: Critic) -> dict[str, CollectConfig]:
    """What to collect, by task.

    Raises:
        InputError: frames that the critic cannot read, or models that see another camera.
    """
    tasks: dict[str, Any] = EVERY
    recipe: Any = RECIPES["bench"]
    size = critic.size if config.size is None else config.size
    regressors = [name for name in (Frame.name, Video.name) if name in config.models]
    learned = [name for name in config.models if name in LEARNED]
    if not config.export and learned and critic.fps != round(critic.fps):
        raise InputError(
            f"models: {', '.join(learned)} learn from films of a whole number of frames a second, the critic reads "
            f"{critic.fps:g}: leave them out"
        )
    if "draws" in config.models and not critic.model.head.drawn:
        raise InputError(
            f"models: the critic's head, {critic.config.model.value.head}, gives no distribution: leave `draws` out"
        )
    if not config.export and (regressors or "wvm" in config.models or "draws" in config.models):
        if config.fps < critic.fps:
            raise InputError(f"fps={config.fps}: the critic reads {critic.fps:g} frames a second")
        if critic.fps * FROZEN_SECONDS < CLIP:
            raise InputError(
                f"critic={config.critic} reads {critic.fps:g} frames a second: {FROZEN_SECONDS:g} s of a frozen frame "
                f"are fewer than the {CLIP} of its clip"
            )
        if size < 1 or size % critic.size:
            raise InputError(f"size={size} must be a multiple of the {critic.size} pixels that the critic reads")
        if regressors and critic.camera != (theirs := CollectConfig.camera):
            raise InputError(
                f"models: {', '.join(regressors)} learn from the camera {theirs}, the critic sees {critic.camera}: "
                "leave them out"
            )
    settings: dict[str, Any] = {"episodes": config.episodes, "seed": config.seed, "fps": config.fps, "size": size}
    settings |= {"camera": critic.camera, "root": config.root, "workers": config.workers}
    return {task: CollectConfig(env=tasks[task](), recipe=recipe(), **settings) for task in config.tasks}


def main(config: BenchConfig, folder: Path) -> None:
    """Collects what is missing, labels it, prints the table and writes it with its rows to the run folder."""
    wvm = WvmConfig(critic=config.critic).source()
    critic = wvm.critic
    fresh = plans(config, critic)
    if config.export:
        target = Path(config.export).expanduser()
        writable(target)  # before anything is collected
        datasets = clips(fresh, critic.camera, config.shifts)
        export(target, datasets, critic.camera)
        print(f"{sum(map(len, datasets.values()))} videos in {target}")
        return
    regressors = regressors_of(config, critic)
    inputs = {"critic": wvm.fingerprint, "episodes": ", ".join(dataset_path(plan).name for plan in fresh.values())}
    if regressors:
        inputs["regressors"] = ", ".join(f"{name} {each.fingerprint[:16]}" for name, each in regressors.items())
    foreign = {name: Predictions(name, path) for name, path in config.predictions.items()}
    for task in config.tasks:  # before anything is collected
        for each in foreign.values():
            for clip, count in (("bench", config.episodes), *((clip, 1) for clip in (*MADE, *config.shifts))):
                for index in range(count):
                    each.rows(task, clip, index)
    if foreign:
        inputs["predictions"] = ", ".join(f"{name} {each.digest[:16]}" for name, each in foreign.items())
    run = Run.open(folder, asdict(config), config.wandb, inputs)
    with run.stage("episodes"):
        datasets = clips(fresh, critic.camera, config.shifts)
    with run.stage("values"):
        sources = sources_of(config, wvm, regressors) | {name: each.part for name, each in foreign.items()}
        rows = rows_of(sources, datasets, config.horizon_k)
    speed: dict[str, Any] = {}
    if "wvm" in config.models:
        with run.stage("speed"):
            speed = labelling_speed(critic, {task: datasets[task, "bench"] for task in config.tasks})
    with run.stage("scores"):
        conditions: dict[str, Any] = {"fps": config.fps, "horizon_k": config.horizon_k, "seed": config.seed}
        if "wvm" in config.models:
            conditions["critic_fps"] = critic.fps
        content = report(rows, FLOOR if FLOOR in sources else None, conditions, {"wvm": speed} if speed else {})
        content["caption"] = scoreboard.caption(content)
    run.write_rows("trajectories.parquet", rows)
    shown = [name for name in sources if name not in BLIND and name != FLOOR] or list(sources)
    shown = shown[: 1 + len(figures.OTHERS)]
    figures.bench_curves(folder / "figures" / "curves.png", rows, shown, CONTROL_FREQUENCY)
    figures.calibration(folder / "figures" / "calibration.png", rows, shown)
    for name, text in (("bench.md", scoreboard.markdown(content)), ("bench.tex", scoreboard.latex(content))):
        with atomic(folder / name) as partial:
            partial.write_text(text)
    run.finish(content | {"critic": wvm.fingerprint, "wall_seconds": run.seconds}, "bench.json")
    console = Console(width=None if Console().is_terminal else 220)
    console.print(*scoreboard.tables(content), content["caption"], sep="\n")
    if speed:
        share = f"{speed['vae_share']:.0%} of it the VAE"
        print(f"{speed['windows_per_second']:.0f} windows a second on {speed['cores']} cores, {share}")
    console.print(f"run folder: {folder}")


if __name__ == "__main__":
    cli.run(main, BenchConfig, {}, run_dir="runs/bench-${seed}-${digest:}")
