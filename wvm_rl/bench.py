"""Suboptimal-Value-Bench, its RoboSuite part regenerated: `python -m wvm_rl.bench`.

Fresh episodes of every task (recipe `bench`): with one lapse, experts and failures; and clips made from the experts.
The critic stands beside sources that see nothing, regressors that learned from its own films, and a floor: a
regressor that sees the simulator. Scores are the paper's (`wvm_rl.scores`). Predictions made elsewhere are
scored from a parquet file (`wvm_rl.values.file`); `export=<folder>` writes the videos they are made from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.cache import data_folder
from envs.collect import CollectConfig, collect, dataset_path
from envs.looks import LOOKS
from envs.recipes import RECIPES
from envs.tasks import CONTROL_FREQUENCY, EVERY, TASKS
from wvm_rl import cli, figures, scoreboard, scores
from wvm_rl.bench_clips import SHIFTS, clips, export
from wvm_rl.data.clips import FROZEN_SECONDS, MADE
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.windows import CLIP, NO_TEXT, Film, WindowsConfig, varied
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, writable
from wvm_rl.footage import ScriptedFilms, corpus
from wvm_rl.label import label
from wvm_rl.model.critic import Critic
from wvm_rl.runs import Run, WandbConfig
from wvm_rl.speed import labelling_speed
from wvm_rl.values import VALUES
from wvm_rl.values.base import Source
from wvm_rl.values.clock import BLIND, Blind
from wvm_rl.values.file import Predictions
from wvm_rl.values.learned import RELEASED, RegressorConfig, Shelf
from wvm_rl.values.regressors import Films, Frame, State, Video
from wvm_rl.values.wvm import DEFAULT, Wvm, WvmConfig

FLOOR = State.name
LEARNED = (Frame.name, Video.name, FLOOR)
READERS = tuple(name for name in VALUES if name not in ("wvm", "clock", "file"))  # of what was recorded
MODELS = ("wvm", "draws", *READERS, *LEARNED, *BLIND)
ASKED = ("draws", "noisy", "success", "iql")  # models that run only where they are asked for


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
    data: ScriptedFilms = field(default_factory=lambda: ScriptedFilms(seed=2))  # for regressors: DEFAULT's last films
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


def rows_of(
    sources: dict[str, Callable[[str, str], Source | None]], datasets: dict[tuple[str, str], Dataset], horizon: int
) -> list[dict[str, Any]]:
    """Rows of every source that can value a clip, for every dataset."""
    rows: list[dict[str, Any]] = []
    for name, source_of in sources.items():
        for (task, clip), dataset in datasets.items():
            if source := source_of(task, clip):
                rows += scores.trajectories(task, name, clip, dataset, label(dataset, source), horizon)
    return rows


def regressors_of(config: BenchConfig, critic: Critic) -> dict[str, Source]:
    """The regressors asked for, by name; nothing is collected or trained before they are asked for values."""
    if not any(name in LEARNED for name in config.models):
        return {}
    known = replace(config.data, root=config.root, workers=config.workers).plans(critic.fps, critic.size)
    silent = {"root", "workers", *([] if config.data.raised else ["raised"])}  # as when released ones were named
    data = {name: value for name, value in asdict(config.data).items() if name not in silent}
    folder, released = data_folder(config.root) / "regressors", RELEASED if config.released else None
    shelf = Shelf(data, [dataset_path(plan).name for plan in known], folder, released)
    experts = {plan.env.name: partial(_collected, plan) for plan in known}

    def films() -> Sequence[Film]:
        datasets = [dataset() for dataset in experts.values()]
        found = corpus(datasets, known[0].cameras, critic.fps, critic.size, config.data.held_out, config.data.text)
        if found.instructions != told:
            raise InputError(
                f"data: the episodes' instructions are {found.instructions}, not {told}: collect them again"
            )
        return found.training

    told = list(dict.fromkeys(plan.env.instruction if config.data.text else NO_TEXT for plan in known))
    view = (known[0].cameras[0], critic.fps, critic.size)
    seen = Films(films, told, *view, config.windows, shelf, critic.config.reading)
    shaping = {name: data[name] for name in ("episodes", "seed", "raised") if name in data}  # what no picture changes
    simulated = replace(shelf, settings=shaping)
    floor = State(config.floor, experts, simulated)
    found: list[Source] = [Frame(config.frame, seen), Video(config.video, seen), floor]
    return {source.name: source for source in found if source.name in config.models}


def _collected(plan: CollectConfig) -> Dataset:
    return Dataset(collect(plan))


def sources_of(
    config: BenchConfig, wvm: Wvm, regressors: Mapping[str, Source]
) -> dict[str, Callable[[str, str], Source | None]]:
    """Name -> the source for a task's clip, or None where it has nothing to see."""

    def always(source: Source) -> Callable[[str, str], Source | None]:
        return lambda task, clip: source

    def blind(source: Source) -> Callable[[str, str], Source | None]:
        return lambda task, clip: None if clip in LOOKS else source  # which change pictures alone

    def reader(source: Source) -> Callable[[str, str], Source | None]:
        return lambda task, clip: None if clip in (*MADE, *LOOKS) else source  # nothing new is recorded in those

    found: dict[str, Callable[[str, str], Source | None]] = {"wvm": always(wvm)}
    found |= {name: blind(Blind(name)) for name in BLIND}
    if "draws" in config.models:
        found["draws"] = always(Wvm(wvm.critic, config.draws))
    found |= {name: reader(VALUES[name]().source()) for name in READERS if name in config.models}
    found |= {name: always(source) for name, source in regressors.items()}
    if floor := regressors.get(FLOOR):
        found[FLOOR] = lambda task, clip: floor if clip == "bench" else None  # the others have no simulator's state
    return {name: found[name] for name in config.models}


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
        conditions: dict[str, Any] = {"fps": config.fps, "horizon_k": config.horizon_k, "seed": config.seed, **speed}
        if "wvm" in config.models:
            conditions["critic_fps"] = critic.fps
        content = scores.report(rows, FLOOR if FLOOR in sources else None, conditions)
        for task, rate in speed.get("windows_per_second_by", {}).items():
            content["models"]["wvm"]["tasks"][task]["windows_per_second"] = rate
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
    console.print(*scoreboard.tables(content), scoreboard.caption(content), sep="\n")
    if speed:
        share = f"{speed['vae_share']:.0%} of it the VAE"
        print(f"{speed['windows_per_second']:.0f} windows a second on {speed['cores']} cores, {share}")
    console.print(f"run folder: {folder}")


if __name__ == "__main__":
    cli.run(main, BenchConfig, {}, run_dir="runs/bench-${seed}-${digest:}")
