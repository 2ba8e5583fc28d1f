"""Flow-matching policy over action chunks (Lipman et al. 2022, 2210.02747; pi0, 2410.24164), in Eq. 5's convention.

y_tau = tau*y + (1-tau)*eps, eps ~ N(0,I), tau ~ U[0,1];  loss = |v(y_tau, tau, obs, cond) - (y - eps)|^2
sampling: y_0 = eps, `steps` Euler steps of 1/steps to tau = 1
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from agents.policies import network
from agents.policies.base import Batch, Params, PolicyConfig, Spec, chunk_mean
from wvm_rl.errors import InputError

FREQUENCIES = 16  # of the embedding of tau: geometric from 1 to 100 radians


@dataclass
class FlowConfig(PolicyConfig):
    """Flow matching over action chunks: fits several ways of doing a thing (default)."""

    steps: int = 10  # Euler steps of a sample

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f"policy.steps={self.steps} must be at least 1: 10 is the default")

    @property
    def guides(self) -> bool:
        return True

    def init(self, rng: Any, spec: Spec) -> Params:
        """Parameters for `spec`."""
        chunk = self.horizon * spec.action
        inputs = chunk + 2 * FREQUENCIES + spec.obs
        return network.init(rng, inputs, spec.cond, chunk, self.width, self.layers)

    def loss(self, params: Params, batch: Batch, rng: Any) -> Any:
        """Squared velocity error [B] of each sample, mean over the chunk's valid steps and action dimensions."""
        eps_rng, tau_rng = jax.random.split(rng)
        y, count = batch.actions, len(batch.obs)
        eps = jax.random.normal(eps_rng, y.shape)
        tau = jax.random.uniform(tau_rng, (count, 1))
        noised = tau[..., None] * y + (1 - tau[..., None]) * eps
        cond = network.conditioning(params, batch.cond, count, batch.known)
        return chunk_mean((self._velocity(params, noised, tau, batch.obs, cond) - (y - eps)) ** 2, batch.valid)

    def sample(self, params: Params, obs: Any, rng: Any, cond: Any = None, guidance: float = 1.0) -> Any:
        """Normalised actions [B,H,A].

        Args:
            cond: [B,C], or None for an unconditioned policy.
            guidance: classifier-free guidance v0 + guidance * (v - v0), v0 the velocity without condition; 1 is none.
                Needs a policy trained with dropped conditions.
        """
        count, outputs = len(obs), params["outer"]["bias"].shape[0]
        known, unknown = network.conditioning(params, cond, count), network.conditioning(params, None, count)

        def euler(y: Any, step: Any) -> tuple[Any, None]:
            tau = jnp.full((count, 1), step / self.steps)
            velocity = self._velocity(params, y, tau, obs, known)
            if cond is not None and not (isinstance(guidance, float) and guidance == 1.0):  # may be traced
                without = self._velocity(params, y, tau, obs, unknown)
                velocity = without + guidance * (velocity - without)
            return y + velocity / self.steps, None

        eps = jax.random.normal(rng, (count, self.horizon, outputs // self.horizon))
        return jax.lax.scan(euler, eps, jnp.arange(self.steps, dtype=jnp.float32))[0]

    def _velocity(self, params: Params, y: Any, tau: Any, obs: Any, cond: Any) -> Any:
        angle = tau * jnp.geomspace(1.0, 100.0, FREQUENCIES)
        inputs = [y.reshape(len(y), -1), jnp.sin(angle), jnp.cos(angle), obs, cond]
        return network.apply(params, jnp.concatenate(inputs, -1)).reshape(y.shape)
