"""Training arrays from episodes: normalised observations and actions, and action chunks gathered on the device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.policies.base import Spec
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError

STD_FLOOR = {"observation": 1e-3, "action": 1e-2}  # a dimension that hardly moves must not be blown up to noise
CLIP = 10.0  # normalised observations are clipped to +-CLIP standard deviations


class Seen(NamedTuple):
    """Observations with pictures: state [..., O] f32 and pictures [..., C,S,S,3] u8, one a camera."""

    state: Any
    pictures: Any


class Statistics(NamedTuple):
    """Mean and standard deviation over a dataset: observations [O] f32, actions [A] f32. Stored with the policy.

    The gripper, the last action dimension, is a switch and stays as it is: mean 0, standard deviation 1.
    """

    obs_mean: np.ndarray
    obs_std: np.ndarray
    action_mean: np.ndarray
    action_std: np.ndarray

    def observation(self, obs: Any) -> Any:
        """Normalises raw observations [..., O]; pictures stay as they are."""
        if isinstance(obs, Seen):
            return obs._replace(state=self.observation(obs.state))
        return jnp.clip((obs - self.obs_mean) / self.obs_std, -CLIP, CLIP)

    def action(self, normalised: Any) -> Any:
        """Raw actions [..., A] of normalised ones."""
        return normalised * self.action_std + self.action_mean


class Data(NamedTuple):
    """A dataset of N control steps, episode after episode, normalised, of which M are samples.

    obs: of the samples, [M,O] f32 or `Seen`. actions: [N,A] f32. end: [N] i32, index of the last step of the step's
    episode. step: [M] i32, control step of each sample; None: every step is one.
    """

    obs: Any
    actions: Any
    end: Any
    step: Any = None

    @property
    def samples(self) -> int:
        """M."""
        return len(self.end if self.step is None else self.step)

    @property
    def spec(self) -> Spec:
        """Sizes for an unconditioned policy."""
        seen = isinstance(self.obs, Seen)
        state = self.obs.state if seen else self.obs
        return Spec(state.shape[1], self.actions.shape[1], cameras=self.obs.pictures.shape[1] if seen else 0)

    def sample(self, row: Any) -> tuple[Any, Any]:
        """Observations and control steps [B] of the samples `row` [B], inside jit."""
        obs = jax.tree.map(lambda leaf: leaf[row], self.obs)
        return obs, row if self.step is None else self.step[row]


Frames = tuple[np.ndarray, np.ndarray]  # pictures [F,C,S,S,3] u8 of an episode and the control step [F] i32 of each


def build(
    episodes: Sequence[Episode], keys: Sequence[str], frames: Callable[[int], Frames] | None = None
) -> tuple[Data, Statistics]:
    """Training arrays and their statistics.

    Args:
        keys: observation keys, concatenated in this order; each [T] or [T,D] in every episode.
        frames: place in `episodes` -> its pictures, for policies that see some: samples are the steps that have one.

    Raises:
        InputError: no episodes, a missing key, or shapes that do not fit each other.
    """
    if not episodes:
        raise InputError("the dataset has no episodes: collect some first")
    parts = [observation(episode.obs, keys, f"episode {episode.index}") for episode in episodes]
    lengths = [len(episode.actions) for episode in episodes]
    for episode, part in zip(episodes, parts):
        first = episodes[0].actions
        if episode.actions.shape != (len(part), first.shape[-1]) or not len(part) or part.shape[1] != parts[0].shape[1]:
            raise InputError(
                f"episode {episode.index}: actions {episode.actions.shape} and observations {part.shape} do not fit "
                f"each other or episode {episodes[0].index} ({first.shape} and {parts[0].shape}): check the dataset"
            )
    obs = np.concatenate(parts)
    actions = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    statistics = _statistics(obs.astype(np.float64), actions)
    normalised = (actions - statistics.action_mean) / statistics.action_std
    data = Data(
        obs=jnp.asarray(np.clip((obs - statistics.obs_mean) / statistics.obs_std, -CLIP, CLIP), jnp.float32),
        actions=jnp.asarray(normalised, jnp.float32),
        end=jnp.asarray(np.repeat(np.cumsum(lengths) - 1, lengths), jnp.int32),
    )
    if frames is not None:
        pictures, steps = zip(*map(frames, range(len(episodes))))
        first = np.cumsum([0, *lengths[:-1]])
        step = jnp.asarray(np.concatenate([start + own for start, own in zip(first, steps)]), jnp.int32)
        data = data._replace(obs=Seen(data.obs[step], jnp.asarray(np.concatenate(pictures))), step=step)
    return data, statistics


def observation(obs: Mapping[str, np.ndarray], keys: Sequence[str], name: str = "observation") -> np.ndarray:
    """Concatenates the values of `keys` along the last axis, [T,O] f32; values are [T] or [T,D].

    Raises:
        InputError: a missing key, or arrays of more axes or other lengths.
    """
    if not keys:
        raise InputError("no observation keys: name at least one")
    parts = []
    for key in keys:
        if key not in obs:
            raise InputError(f"{name} has no key {key}: choose among {', '.join(sorted(obs))}")
        part = np.asarray(obs[key], np.float32)
        part = part[:, None] if part.ndim == 1 else part
        if part.ndim != 2 or (parts and len(part) != len(parts[0])):
            length = len(parts[0]) if parts else "T"
            raise InputError(f"{name}: key {key} has shape {np.shape(obs[key])}, expected [{length}, D]")
        parts.append(part)
    return np.concatenate(parts, axis=1)


def gather(data: Data, index: Any, horizon: int) -> tuple[Any, Any]:
    """Action chunks that start at `index`, inside jit: (actions [B,H,A], valid [B,H] f32).

    Past an episode's end the last action is repeated and `valid` is 0.
    """
    step = index[:, None] + jnp.arange(horizon)
    end = data.end[index][:, None]
    return data.actions[jnp.minimum(step, end)], (step <= end).astype(jnp.float32)


def _statistics(obs: np.ndarray, actions: np.ndarray) -> Statistics:
    action_mean, action_std = actions.mean(0), np.maximum(actions.std(0), STD_FLOOR["action"])
    action_mean[-1], action_std[-1] = 0.0, 1.0
    obs_std = np.maximum(obs.std(0), STD_FLOOR["observation"])
    return Statistics(*(array.astype(np.float32) for array in (obs.mean(0), obs_std, action_mean, action_std)))
