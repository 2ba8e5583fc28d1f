"""What the value stream's outputs mean: heads of one interface, chosen by `wvm.value.head`.

A head sees the value stream as a function `network(tokens [B,h], tau [B,h]) -> [B,h,outputs]`, where the first token
of a chunk is given: the prefix, clean (tau = 1). Values are in [-1,1] here, the scale of the noise.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from wvm_rl.model import flow
from wvm_rl.model.layers import Array

Network = Callable[[Array, Array], Array]


class ValueHead(Protocol):
    """Loss and reading of a value chunk."""

    outputs: int  # of a value token
    drawn: bool  # whether it gives a distribution to draw from, or one value

    def loss(self, network: Network, value: Array, prefix: Array, key: Array, shift: float) -> Array:
        """Loss [B,h-1] of the tokens after the prefix.

        Args:
            network: the value stream.
            value: [B,h] targets; the first is not read.
            prefix: [B] first token.
            key: of the noise.
            shift: Wan's timestep shift.
        """

    def values(self, network: Network, prefix: Array, chunk: int, steps: int, noise: Array | None = None) -> Array:
        """Values [B,h] from prefix [B]: the head's best ones, or a draw by noise [B,h], which is standard normal.

        Where there is something to integrate, `steps` of it.
        """


class Flow:
    """Flow matching of the chunk (Eq. 5, 6), read by Euler steps from eps = 0, the mode of the noise."""

    outputs, drawn = 1, True

    def loss(self, network: Network, value: Array, prefix: Array, key: Array, shift: float) -> Array:
        noise_key, tau_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, value.shape)
        tau = jnp.broadcast_to(flow.draw_tau(tau_key, (len(value), 1), shift), value.shape).at[:, 0].set(1.0)
        noisy = flow.noised(value, noise, tau).at[:, 0].set(prefix)
        return jnp.square(network(noisy, tau)[..., 0] - flow.velocity(value, noise))[:, 1:]

    def values(self, network: Network, prefix: Array, chunk: int, steps: int, noise: Array | None = None) -> Array:
        given = jnp.arange(chunk) == 0
        blank = _blank(prefix, chunk)

        def field(y: Array, tau: Array) -> Array:
            return jnp.where(given, 0.0, network(y, jnp.where(given, 1.0, tau) * jnp.ones_like(y))[..., 0])

        return flow.euler(field, blank if noise is None else jnp.where(given, blank, noise), steps)


class Regression:
    """The values themselves, by mean square error."""

    outputs, drawn = 1, False

    def loss(self, network: Network, value: Array, prefix: Array, key: Array, shift: float) -> Array:
        return jnp.square(_read(network, prefix, value.shape[1])[..., 0] - value)[:, 1:]

    def values(self, network: Network, prefix: Array, chunk: int, steps: int, noise: Array | None = None) -> Array:
        return _read(network, prefix, chunk)[..., 0].at[:, 0].set(prefix)


class HLGaussian:
    """A histogram of 51 bins trained on a Gaussian around the value, read as its mean (PAPER section 3).

    A draw is the centre of a bin, each token's by itself: a histogram tells nothing of what they have in common.
    """

    outputs, drawn = 51, True

    def __init__(self) -> None:
        self.centres = np.linspace(-1.0, 1.0, self.outputs, dtype=np.float32)

    def target(self, value: Array) -> Array:
        """Soft target [...,K] of values in [-1,1]: sigma is a bin; at the ends, within 1e-6 of [0,1], a one-hot."""
        sigma = 2.0 / (self.outputs - 1)
        value = jnp.clip(value, -1.0, 1.0)[..., None]
        soft = jax.nn.softmax(-0.5 * jnp.square((self.centres - value) / sigma), axis=-1)
        hard = jax.nn.one_hot(jnp.where(value[..., 0] > 0, self.outputs - 1, 0), self.outputs)
        return jnp.where(jnp.abs(value) >= 1.0 - 2e-6, hard, soft)

    def loss(self, network: Network, value: Array, prefix: Array, key: Array, shift: float) -> Array:
        log = jax.nn.log_softmax(_read(network, prefix, value.shape[1]), axis=-1)
        return -(self.target(value) * log).sum(-1)[:, 1:]

    def values(self, network: Network, prefix: Array, chunk: int, steps: int, noise: Array | None = None) -> Array:
        weights = jax.nn.softmax(_read(network, prefix, chunk), axis=-1)
        if noise is None:
            found = weights @ self.centres
        else:  # the bin in which the cumulated histogram passes the noise's quantile
            passed = jnp.cumsum(weights, -1) < jax.scipy.stats.norm.cdf(noise)[..., None]
            found = jnp.asarray(self.centres)[jnp.minimum(passed.sum(-1), self.outputs - 1)]
        return found.at[:, 0].set(prefix)


HEADS: dict[str, type[ValueHead]] = {"flow": Flow, "hl_gaussian": HLGaussian, "regression": Regression}


def _blank(prefix: Array, chunk: int) -> Array:
    """The chunk before anything is known of it: eps = 0 behind the prefix."""
    return jnp.zeros((len(prefix), chunk)).at[:, 0].set(prefix)


def _read(network: Network, prefix: Array, chunk: int) -> Array:
    """Outputs of the blank chunk, at tau = 0."""
    tokens = _blank(prefix, chunk)
    return network(tokens, jnp.zeros_like(tokens).at[:, 0].set(1.0))
