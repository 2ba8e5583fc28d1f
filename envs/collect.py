"""Collects scripted episodes: `python -m envs.collect env=lift recipe=mixed episodes=200 seed=0`."""

import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from omegaconf import MISSING
from tqdm import tqdm

from envs.cache import data_folder, exclusive, key
from envs.camera import frame_interval
from envs.looks import split
from envs.recipes import RECIPES
from envs.tasks import CONTROL_FREQUENCY, EVERY
from envs.workers import Workers, cores
from wvm_rl.cli import run
from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.writing import write
from wvm_rl.errors import InputError


@dataclass
class CollectConfig:
    """A dataset of scripted episodes."""

    defaults: list[Any] = field(default_factory=lambda: [{"env": "lift"}, {"recipe": "mixed"}, "_self_"])
    env: Any = MISSING
    recipe: Any = MISSING
    episodes: int = 200
    seed: int = 0
    camera: str = "workspace"  # the critic's, see `envs.camera`
    looks: list[str] = field(default_factory=list)  # of the camera beside the plain one, see `envs.looks`
    fps: int = 4  # frames a second of episode, a divisor of 20; 0: no frames, and no OpenGL needed
    size: int = 64  # pixels a side
    root: str | None = None  # data folder; null: `wvm_rl` in the user's cache
    workers: int | None = None  # processes; null: one a core it may use

    def __post_init__(self):
        if self.episodes < 1:
            raise InputError(f"episodes={self.episodes} must be at least 1")
        if self.seed < 0:
            raise InputError(f"seed={self.seed} must be at least 0")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers={self.workers} must be at least 1")
        if not 8 <= self.size <= 1024:
            raise InputError(f"size={self.size} must lie in [8, 1024] pixels")
        if self.fps:
            frame_interval(self.fps)
        for look in self.looks:
            split(f"{self.camera}.{look}")

    @property
    def cameras(self) -> list[str]:
        """The camera as it is and in every look."""
        return [self.camera, *(f"{self.camera}.{look}" for look in self.looks)]


def collect(config: CollectConfig) -> Path:
    """Returns the dataset that `config` describes, collecting whatever is missing of it.

    Episode i is a pure function of (config, seed, i): the file's bytes depend neither on the number of workers nor
    on interruptions. Finished episodes wait in `<dataset>.parts/` until the last one is there.
    """
    path = dataset_path(config)
    parts = path.with_suffix(".parts")
    if path.exists() and not parts.exists():
        return path
    with exclusive(path):
        if not path.exists():
            parts.mkdir(parents=True, exist_ok=True)
            paths = [parts / f"{index:06d}.hdf5" for index in range(config.episodes)]
            arguments = _record_missing(config, paths)
            write(path, paths, arguments)
        shutil.rmtree(parts, ignore_errors=True)
    return path


def dataset_path(config: CollectConfig) -> Path:
    """Where a configuration's dataset lies: its main settings, readable, and a hash of all."""
    settings = asdict(config)
    for name in ("defaults", "root", "workers"):
        del settings[name]
    if not config.recipe.raised:
        settings["recipe"].pop("raised", None)  # experts of before had no choice
    given, usual = list(config.recipe.shares), list(type(config.recipe)().shares)
    if given != [*(name for name in usual if name in given), *sorted(set(given) - set(usual))]:
        settings["order"] = given  # which decides between qualities that are equally far behind their shares
    name = f"{config.env.name}-{config.recipe.name}-{config.episodes}-seed{config.seed}-{key(settings)}.hdf5"
    return data_folder(config.root) / "episodes" / name


def _record_missing(config: CollectConfig, paths: list[Path]) -> dict:
    """Records the episodes whose part is not there yet; returns robosuite's environment arguments."""
    missing = [index for index, path in enumerate(paths) if not _whole(path)]
    count = min(cores() if config.workers is None else config.workers, max(1, len(missing)))
    bar = tqdm(total=len(paths), initial=len(paths) - len(missing), desc=f"collecting {config.env.name}", unit="ep")
    with bar, Workers(_recorder, (config, paths[0].parent), count) as workers:
        arguments = None
        for _, arguments in workers.map(missing or [None]):  # noqa: B007, the last one is returned
            bar.update(bool(missing))
    assert arguments is not None
    return arguments


def _whole(part: Path) -> bool:
    """Whether a part is there and can be opened: one that was cut short is recorded again."""
    try:
        h5py.File(part, "r").close()
    except OSError:
        return False
    return True


def _recorder(config: CollectConfig, parts: Path) -> Callable[[int | None], dict]:
    from envs.recorder import recorder  # here, so that only workers import the simulator

    return recorder(config, parts)


def table(dataset: Dataset) -> str:
    """Formats a dataset's contents, one line a quality: episodes, successes, mean seconds, lapses an episode."""
    groups: dict[str, list[Episode]] = defaultdict(list)
    for episode in dataset:
        groups[episode.quality].append(episode)
        groups["all"].append(episode)
    lines = [f"{'quality':<12}{'episodes':>9}{'success':>9}{'seconds':>9}{'lapses':>8}"]
    for quality, episodes in sorted(groups.items(), key=lambda group: (group[0] == "all", group[0])):
        success = np.mean([episode.success for episode in episodes])
        seconds = np.mean([len(episode.actions) for episode in episodes]) / CONTROL_FREQUENCY
        lapses = np.mean([len(episode.lapses) for episode in episodes])
        lines.append(f"{quality:<12}{len(episodes):>9}{success:>9.2f}{seconds:>9.1f}{lapses:>8.2f}")
    return "\n".join(lines)


def command(config: CollectConfig) -> None:
    path = collect(config)
    print(table(Dataset(path)))
    print(path)


def main() -> None:
    run(command, CollectConfig, {"env": EVERY, "recipe": RECIPES})


if __name__ == "__main__":
    from envs.collect import main as importable  # workers look classes up by module name, which `__main__` hides

    importable()
