"""Acting with a trained policy: raw observations in, raw actions out, each row a pure function of its own keys."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from agents.chunks import Statistics
from agents.policies.base import Params, PolicyConfig
from wvm_rl.errors import InputError

Act = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def actor(
    policy: PolicyConfig,
    params: Params,
    statistics: Statistics,
    rows: int,
    cond: np.ndarray | None = None,
    seed: int = 0,
    guidance: float = 1.0,
) -> Act:
    """A function `act(obs [B,O], rollout [B], step [B]) -> actions [B, execute, A]` f32 in [-1,1], B <= rows.

    Row b depends on (seed, rollout[b], step[b], obs[b]) alone, bit for bit: its random key is derived from these, every
    call runs the same program on `rows` rows (short batches are padded).

    Args:
        params: of one seed (`Trained.seed`).
        rows: the fixed batch size, at least the number of live environments.
        cond: [C] to ask for (`AgentConfig.act_cond`).
        seed: evaluation seed.
        guidance: strength of classifier-free guidance towards `cond` (`AgentConfig.strength`).
    """
    if rows < 1:
        raise InputError(f"rows={rows} of the actor must be at least 1")
    trained = params["cond"].shape[0] if "cond" in params else 0
    if cond is not None and np.shape(cond) != (trained,):
        raise InputError(f"condition of shape {np.shape(cond)} does not fit a policy trained with {trained} of them")
    statistics = jax.tree.map(jnp.asarray, statistics)
    size = len(statistics.obs_mean)

    @jax.jit
    def batched(params, obs, rollout, step):
        root = jax.random.key(seed)

        def row(obs, rollout, step):
            rng = jax.random.fold_in(jax.random.fold_in(root, rollout), step)
            asked = None if cond is None else jnp.asarray(cond, jnp.float32)[None]
            normal = policy.sample(params, statistics.observation(obs)[None], rng, asked, guidance)[0]
            actions = jnp.clip(statistics.action(normal[: policy.execute]), -1.0, 1.0)
            return actions.at[:, -1].set(jnp.where(actions[:, -1] < 0, -1.0, 1.0))  # the gripper is a switch

        return jax.vmap(row)(obs, rollout, step)

    def act(obs: np.ndarray, rollout: np.ndarray, step: np.ndarray) -> np.ndarray:
        count = len(obs)
        if obs.ndim != 2 or obs.shape[1] != size:
            raise InputError(f"observations have shape {obs.shape}, the policy was trained on [B, {size}]: same keys?")
        if not count == len(rollout) == len(step) or count > rows:
            raise InputError(
                f"{count} observations, {len(rollout)} rollouts, {len(step)} steps: at most {rows} of each"
            )
        if not np.isfinite(obs).all():
            raise InputError(f"observation of rollout {rollout[np.argmin(np.isfinite(obs).all(1))]} is not finite")
        padded = np.zeros((rows, size), np.float32)
        padded[:count] = obs
        keys = np.zeros((2, rows), np.uint32)
        keys[:, :count] = rollout, step
        return np.asarray(batched(params, padded, *keys))[:count]

    return act
