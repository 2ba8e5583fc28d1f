"""What a policy is: a configuration with pure functions over a pytree of parameters.

All arrays are normalised (`agents.chunks.Statistics`); `agents.acting` turns observations and actions to and from raw
units. Functions are stateless and take everything as arguments, so seeds, weights and methods batch under `jax.vmap`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

from wvm_rl.errors import InputError

Params = Any  # pytree of f32 arrays


class Spec(NamedTuple):
    """Sizes of a policy's inputs and outputs: observation O, action A, condition C (0: none), number of cameras."""

    obs: int
    action: int
    cond: int = 0
    cameras: int = 0


class Batch(NamedTuple):
    """A batch of samples, all f32.

    obs [B,O] (`agents.chunks.Seen` for a policy that sees pictures), actions [B,H,A], valid [B,H] (0 past the episode's
    end), cond [B,C] or None, and known [B], 0 where the condition is hidden; None: it is known everywhere.
    """

    obs: Any
    actions: Any
    valid: Any
    cond: Any = None
    known: Any = None


@dataclass
class PolicyConfig:
    """A chunked policy: predicts `horizon` actions, of which `execute` are carried out (receding horizon).

    Subclasses implement
        init(rng, spec) -> params, a dictionary; with a condition (spec.cond > 0) it holds `cond` [C], the stand-in for
            one that is unknown, as `agents.policies.network` makes it
        loss(params, batch, rng) -> [B], per sample, before reduction
        sample(params, obs [B,O], rng, cond [B,C] | None, guidance) -> actions [B,H,A]
    """

    horizon: int = 20  # H, actions a chunk, control steps; 20 at 20 Hz is the paper's 1 s (H = 10 at 10 fps)
    execute: int = 10  # actions carried out before the next chunk is sampled, control steps
    width: int = 256  # hidden units a layer; per CPU second as good as 512 on held-out loss, and half the time to act
    layers: int = 3  # residual blocks

    def __post_init__(self) -> None:
        for name in ("horizon", "execute", "width", "layers"):
            if getattr(self, name) < 1:
                raise InputError(f"policy.{name}={getattr(self, name)} must be at least 1")
        if self.execute > self.horizon:
            raise InputError(
                f"policy.execute={self.execute} exceeds policy.horizon={self.horizon}: a chunk has only horizon actions"
            )

    @property
    def guides(self) -> bool:
        """Whether `sample` knows a guidance other than 1."""
        return False

    def init(self, rng: Any, spec: Spec) -> Params:
        raise NotImplementedError

    def loss(self, params: Params, batch: Batch, rng: Any) -> Any:
        raise NotImplementedError

    def sample(self, params: Params, obs: Any, rng: Any, cond: Any = None, guidance: float = 1.0) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Constant:
    """A configuration as a key: equal numbers share one compiled program."""

    config: Any

    def __hash__(self) -> int:
        return hash(repr(self.config))


def chunk_mean(error: Any, valid: Any) -> Any:
    """Mean of `error` [B,H,A] over the action dimensions and the valid steps of each chunk, [B]."""
    return jnp.sum(error.mean(-1) * valid, -1) / jnp.sum(valid, -1)


def weighted_mean(weight: Any, loss: Any) -> Any:
    """Loss of a batch from those of its samples [B] f32, Eq. E.5: sum(w*l) / (sum(w) + 1e-6).

    Raises:
        InputError: a loss of another shape, which would be weighed wrongly or not at all.
    """
    if jnp.shape(loss) != jnp.shape(weight):
        raise InputError(
            f"the policy's loss has shape {jnp.shape(loss)}: must be {jnp.shape(weight)}, one number a sample"
        )
    return jnp.sum(weight * loss) / (jnp.sum(weight) + 1e-6)
