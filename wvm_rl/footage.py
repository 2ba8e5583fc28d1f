"""Films of experts that critics learn from: of scripted ones, or of the episodes of files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from omegaconf import MISSING

from envs.collect import CollectConfig, collect
from envs.recipes import RECIPES
from envs.tasks import EVERY, TASKS
from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.windows import NO_TEXT, Film, progress
from wvm_rl.errors import InputError
from wvm_rl.model.codec import fit_size
from wvm_rl.model.presets import ModelConfig
from wvm_rl.model.settings import Corpus


class Footage(Protocol):
    """Where films come from.

    root: data folder of what is made of them; None: `wvm_rl` in the user's cache.
    """

    root: str | None

    def announced(self, preset: ModelConfig) -> list[str]:
        """Instructions that the films will come with.

        Raises:
            InputError: what a critic of this preset cannot learn from, before anything is made.
        """
        ...

    def films(self, preset: ModelConfig) -> Corpus:
        """The films, made if need be."""
        ...

    def described(self) -> dict[str, Any]:
        """Lines of the card: name -> what the films are."""
        ...


@dataclass
class ScriptedFilms:
    """Episodes of scripted experts, collected or found in the cache."""

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    episodes: int = 220  # a task
    held_out: int = 10  # episodes a task kept for the check printed during training
    looks: int = 1  # random cameras, lights and textures in which every episode is seen beside the plain one
    fps: int | None = None  # frames a second kept, at least those the model reads; null: as many
    text: bool = True  # false: no instruction is told, in training and in use
    raised: float = 0.0  # metres that hands start above their usual place, at most, in half of the episodes
    seed: int = 1  # of the collection, other recipes draw other episodes from it; the shipped critics saw 0 to 3
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

    def plans(self, fps: float, size: int) -> list[CollectConfig]:
        """What to collect, one a task, for a critic that reads so many frames a second and pixels a side.

        Raises:
            InputError: a rate that is no whole number of frames a second, or more than is to be kept.
        """
        if fps != round(fps):
            raise InputError(f"the critic reads {fps} frames a second; only whole numbers can be collected")
        if self.fps is not None and self.fps < fps:
            raise InputError(f"data.fps={self.fps}: the critic reads {fps:g} frames a second")
        tasks: dict[str, Any] = EVERY
        recipe: Any = RECIPES["expert"]
        return [
            CollectConfig(
                env=tasks[task](),
                recipe=recipe(raised=self.raised),
                episodes=self.episodes,
                seed=self.seed,
                fps=round(fps) if self.fps is None else self.fps,
                size=size,
                looks=[f"random{look}" for look in range(self.looks)],
                root=self.root,
                workers=self.workers,
            )
            for task in self.tasks
        ]

    def announced(self, preset: ModelConfig) -> list[str]:
        return [plan.env.instruction if self.text else NO_TEXT for plan in self.plans(preset.fps, preset.size)]

    def films(self, preset: ModelConfig) -> Corpus:
        plans = self.plans(preset.fps, preset.size)
        datasets = [Dataset(collect(plan)) for plan in plans]
        return corpus(datasets, plans[0].cameras, preset.fps, preset.size, self.held_out, self.text)

    def described(self) -> dict[str, Any]:
        raised = f"; half of the hands start up to {self.raised:g} m higher" if self.raised else ""
        return {"episodes": f"scripted experts', in {1 + self.looks} looks each{raised}", "seed": self.seed}


@dataclass
class FileFilms:
    """Episodes of files, such as a robot's demonstrations; those marked as no expert's are left out."""

    paths: list[str] = MISSING  # datasets, in the layout of `wvm_rl.data.episodes`
    cameras: list[str] = field(default_factory=lambda: ["workspace"])  # the critic's, and others to learn from, too
    held_out: int = 10  # episodes of every file, its last, kept for the check printed during training
    text: bool = True  # false: no instruction is told, in training and in use
    root: str | None = None  # data folder; null: `wvm_rl` in the user's cache

    def __post_init__(self) -> None:
        for name in ("paths", "cameras"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise InputError(f"data.{name} must name at least one, and none twice")
        if self.held_out < 1:
            raise InputError(f"data.held_out={self.held_out} must be at least 1")

    @property
    def datasets(self) -> list[Dataset]:
        return [Dataset(Path(path).expanduser()) for path in self.paths]

    def announced(self, preset: ModelConfig) -> list[str]:
        """See `Footage`; looks at every episode to learn from, but at no picture."""
        told: dict[str, None] = {}
        for dataset in self.datasets:
            experts = list(filter(is_expert, dataset))
            if not experts:
                raise InputError(f"{dataset.path} has no successful experts' episodes, from which a critic learns")
            for episode in experts:
                name = f"{dataset.path}: {dataset.name(episode.index)}"
                for camera in self.cameras:
                    _, height, width = dataset.frames_shape(episode.index, camera)
                    if height != width or height % preset.size:
                        raise InputError(
                            f"{name} has frames of {height}x{width} of {camera}, the critic reads {preset.size}x"
                            f"{preset.size}: store them square, of that size or a multiple of it"
                        )
                if self.text and not episode.instruction:
                    raise InputError(
                        f"{name} has no instruction: add the attribute, or learn without (data.text=false)"
                    )
                told[episode.instruction if self.text else NO_TEXT] = None
            if dataset.fps < preset.fps:
                raise InputError(
                    f"{dataset.path} has {dataset.fps:g} frames a second, the critic reads {preset.fps:g}: give "
                    f"wvm.fps={dataset.fps:g} or less"
                )
        return list(told)

    def films(self, preset: ModelConfig) -> Corpus:
        films = corpus(self.datasets, self.cameras, preset.fps, preset.size, self.held_out, self.text)
        shown = f"{films.fingerprint} {self.cameras}"  # a file may have others, too
        return replace(films, fingerprint=hashlib.sha256(shown.encode()).hexdigest())

    def described(self) -> dict[str, Any]:
        names = ", ".join(Path(path).name for path in self.paths)
        return {"episodes": f"of {names}", "cameras": ", ".join(self.cameras)}


def is_expert(episode: Episode) -> bool:
    """Whether a critic may learn from it."""
    return episode.success and episode.quality == "expert" and not len(episode.lapses)


def corpus(
    datasets: Sequence[Dataset], cameras: list[str], fps: float, size: int, held_out: int, text: bool = True
) -> Corpus:
    """Reads the films of successful expert episodes, one a camera; other episodes are left out, and counted.

    Args:
        cameras: the critic's, and others to learn from, too.
        fps: frames a second that the critic reads.
        size: pixels a side, likewise.
        held_out: the last episodes of every dataset, kept apart.
        text: whether the critic is told instructions.

    Raises:
        InputError: a dataset without frames that fit, or with too few episodes; or an instruction that is told in none
            that is learned from.
    """
    training: list[Film] = []
    kept: list[Film] = []
    instructions: list[str] = []
    digest = hashlib.sha256(str(held_out).encode())
    for setting in (*([] if text else ["no text"]), *([] if datasets[0].fps == fps else [f"{fps} fps"])):
        digest.update(setting.encode())
    for dataset in datasets:
        digest.update(dataset.fingerprint.encode())
        experts = list(filter(is_expert, dataset))
        if left := len(dataset) - len(experts):
            print(f"{dataset.path}: {left} of {len(dataset)} episodes are no successful experts': left out")
        learned = [episode.index < len(dataset) - held_out for episode in experts]
        if not any(learned) or all(learned):
            raise InputError(
                f"{dataset.path} has {len(experts)} successful experts' episodes, {len(experts) - sum(learned)} of "
                f"them among its last {held_out}: data.held_out must leave some to learn from and some for the check"
            )
        for episode, learns in zip(experts, learned):
            sentence = episode.instruction if text else NO_TEXT
            if sentence not in instructions:
                instructions.append(sentence)
            row = instructions.index(sentence)
            for camera in cameras:
                frames, step = dataset.frames(episode.index, camera, fps)
                film = Film(fit_size(frames, size), progress(step, len(episode)), row)
                (training if learns else kept).append(film)
    learned_of = {film.instruction for film in training}
    if unheard := [sentence for row, sentence in enumerate(instructions) if row not in learned_of]:
        raise InputError(
            f"`{unheard[0]}` is told in held-out episodes alone: mix the tasks in a file, or split it by them"
        )
    return Corpus(training, kept, instructions, cameras[0], digest.hexdigest())


FOOTAGE = {"scripted": ScriptedFilms, "file": FileFilms}
