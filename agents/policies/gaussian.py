"""Gaussian policy over action chunks: independent normals with learned mean and deviation, negative log-likelihood."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.policies import network
from agents.policies.base import Batch, Params, PolicyConfig, Spec, chunk_mean
from wvm_rl.errors import InputError

MAX_STD = 2.0  # largest deviation, in standard deviations of the dataset's actions


@dataclass
class GaussianConfig(PolicyConfig):
    """Diagonal Gaussian over action chunks: one way of doing a thing, cheap to sample."""

    min_std: float = 0.1  # smallest deviation, in standard deviations of the dataset's actions: keeps the loss bounded
    temperature: float = 0.0  # deviation when acting, as a share of the learned one; 0 takes the mean, 1 samples

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_std < MAX_STD:
            raise InputError(f"policy.min_std={self.min_std} must be above 0 and below {MAX_STD}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"policy.temperature={self.temperature} must be 0 or more: 0 takes the mean, 1 samples")

    def init(self, rng: Any, spec: Spec) -> Params:
        """Parameters for `spec`."""
        outputs = 2 * self.horizon * spec.action
        return network.init(rng, spec.obs, spec.cond, outputs, self.width, self.layers)

    def loss(self, params: Params, batch: Batch, rng: Any) -> Any:
        """Negative log-likelihood [B], mean over the chunk's valid steps and action dimensions."""
        mean, log_std = self._moments(params, batch.obs, batch.cond, batch.known)
        error = 0.5 * ((batch.actions - mean) / jnp.exp(log_std)) ** 2 + log_std + 0.5 * jnp.log(2 * jnp.pi)
        return chunk_mean(error, batch.valid)

    def sample(self, params: Params, obs: Any, rng: Any, cond: Any = None, guidance: float = 1.0) -> Any:
        """Normalised actions [B,H,A]; guidance has no meaning for a Gaussian and must be 1."""
        if guidance != 1.0:
            raise InputError(f"guidance={guidance} needs policy=flow: the gaussian policy has no velocity to guide")
        mean, log_std = self._moments(params, obs, cond)
        return mean + self.temperature * jnp.exp(log_std) * jax.random.normal(rng, mean.shape)

    def _moments(self, params: Params, obs: Any, cond: Any, known: Any = None) -> tuple[Any, Any]:
        """Mean and log deviation, each [B,H,A]; the log deviation is squashed into [log min_std, log MAX_STD]."""
        inputs = jnp.concatenate([obs, network.conditioning(params, cond, len(obs), known)], -1)
        mean, raw = jnp.split(network.apply(params, inputs), 2, -1)
        low, high = np.log(self.min_std), np.log(MAX_STD)
        log_std = low + (high - low) * jax.nn.sigmoid(raw)
        shape = (len(obs), self.horizon, -1)
        return mean.reshape(shape), log_std.reshape(shape)
