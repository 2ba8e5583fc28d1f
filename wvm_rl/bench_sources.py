"""Who is scored on the benchmark: the critic, sources that see nothing, regressors that learned from its films."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from envs.cache import data_folder
from envs.collect import CollectConfig, collect, dataset_path
from envs.looks import LOOKS
from wvm_rl import scores
from wvm_rl.data.clips import MADE
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.windows import NO_TEXT, Film
from wvm_rl.errors import InputError
from wvm_rl.footage import corpus
from wvm_rl.label import label
from wvm_rl.model.critic import Critic
from wvm_rl.values import VALUES
from wvm_rl.values.base import Source
from wvm_rl.values.clock import BLIND, Blind
from wvm_rl.values.learned import RELEASED, Shelf
from wvm_rl.values.regressors import Films, Frame, State, Video
from wvm_rl.values.wvm import Wvm

if TYPE_CHECKING:
    from wvm_rl.bench import BenchConfig

FLOOR = State.name
LEARNED = (Frame.name, Video.name, FLOOR)
READERS = tuple(  # of what was recorded, by their defaults
    name
    for name, kind in VALUES.items()
    if name not in ("wvm", "clock") and not any(each.default == MISSING for each in fields(kind))
)
MODELS = ("wvm", "draws", *READERS, *LEARNED, *BLIND)
ASKED = ("draws", "noisy", "success", "iql")  # models that run only where they are asked for


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


def regressors_of(config: "BenchConfig", critic: Critic) -> dict[str, Source]:
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
    config: "BenchConfig", wvm: Wvm, regressors: Mapping[str, Source]
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
