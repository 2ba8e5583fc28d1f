"""Episodes of a file, as what policies learn from: `data=file`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.chunks import observation
from envs.render import shown
from envs.tasks import CONTROL_FREQUENCY, TaskConfig
from wvm_rl.config import TrainConfig
from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.rates import frame_rate, nearest
from wvm_rl.data.windows import CLIP
from wvm_rl.errors import InputError
from wvm_rl.values.base import Source
from wvm_rl.values.wvm import Wvm

ACTIONS = 7  # numbers of an action: changes of the hand's place and turn, and the gripper
PANDA_HAND = "finger_joint1"  # in the XML of a model
REACH = [0.05] * 3 + [0.5] * 3  # metres and radians that actions of 1 ask for
CONTROLLER: dict[str, Any] = {  # settings of robosuite's arm controller; no arm's base is turned: any input_ref_frame
    "type": "OSC_POSE",
    "control_delta": True,
    "input_type": "delta",
    "impedance_mode": "fixed",
    "input_max": 1,
    "input_min": -1,
    "output_max": REACH,
    "output_min": [-each for each in REACH],
}


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
            _check_actions(name, episode, config.env)
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
        if theirs[name] is None:
            raise InputError(
                f"{found.path}: its env_args lack {name}: add it, {wanted} if env={env.name} fits the episodes"
            )
        if theirs[name] != wanted:
            raise InputError(
                f"{found.path}: its env_args have {name}={theirs[name]}, env={env.name} {wanted}: choose the env that "
                "its episodes are of"
            )
    for name, wanted, value in _controls(given.get("controller_configs")):
        if not _same(value, wanted):
            raise InputError(
                f"{found.path}: its controller has {name}={value}, policies here act by changes of the hand's pose "
                f"({name}={wanted}): convert the actions first"
            )


def _same(value: Any, wanted: Any) -> bool:
    """Whether a setting is the one wanted; a number may stand for six."""
    if isinstance(wanted, (str, bool)):
        return bool(value == wanted)
    try:
        return np.allclose(np.asarray(value, float), wanted)
    except (TypeError, ValueError):
        return False


def _controls(controller: Any) -> Iterator[tuple[str, Any, Any]]:
    """What robosuite's settings of the arm's controller say of actions: setting, what fits, what is given."""
    if not isinstance(controller, dict):
        return
    parts = controller.get("body_parts", {})  # robosuite 1.5; before, the settings are the arm's
    arm = parts.get("arms", parts).get("right", {}) if parts else controller
    for name, wanted in CONTROLLER.items():
        if name in arm:
            yield name, wanted, arm[name]


def _check_actions(name: str, episode: Episode, env: TaskConfig) -> None:
    """Raises InputError unless actions are those of a policy here: changes of the hand's pose, and a gripper's."""
    width, largest = episode.actions.shape[1], float(np.abs(episode.actions).max())
    if width != ACTIONS or largest > 1 + 1e-5:
        raise InputError(
            f"{name} has actions of {width} numbers up to {largest:.3g}, policies here act by {ACTIONS} in [-1, 1]: "
            "changes of the hand's pose, and the gripper's: convert them first"
        )
    if (np.abs(episode.actions[:, -1]) < 1 - 1e-5).any():
        raise InputError(f"{name} has gripper actions between -1, open, and 1, close: replace each by its sign")
    if episode.model_file and PANDA_HAND not in episode.model_file:
        raise InputError(f"{name} has a {env.robot} with another hand than the Panda's, which all arms have here")
