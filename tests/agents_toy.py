"""Small made-up episodes and data for the tests of `agents`."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from agents.chunks import Data, Statistics


def episodes(lengths=(5, 8, 3), seed=0, success=None):
    """Episodes with random observations `a [T,2]`, `b [T]` and actions [T,3], like `wvm_rl.data.episodes.Episode`."""
    rng = np.random.default_rng(seed)
    return [
        SimpleNamespace(
            index=index,
            success=True if success is None else success[index],
            actions=rng.uniform(-1, 1, (length, 3)).astype(np.float32),
            obs={"a": rng.normal(size=(length, 2)).astype(np.float32), "b": rng.normal(size=length).astype(np.float32)},
        )
        for index, length in enumerate(lengths)
    ]


def values(toy):
    """A rising value per episode."""
    return [np.linspace(0, 1, len(episode.actions)) for episode in toy]


def single_steps(obs, actions):
    """Data of episodes one step long, so that a chunk is one action; already normalised."""
    count, size = len(obs), actions.shape[1]
    data = Data(jnp.asarray(obs, jnp.float32), jnp.asarray(actions, jnp.float32), jnp.arange(count, dtype=jnp.int32))
    zeros, ones = np.zeros(obs.shape[1], np.float32), np.ones(obs.shape[1], np.float32)
    return data, Statistics(zeros, ones, np.zeros(size, np.float32), np.ones(size, np.float32))
