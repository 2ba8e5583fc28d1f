"""A policy that also sees pictures: a small convolutional encoder before any policy, trained with it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from agents.chunks import Seen
from agents.policies.base import Batch, Params, PolicyConfig, Spec

CHANNELS, KERNELS, STRIDES = (32, 48, 64), (4, 3, 3), (4, 2, 1)  # of the encoder's layers
SHIFT = 1 / 16  # of the side: largest random translation of a picture in training (Kostrikov et al. 2020, 2004.13649)


@dataclass
class Seeing:
    """`policy` with, beside the observation, where each channel of the encoder looks: spatial softmax (1504.00702).

    Every camera has its own encoder. The functions are those of `PolicyConfig`, on `agents.chunks.Seen` observations.
    """

    policy: PolicyConfig

    @property
    def horizon(self) -> int:
        return self.policy.horizon

    @property
    def execute(self) -> int:
        return self.policy.execute

    def init(self, rng: Any, spec: Spec) -> Params:
        """Parameters for `spec`."""
        own, inner = jax.random.split(rng)
        encoders = jax.vmap(_encoder)(jax.random.split(own, spec.cameras))
        inputs = spec._replace(obs=spec.obs + 2 * CHANNELS[-1] * spec.cameras, cameras=0)
        return {**self.policy.init(inner, inputs), "encoders": encoders}

    def loss(self, params: Params, batch: Batch, rng: Any) -> Any:
        """Loss [B] of the policy on pictures that are shifted at random."""
        rng, shift = jax.random.split(rng)
        shown = batch.obs._replace(pictures=shifted(shift, batch.obs.pictures))
        return self.policy.loss(params, batch._replace(obs=encoded(params, shown)), rng)

    def sample(self, params: Params, obs: Any, rng: Any, cond: Any = None, guidance: float = 1.0) -> Any:
        """Normalised actions [B,H,A]."""
        return self.policy.sample(params, encoded(params, obs), rng, cond, guidance)


def encoded(params: Params, obs: Seen) -> Any:
    """Observations with features in the place of pictures, [B, O + 2 * channels * cameras]."""
    pictures = obs.pictures.astype(jnp.float32) / 127.5 - 1
    features = [
        _features(jax.tree.map(lambda leaf, camera=camera: leaf[camera], params["encoders"]), pictures[:, camera])
        for camera in range(pictures.shape[1])
    ]
    return jnp.concatenate([obs.state, *features], -1)


def shifted(rng: Any, pictures: Any) -> Any:
    """Each of [B,C,S,S,3] moved by a random whole number of pixels, alike on all cameras; the border repeats."""
    side = pictures.shape[-2]
    reach = round(SHIFT * side)
    moves = jax.random.randint(rng, (len(pictures), 2), -reach, reach + 1)
    places = jnp.clip(jnp.arange(side) + moves[..., None], 0, side - 1)  # [B,2,S]
    return jax.vmap(lambda shown, place: shown[:, place[0]][:, :, place[1]])(pictures, places)


def _encoder(rng: Any) -> Params:
    layers, inputs = [], 3
    for key, outputs, size in zip(jax.random.split(rng, len(CHANNELS)), CHANNELS, KERNELS):
        kernel = jax.random.normal(key, (size, size, inputs, outputs)) * jnp.sqrt(2 / (size * size * inputs))
        layers.append({"kernel": kernel, "bias": jnp.zeros(outputs)})
        inputs = outputs
    return {"layers": layers, "sharpness": jnp.ones(())}


def convolved(x: Any, kernel: Any, stride: int) -> Any:
    """Convolution of [B,S,S,C], S a multiple of `stride`, with [K,K,C,O], padded to [B,S/stride,S/stride,O].

    One product of gathered patches: in a training loop on a CPU, XLA's gradient of its own strided convolution takes
    many times as long.
    """
    size, side = len(kernel), x.shape[1]
    before = (size - stride) // 2
    x = jnp.pad(x, ((0, 0), (before, size - stride - before), (before, size - stride - before), (0, 0)))
    shifts = [(row, column) for row in range(size) for column in range(size)]
    patches = [x[:, row : row + side : stride, column : column + side : stride] for row, column in shifts]
    return jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[-1])


def _features(params: Params, x: Any) -> Any:
    """[B,S,S,3] -> [B, 2 * channels]: mean place, across and down in [-1,1], of each channel's softmax."""
    for number, (layer, stride) in enumerate(zip(params["layers"], STRIDES)):
        x = jax.nn.relu(x) if number else x
        x = convolved(x, layer["kernel"], stride) + layer["bias"]
    count, side, _, channels = x.shape
    weight = jax.nn.softmax(params["sharpness"] * x.reshape(count, side * side, channels), 1)
    weight = weight.reshape(count, side, side, channels)
    line = jnp.linspace(-1.0, 1.0, side)
    across, down = jnp.einsum("bhwc,w->bc", weight, line), jnp.einsum("bhwc,h->bc", weight, line)
    return jnp.concatenate([across, down], -1)
