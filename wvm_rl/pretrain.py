"""Trains a World Value Model on expert episodes: `python -m wvm_rl.pretrain wvm=tiny`.

Stages, each resumable and kept under the data folder by what shapes it: expert episodes -> video VAE -> pool of
encoded windows -> the model -> a critic's folder with its card.
"""

import hashlib
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from envs.tasks import EVERY, TASKS
from wvm_rl import cli
from wvm_rl.card import write_card
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.windows import NO_TEXT, Film, progress
from wvm_rl.errors import InputError
from wvm_rl.files import writable
from wvm_rl.model.codec import fit_size
from wvm_rl.model.critic import check_vacant
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.stages import Corpus, Stages, StagesConfig, checked, train
from wvm_rl.sharding import HostsConfig, MeshConfig, is_first


@dataclass
class DataConfig:
    """Expert episodes to learn from."""

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    episodes: int = 220  # a task
    held_out: int = 10  # episodes a task kept for the check printed during training
    looks: int = 1  # random cameras, lights and textures in which every episode is seen beside the plain one
    fps: int | None = None  # frames a second kept, at least those the model reads; null: as many
    text: bool = True  # false: no instruction is told, in training and in use
    raised: float = 0.0  # metres that hands start above their usual place, at most, in half of the episodes
    seed: int = 1  # of the collection, other recipes draw other episodes from it; the shipped critics saw 0, 1 and 2
    root: str | None = None  # data folder; null: `wvm_rl` in the user's cache
    workers: int | None = None  # processes that collect; null: one a core it may use

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InputError("data.tasks is empty: name at least one task")
        if unknown := [task for task in self.tasks if task not in EVERY]:
            raise InputError(f"data.tasks has unknown {', '.join(unknown)}: choose from {', '.join(EVERY)}")
        if not 0 < self.held_out < self.episodes:
            raise InputError(f"data.held_out={self.held_out} must lie between 0 and data.episodes={self.episodes}")
        if self.looks < 0:
            raise InputError(f"data.looks={self.looks} must be at least 0")


@dataclass
class PretrainConfig(StagesConfig):
    """Pretraining of a World Value Model."""

    defaults: list[Any] = field(default_factory=lambda: [{"wvm": "tiny"}, "_self_"])
    data: DataConfig = field(default_factory=DataConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)
    until: str = "wvm"  # pool: stops when the windows are encoded, which one host does | wvm: trains and exports
    half: bool = True  # exports weights of half precision: half the room
    out: str | None = None  # folder of the critic; null: `critics/<preset>-<fingerprint>` in the data folder

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.until not in ("pool", "wvm"):
            raise InputError(f"until={self.until}: choose pool or wvm")


def collections(data: DataConfig, fps: float, size: int) -> list[Any]:
    """What to collect, one `envs.collect.CollectConfig` a task.

    Raises:
        InputError: a rate that is no whole number of frames a second, or more than is to be kept.
    """
    from envs.collect import CollectConfig
    from envs.recipes import RECIPES

    if fps != round(fps):
        raise InputError(f"the critic reads {fps} frames a second; only whole numbers can be collected")
    if data.fps is not None and data.fps < fps:
        raise InputError(f"data.fps={data.fps}: the critic reads {fps:g} frames a second")
    tasks: dict[str, Any] = EVERY
    recipe: Any = RECIPES["expert"]
    return [
        CollectConfig(
            env=tasks[task](),
            recipe=recipe(raised=data.raised),
            episodes=data.episodes,
            seed=data.seed,
            fps=round(fps) if data.fps is None else data.fps,
            size=size,
            looks=[f"random{look}" for look in range(data.looks)],
            root=data.root,
            workers=data.workers,
        )
        for task in data.tasks
    ]


def corpus(datasets: list[Dataset], cameras: list[str], fps: float, size: int, data: DataConfig) -> Corpus:
    """Reads the films of successful expert episodes, one a camera; the last of every dataset are kept apart.

    Raises:
        InputError: a dataset without frames, or with other episodes than experts'.
    """
    training, kept, instructions, digest = [], [], [], hashlib.sha256()
    digest.update(str(data.held_out).encode())
    for setting in (*([] if data.text else ["no text"]), *([] if datasets[0].fps == fps else [f"{fps} fps"])):
        digest.update(setting.encode())
    for dataset in datasets:
        digest.update(dataset.fingerprint.encode())
        for episode in dataset:
            if episode.quality != "expert":
                raise InputError(f"{dataset.path}: episode {episode.index} is {episode.quality}: use recipe=expert")
            if not episode.success:
                continue
            sentence = episode.instruction if data.text else NO_TEXT
            if sentence not in instructions:
                instructions.append(sentence)
            row = instructions.index(sentence)
            for camera in cameras:
                frames, step = dataset.frames(episode.index, camera, fps)
                film = Film(fit_size(frames, size), progress(step, len(episode)), row)
                (training if episode.index < len(dataset) - data.held_out else kept).append(film)
    return Corpus(training, kept, instructions, cameras[0], digest.hexdigest())


def main(config: PretrainConfig) -> None:
    """Trains and exports; run again after a kill to go on."""
    from envs.cache import data_folder
    from envs.collect import collect

    start = time.monotonic()
    if config.until == "pool":
        config = replace(config, mesh=MeshConfig())  # one host and device do this part
    else:
        config.hosts.start()
    plans = collections(config.data, config.wvm.fps, config.wvm.size)
    checked(config, [plan.env.instruction if config.data.text else NO_TEXT for plan in plans])
    if config.out:
        check_vacant(out := Path(config.out).expanduser())
        writable(out.parent)
    datasets = [Dataset(collect(plan)) for plan in plans]
    films = corpus(datasets, plans[0].cameras, config.wvm.fps, config.wvm.size, config.data)
    data = {
        "films": f"{len(films.training)} for training, {len(films.held_out)} held out; an episode in each of "
        f"{1 + config.data.looks} looks"
        + (f"; half of the hands start up to {config.data.raised:g} m higher" if config.data.raised else ""),
        "frames": sum(len(film.frames) for film in films.training),
        "instructions": "; ".join(films.instructions),
        "windows": ", ".join(f"{name} {value:g}" for name, value in asdict(config.windows).items()),
        "seed": config.data.seed,
        "fingerprint": films.fingerprint,
    }
    print(f"films: {data['films']}; {data['frames']} frames")
    stages = Stages(config, films, data_folder(config.data.root) / "pretrain")
    if config.until == "pool":
        stages.pools(*stages.vae())
        return
    critic, scores = train(stages)
    if not is_first():
        return
    if config.half:
        critic = critic.halved()
    name = f"{critic.config.preset}-{critic.fingerprint[:8]}"
    out = Path(config.out).expanduser() if config.out else data_folder(config.data.root) / "critics" / name
    start_of = config.pretrained.described(config.wvm)
    critic.card = write_card(critic, start_of, config.seed, data, scores, time.monotonic() - start)
    critic.save(out)
    print(f"critic {critic.fingerprint[:12]} in {out}")


if __name__ == "__main__":
    cli.run(main, PretrainConfig, {"wvm": PRESETS})
