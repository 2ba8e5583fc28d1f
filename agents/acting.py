"""Acting with trained policies: raw observations in, raw actions out, each row a pure function of its own keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.chunks import Seen, Statistics
from agents.policies.base import Constant, Params, PolicyConfig
from wvm_rl.errors import InputError

Act = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Asked:
    """What a policy is asked for when acting.

    cond: [C] f32 (`AgentConfig.act_cond`), or None. guidance: strength of classifier-free guidance towards it.
    """

    cond: np.ndarray | None = None
    guidance: float = 1.0


def actor(
    policy: PolicyConfig,
    params: Params,
    statistics: Statistics,
    rows: int,
    asked: Asked = Asked(),
    seed: int = 0,
    cameras: int = 0,
    size: int = 0,
) -> Act:
    """A function `act(obs [B,O], rollout [B], step [B]) -> actions [B, execute, A]` f32 in [-1,1], B <= rows.

    Observations with pictures are records [B] of `state` and `pictures` (`envs.observations.packed`).

    Row b depends on (seed, rollout[b], step[b], obs[b]) alone, bit for bit: its random key is derived from these, every
    call runs the same program on `rows` rows (short batches are padded). Rows of rollout -1 stand for none.

    Args:
        params: of one seed (`Trained.seed`).
        rows: the fixed batch size, at least the number of live environments.
        seed: evaluation seed.
        cameras: how many pictures a policy sees that was trained on pictures.
        size: side of each.
    """
    if rows < 1:
        raise InputError(f"rows={rows} of the actor must be at least 1")
    trained = params["cond"].shape[0] if "cond" in params else 0
    shape = (0,) if asked.cond is None else np.shape(asked.cond)
    if shape != (trained,):
        raise InputError(f"condition of shape {shape} does not fit a policy trained with {trained} of them")
    if asked.guidance != 1.0 and not trained:
        raise InputError(f"guidance={asked.guidance:g} of a policy without condition: there is none to guide to")
    statistics = jax.tree.map(jnp.asarray, statistics)
    wanted = (cameras, size, size, 3) if cameras else None
    numbers = len(statistics.obs_mean)
    cond = None if asked.cond is None else jnp.asarray(asked.cond, jnp.float32)
    guided = {} if asked.guidance == 1.0 else {"guidance": jnp.float32(asked.guidance)}
    batched = _program(Constant(policy))

    def act(obs: np.ndarray, rollout: np.ndarray, step: np.ndarray) -> np.ndarray:
        count, state = len(obs), obs["state"] if obs.dtype.names else obs
        pictures = obs["pictures"].shape[1:] if obs.dtype.names else None
        if state.ndim != 2 or state.shape[1] != numbers:
            raise InputError(
                f"observations have shape {state.shape}, the policy was trained on [B, {numbers}]: same keys?"
            )
        if pictures != wanted:
            raise InputError(
                f"observations have pictures of shape {pictures}, the policy was trained on {wanted}: give its cameras "
                "at its size, as `envs.observations.packed` puts them together"
            )
        if not count == len(rollout) == len(step) or count > rows:
            raise InputError(
                f"{count} observations, {len(rollout)} rollouts, {len(step)} steps: at most {rows} of each"
            )
        if not np.isfinite(state).all():
            raise InputError(f"observation of rollout {rollout[np.argmin(np.isfinite(state).all(1))]} is not finite")
        padded = np.zeros((rows, *obs.shape[1:]), obs.dtype)
        padded[:count] = obs
        seen = Seen(padded["state"], padded["pictures"]) if obs.dtype.names else padded
        keys = np.zeros((2, rows), np.uint32)
        keys[:, :count] = np.maximum(rollout, 0), step
        return np.asarray(batched(params, statistics, seen, *keys, jnp.uint32(seed), cond, **guided))[:count]

    return act


@cache
def _program(policy: Constant) -> Any:
    """The compiled function that all policies of one configuration share."""
    sample, execute = policy.config.sample, policy.config.execute

    @jax.jit
    def batched(params, statistics, obs, rollout, step, seed, cond, guidance=1.0):
        root = jax.random.key(seed)

        def row(obs, rollout, step):
            rng = jax.random.fold_in(jax.random.fold_in(root, rollout), step)
            seen = jax.tree.map(lambda leaf: leaf[None], statistics.observation(obs))
            normal = sample(params, seen, rng, None if cond is None else cond[None], guidance)[0]
            actions = jnp.clip(statistics.action(normal[:execute]), -1.0, 1.0)
            return actions.at[:, -1].set(jnp.where(actions[:, -1] < 0, -1.0, 1.0))  # the gripper is a switch

        return jax.vmap(row)(obs, rollout, step)

    return batched


def together(acts: Sequence[Act], count: int, rows: int) -> Act:
    """Several policies as one: rollouts p*count .. (p+1)*count - 1 are those of policy p.

    Rollout r of a policy stands in row r % rows of its calls, as when it acts alone: its actions are the same, bit for
    bit. Rows of rollout -1 cost no call and hold zeros.
    """

    def act(obs: np.ndarray, rollout: np.ndarray, step: np.ndarray) -> np.ndarray:
        policy, inner = np.divmod(np.asarray(rollout), count)
        result: np.ndarray | None = None
        left = [position for position, number in enumerate(rollout) if number >= 0]
        while left:
            first = left[0]
            batch: dict[int, int] = {}  # row -> position
            for position in left:
                if policy[position] == policy[first]:
                    batch.setdefault(int(inner[position]) % rows, position)
            here, there = list(batch), list(batch.values())
            padded, keys = np.zeros((rows, *obs.shape[1:]), obs.dtype), np.zeros((2, rows), np.int64)
            padded[here], keys[0, here], keys[1, here] = obs[there], inner[there], np.asarray(step)[there]
            actions = acts[policy[first]](padded, *keys)
            result = np.zeros((len(obs), *actions.shape[1:]), np.float32) if result is None else result
            result[there] = actions[here]
            left = [position for position in left if position not in set(there)]
        assert result is not None
        return result

    return act
