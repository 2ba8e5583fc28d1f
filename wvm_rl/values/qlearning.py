"""A classical critic for comparison: implicit Q-learning from simulator states (Kostrikov et al. 2021, 2110.06169).

With a reward of 1 on success and a discount, V(s) is in [0,1]: the discounted chance of success when going on like the
better part of the data. Eq. 5-7, with chunks of C actions as actions (Li et al. 2025, 2507.07969): success has to find
its way back over hundreds of control steps, and goes C of them at a time, without bias.

    L_V = E |tau - 1[u < 0]| u^2,  u = min_i Q^_i(s, a..a_{C-1}) - V(s)
    L_Q = E (sum_j discount^j r_j + discount^C V(s_C) - Q_i(s, a..a_{C-1}))^2

It learns from the very dataset that it values, one state at a time; an episode's end is final, also of a failure.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from wvm_rl import checkpoint
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.fingerprint import fingerprint
from wvm_rl.model.fit import Metrics
from wvm_rl.model.layers import Array
from wvm_rl.model.weights import Params, graph_of
from wvm_rl.values.base import Values
from wvm_rl.values.iql import IQLConfig
from wvm_rl.values.learned import kept
from wvm_rl.values.networks import StateNet
from wvm_rl.values.regressors import STATE

SCAN = 100  # updates a compiled call
SAVE = 10 * SCAN  # updates between two checkpoints


class IQL:
    """V(s) of implicit Q-learning; learns when values of a dataset are first asked of it, and keeps V beside it."""

    name = "iql"

    def __init__(self, config: IQLConfig):
        self.config = config
        self.fingerprint = fingerprint([2, config.shaping()])

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        data, lengths = transitions(dataset, self.config.chunk, self.config.discount), dataset.lengths
        graph = graph_of(StateNet, data["state"].shape[1])
        trained = fingerprint([self.fingerprint, dataset.fingerprint])[:8]
        path = dataset.path.with_name(f"{dataset.path.name.removesuffix('.hdf5')}.{self.name}-{trained}.safetensors")
        params = kept(graph, path, partial(fitted, self.config, data))
        value = np.asarray(jax.jit(lambda state: graph.merge(params)(state))(data["state"]))
        ends = np.cumsum(lengths)
        for index in range(start, len(dataset)):
            own = value[ends[index] - lengths[index] : ends[index]]
            yield Values(np.arange(lengths[index], dtype=np.int32), own.astype(np.float32))


def transitions(dataset: Dataset, chunk: int, discount: float) -> dict[str, np.ndarray]:
    """Of every control step: standardised state [N,S]; the chunk of actions from there, 0 after the end [N,C*A]; row of
    the state after it; the discounted reward within it, and whether the episode ends there [N].

    Raises:
        InputError: an episode lacks observations of the simulator's state.
    """
    states, actions, following, reward, end, count = [], [], [], [], [], 0
    for episode in dataset:
        if missing := [key for key in STATE if key not in episode.obs]:
            raise InputError(f"{dataset.path}: episode {episode.index} lacks {missing[0]}, which value=iql reads")
        length = len(episode)
        states.append(np.concatenate([episode.obs[key] for key in STATE], 1))
        padded = np.pad(episode.actions, ((0, chunk - 1), (0, 0)))
        actions.append(np.concatenate([padded[later : later + length] for later in range(chunk)], 1))
        following.append(count + np.minimum(np.arange(length) + chunk, length - 1))
        left = np.arange(length)[::-1]  # control steps to the last one, after which a success is rewarded
        end.append(left < chunk)
        reward.append(np.where(left < chunk, discount**left, 0.0) * float(episode.success))
        count += length
    state = np.concatenate(states).astype(np.float32)
    return {
        "state": (state - state.mean(0)) / (state.std(0) + 1e-3),
        "action": np.concatenate(actions),
        "next": np.concatenate(following),
        "reward": np.concatenate(reward).astype(np.float32),
        "end": np.concatenate(end).astype(np.float32),
    }


def fitted(config: IQLConfig, data: dict[str, np.ndarray], folder: Path) -> Params:
    """Parameters of V.

    Args:
        data: of `transitions`.
        folder: of checkpoints and metrics; what was begun there goes on, to the same bits.

    Raises:
        InputError: the loss is not finite, or the folder holds another training.
    """
    size, actions = data["state"].shape[1], data["action"].shape[1]
    v, q = graph_of(StateNet, size), graph_of(StateNet, size + actions)
    params: dict[str, Any] = {"v": v.init(config.seed), "q": [q.init(config.seed + number) for number in (1, 2)]}
    state = {
        "params": params,
        "target": jax.tree.map(jnp.copy, params["q"]),
        "optimiser": (optimiser := optax.adam(config.learning_rate)).init(params),
    }
    held = jax.tree.map(jnp.asarray, data)

    def loss(params: dict[str, Any], target: list[Params], index: Array) -> Array:
        here, ahead = held["state"][index], held["state"][held["next"][index]]
        both = jnp.concatenate([here, held["action"][index]], 1)
        best = jnp.minimum(*(q.merge(each)(both) for each in target))
        gap = best - v.merge(params["v"])(here)
        value = jnp.mean(jnp.where(gap < 0, 1 - config.expectile, config.expectile) * gap**2)
        future = jax.lax.stop_gradient(v.merge(params["v"])(ahead)) * (1 - held["end"][index])
        goal = held["reward"][index] + config.discount**config.chunk * future
        return value + sum(jnp.mean((q.merge(each)(both) - goal) ** 2) for each in params["q"])

    @partial(jax.jit, donate_argnums=0)
    def advance(state: dict[str, Any], keys: Array) -> tuple[dict[str, Any], Array]:
        def update(state: dict[str, Any], key: Array) -> tuple[dict[str, Any], Array]:
            index = jax.random.randint(key, (config.batch,), 0, len(data["state"]))
            error, gradient = jax.value_and_grad(loss)(state["params"], state["target"], index)
            change, optimiser_state = optimiser.update(gradient, state["optimiser"])
            params = optax.apply_updates(state["params"], change)
            target = optax.incremental_update(params["q"], state["target"], config.target)
            return {"params": params, "target": target, "optimiser": optimiser_state}, error

        return jax.lax.scan(update, state, keys)

    keys = jax.random.split(jax.random.key(config.seed), config.steps)
    state, done = checkpoint.restore(folder / "checkpoints", state, config.shaping()) or (state, 0)
    metrics = Metrics(folder / "metrics.jsonl", "value=iql", done)
    bar = tqdm(total=config.steps, initial=done, desc="implicit Q-learning", unit="step", mininterval=2.0)
    with bar:
        while done < config.steps:
            state, errors = advance(state, keys[done : done + SCAN])
            done += len(errors)
            metrics.add(done, {"loss": float(np.mean(errors))})
            bar.update(len(errors))
            bar.set_postfix(loss=f"{np.mean(errors):.2e}", refresh=False)
            if done % SAVE == 0 or done == config.steps:
                checkpoint.save(folder / "checkpoints", done, state, config.shaping())
    return state["params"]["v"]
