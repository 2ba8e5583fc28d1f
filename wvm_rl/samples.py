"""Episodes -> values -> advantages -> columns: what a policy learns from, up to its training."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.acting import Asked
from agents.base import AgentConfig, Columns
from agents.chunks import Frames
from agents.matching import matched
from envs.collect import CollectConfig, collect
from envs.render import shown
from wvm_rl.advantage import shuffled
from wvm_rl.config import TrainConfig
from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.errors import InputError
from wvm_rl.films import FPS, SIZE
from wvm_rl.label import tracks
from wvm_rl.values.base import Source
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


def collection(config: TrainConfig, source: Source) -> CollectConfig:
    """The episodes that a run needs, with frames for a source that sees them.

    Raises:
        InputError: settings that do not go together.
    """
    data = config.data
    wanted = source.critic.fps if isinstance(source, Wvm) else 0
    fps = data.fps if data.fps is not None else round(wanted) or FPS
    if fps < wanted:
        raise InputError(f"data.fps={fps}: value=wvm reads {wanted:g} frames a second")
    if config.value.shuffle and not config.agent.reads_advantage:
        raise InputError("value.shuffle=true: this agent does not read advantages, shuffled ones would change nothing")
    if config.agent.strength != 1.0 and not config.policy.guides:
        raise InputError(f"agent.guidance={config.agent.strength:g} needs policy=flow: only a flow can be guided")
    view: dict[str, Any] = {"size": SIZE}
    if isinstance(source, Wvm):
        view = {"camera": source.critic.camera, "size": source.critic.size}
    return CollectConfig(
        env=config.env,
        recipe=data.recipe,
        episodes=data.episodes,
        seed=data.seed,
        fps=fps,
        root=data.root,
        workers=data.workers,
        **view,
    )


def prepared(
    config: TrainConfig, settings: CollectConfig, source: Source, stage: Callable[[str], AbstractContextManager[None]]
) -> Samples:
    """Collects, labels and weighs.

    Args:
        settings: of `collection`.
        stage: announces and times "episodes" and "values".

    Raises:
        InputError: what collection, source or method refuse.
    """
    with stage("episodes"):
        dataset = Dataset(collect(settings))
        episodes = list(dataset)
    with stage("values"):
        labels = tracks(dataset, source)
    values, delta = [track.progress for track in labels], config.value.advantages(labels)
    agent = config.agent
    if config.match_ess is not None:
        agent = matched(agent, config.match_ess, delta, values, episodes)
    seeds = range(config.seed, config.seed + config.seeds)
    deltas = [shuffled(delta, seed) for seed in seeds] if config.value.shuffle else [delta] * len(seeds)
    return Samples(dataset, episodes, values, delta, agent, [agent.columns(each, values, episodes) for each in deltas])


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
