"""Episodes -> values -> advantages -> columns: what a policy learns from, up to its training."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agents.acting import Asked
from agents.base import AgentConfig, Columns, checked
from agents.chunks import Frames, observation
from agents.matching import matched
from envs.collect import CollectConfig, collect, dataset_path
from envs.render import shown
from envs.tasks import CONTROL_FREQUENCY
from wvm_rl.advantage import shuffled
from wvm_rl.config import FileData, TrainConfig
from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.rates import frame_rate
from wvm_rl.errors import InputError
from wvm_rl.films import FPS, SIZE
from wvm_rl.given import Given
from wvm_rl.label import tracks
from wvm_rl.values.base import Source, ValueConfig
from wvm_rl.values.wvm import Wvm


@dataclass
class Samples:
    """What a run's policies learn from.

    Attributes:
        values: per episode [T].
        advantage: [N] of all control steps.
        agent: the method, its knob solved if `match_ess` asks for it.
        columns: one for each training seed.
    """

    dataset: Dataset
    episodes: list[Episode]
    values: list[np.ndarray]
    advantage: np.ndarray
    agent: AgentConfig
    columns: list[Columns]

    def asked(self, position: int) -> Asked:
        """What the policy of a training seed is asked for when acting."""
        return Asked(self.agent.act_cond(self.columns[position]), self.agent.strength)


class Origin(Protocol):
    """Where a run's episodes come from."""

    @property
    def identity(self) -> str:
        """What changes with the episodes; known before any is there."""
        ...

    def dataset(self) -> Dataset:
        """The episodes, made if need be, with frames for the run's source if it sees some."""
        ...


@dataclass
class Scripted:
    """Episodes collected for the run, or found in the cache."""

    plan: CollectConfig

    @property
    def identity(self) -> str:
        return dataset_path(self.plan).name

    def dataset(self) -> Dataset:
        return Dataset(collect(self.plan))


def origin(config: TrainConfig, source: Source) -> Origin:
    """The episodes that a run needs, with frames for a source that sees them.

    Raises:
        InputError: settings that do not go together.
    """
    data = config.data
    plain = ValueConfig()
    for name in ("shuffle", "scale", "lower") if not config.agent.reads_advantage else ():
        if (given := getattr(config.value, name)) != getattr(plain, name):
            raise InputError(f"value.{name}={given}: this agent does not read advantages, it would change nothing")
    if config.agent.scale_free and config.value.scale != plain.scale:
        raise InputError(
            f"value.scale={config.value.scale}: this agent reads only sign and order of advantages, it changes nothing"
        )
    if config.agent.strength != 1.0 and not config.policy.guides:
        raise InputError(f"agent.guidance={config.agent.strength:g} needs policy=flow: only a flow can be guided")
    if isinstance(data, FileData):
        return Given(config, source)
    wanted = source.critic.fps if isinstance(source, Wvm) else 0
    fps = data.fps if data.fps is not None else frame_rate(wanted or FPS, CONTROL_FREQUENCY)
    if fps < wanted:
        raise InputError(f"data.fps={fps}: value=wvm reads {wanted:g} frames a second")
    view: dict[str, Any] = {"size": SIZE}
    if isinstance(source, Wvm):
        view = {"camera": source.critic.camera, "size": source.critic.size}
    return Scripted(
        CollectConfig(
            env=config.env,
            recipe=data.recipe,
            episodes=data.episodes,
            seed=data.seed,
            fps=fps,
            root=data.root,
            workers=data.workers,
            **view,
        )
    )


def prepared(
    config: TrainConfig, origin: Origin, source: Source, stage: Callable[[str], AbstractContextManager[None]]
) -> Samples:
    """Collects, labels and weighs.

    Args:
        origin: of `origin`.
        stage: announces and times "episodes" and "values".

    Raises:
        InputError: what collection, source or method refuse.
    """
    with stage("episodes"):
        dataset = origin.dataset()
        episodes = list(dataset)
        observation(episodes[0].obs, config.obs.keys, f"{dataset.path}: {dataset.name(0)}")
    with stage("values"):
        labels = tracks(dataset, source)
    values = [track.progress for track in labels]
    delta = checked(config.value.advantages(labels), values, episodes)
    agent = config.agent
    if config.match_ess is not None:
        agent = matched(agent, config.match_ess, delta, values, episodes)
    seeds = range(config.seed, config.seed + config.seeds)
    deltas = [shuffled(delta, seed) for seed in seeds] if config.value.shuffle else [delta] * len(seeds)
    columns = [agent.columns(each, values, episodes) for each in deltas]
    told = {found is not None for each in columns for found in (each.cond, agent.act_cond(each))}
    if told != {agent.conditions}:
        raise InputError(f"{type(agent).__name__}: columns, act_cond and conditions must all tell of one, or none")
    return Samples(dataset, episodes, values, delta, agent, columns)


def pictures(config: TrainConfig, dataset: Dataset) -> Callable[[int], Frames] | None:
    """Episode -> what the policy's cameras show of it, rendered once; None for a policy that sees none."""
    cameras = config.obs.cameras
    if not cameras:
        return None
    seen = Dataset(shown(dataset, cameras, config.obs.fps, config.obs.size, config.data.workers))

    def frames(index: int) -> Frames:
        each = [seen.frames(index, camera)[0] for camera in cameras]
        return np.stack(each, 1), seen.frame_steps(index)

    return frames
