"""Episodes -> values -> advantages -> columns: what a policy learns from, up to its training."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agents.acting import Asked
from agents.base import AgentConfig, Columns
from agents.chunks import Frames, observation
from agents.matching import matched
from envs.collect import CollectConfig, collect, dataset_path
from envs.render import shown
from envs.tasks import CONTROL_FREQUENCY, TaskConfig
from wvm_rl.advantage import shuffled
from wvm_rl.config import FileData, TrainConfig
from wvm_rl.data.episodes import Dataset, Episode, frame_rate, nearest
from wvm_rl.data.windows import CLIP
from wvm_rl.errors import InputError
from wvm_rl.films import FPS, SIZE
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


@dataclass
class Given:
    """Episodes of a file, which stays as it is: frames that it lacks are rendered into a copy beside it.

    Raises:
        InputError: no dataset, one of another environment, or one that lacks what policy or critic read; what other
            sources read they ask for themselves.
    """

    config: TrainConfig
    source: Source

    def __post_init__(self) -> None:
        config, source = self.config, self.source
        self._found = found = Dataset(Path(config.data.path).expanduser())
        _check_environment(found, config.env)
        self._blind = source.critic if isinstance(source, Wvm) and not source.sees(found) else None
        for episode in found:
            name = f"{found.path}: {found.name(episode.index)}"
            observation(episode.obs, config.obs.keys, name)
            if (self._blind or config.obs.cameras) and not (episode.states.size and episode.model_file):
                raise InputError(f"{name} has no states or no model_file, from which pictures are to be rendered")
            if isinstance(source, Wvm):
                self._check_seen(name, episode, source)

    def _check_seen(self, name: str, episode: Episode, source: Wvm) -> None:
        """Raises InputError unless the critic can judge the episode."""
        fps = source.critic.fps
        rendered = np.arange(0, len(episode), CONTROL_FREQUENCY // frame_rate(fps, CONTROL_FREQUENCY))
        steps = rendered if self._blind else self._found.frame_steps(episode.index)
        if len(nearest(steps, CONTROL_FREQUENCY / fps)) < CLIP:
            raise InputError(
                f"{name} is shorter than a clip of the critic, {CLIP} frames at {fps:g} a second: remove it"
            )
        source.check_told(name, episode.instruction)

    @property
    def identity(self) -> str:
        return f"{self._found.path.name} {self._found.fingerprint}"

    def dataset(self) -> Dataset:
        if (critic := self._blind) is None:
            return self._found
        return Dataset(
            shown(
                self._found,
                [critic.camera],
                frame_rate(critic.fps, CONTROL_FREQUENCY),
                critic.size,
                self.config.data.workers,
            )
        )


def _check_environment(found: Dataset, env: TaskConfig) -> None:
    """Raises InputError unless the episodes are of this environment, robot and control rate."""
    given = found.env_args.get("env_kwargs", {})
    robots = given.get("robots")
    theirs = {"env_name": found.env_args.get("env_name"), "control_freq": found.control_freq}
    theirs |= {"robots": robots[0] if isinstance(robots, list) and len(robots) == 1 else robots}
    theirs |= {name: given.get(name) for name in env.options}
    ours = {"env_name": env.environment, "control_freq": CONTROL_FREQUENCY, "robots": env.robot, **env.options}
    for name, wanted in ours.items():
        if theirs[name] != wanted:
            raise InputError(
                f"{found.path}: its env_args have {name}={theirs[name]}, env={env.name} {wanted}: choose the env that "
                "its episodes are of"
            )


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
    with stage("values"):
        labels = tracks(dataset, source)
    values, delta = [track.progress for track in labels], config.value.advantages(labels)
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
