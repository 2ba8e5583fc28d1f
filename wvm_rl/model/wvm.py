"""The World Value Model: video and value streams coupled by one joint attention per layer (PAPER section 2).

The asymmetric mask needs no mask. Current video tokens attend to nobody else, so their stream runs first and
leaves keys and values of every layer; future video tokens attend to those and their own; value tokens to those
and their own:

    query \\ key   current  future  value
    current          x
    future           x        x
    value            x                x

Hence neither the future nor the values can touch the current stream, and at inference the future is not computed.
Values are mapped from [0,1] to [-1,1] inside, to the scale of the noise.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wvm_rl.errors import InputError
from wvm_rl.model import flow
from wvm_rl.model.layers import Array
from wvm_rl.model.presets import CHUNK, TinyConfig
from wvm_rl.model.text import ByteText, tokenize
from wvm_rl.model.value_dit import ValueTransformer
from wvm_rl.model.wan import rope
from wvm_rl.model.wan.transformer import KeyValue, WanTransformer
from wvm_rl.model.weights import Graph, Params

CURRENT, FUTURE = 0.0, 1.0  # temporal positions of the two latents; only their difference matters


class Streams(nnx.Module):
    """Video stream, value stream and instruction encoder."""

    def __init__(self, config: TinyConfig, *, rngs: nnx.Rngs):
        self.video = WanTransformer(config.transformer, rngs=rngs)
        self.value = ValueTransformer(config.value, config.transformer, CHUNK, rngs=rngs)
        self.text = ByteText(config.text, config.transformer.text_dim, rngs=rngs)
        self.cells = (config.latent[0] // self.video.patch[0], config.latent[1] // self.video.patch[1])
        self.head_dim = config.transformer.attention_head_dim

    def _video_rope(self, frame: float) -> rope.Rope:
        return rope.table(rope.grid([frame], *self.cells), self.head_dim)

    def _value_rope(self) -> rope.Rope:
        """Value token j sits at its frame's place within the current latent, time (j - 1.5) / 4, mid-image."""
        time = CURRENT + (np.arange(CHUNK) - (CHUNK - 1) / 2) / CHUNK
        middle = [np.full(CHUNK, (side - 1) / 2) for side in self.cells]
        return rope.table(np.stack([time, *middle], -1), self.head_dim)

    def context(self, current: Array, text: Array) -> KeyValue:
        """Clean current latent [B,1,h,w,z] and text [B,L,D] -> keys and values of every layer."""
        clean = jnp.zeros((current.shape[0], 1))  # tau = 1 is Wan's timestep 0
        return self.video(current, clean, text, self._video_rope(CURRENT))[1]

    def future_velocity(self, noisy: Array, tau: Array, text: Array, context: KeyValue) -> Array:
        """Noised future latent [B,1,h,w,z] at tau [B,1] -> its velocity."""

        def forward(y: Array, timestep: Array) -> Array:
            return self.video(y, timestep, text, self._video_rope(FUTURE), context)[0]

        return flow.through_wan(forward, noisy, tau)

    def value_velocity(self, noisy: Array, tau: Array, text: Array, context: KeyValue) -> Array:
        """Noised value tokens [B,h] in [-1,1] at tau [B,h] -> their velocity."""

        def forward(y: Array, timestep: Array) -> Array:
            return self.value(y, timestep, text, self._value_rope(), context)

        return flow.through_wan(forward, noisy, tau)


@dataclass
class LossConfig:
    """Training objective of the World Value Model."""

    video: float = 1.0  # lambda, weight of the video loss (Eq. 7)
    random_prefix: float = 0.5  # p, share of samples whose prefix is replaced by U[0,1] (section 3)
    shift: float = 5.0  # Wan's timestep shift for both streams' tau; 1 is uniform, more favours noise

    def __post_init__(self) -> None:
        if not 0 <= self.video < float("inf"):
            raise InputError(f"loss.video={self.video} must be finite and not negative")
        if not 0 <= self.random_prefix <= 1:
            raise InputError(f"loss.random_prefix={self.random_prefix} must lie in [0, 1]")
        if not 0 < self.shift < float("inf"):
            raise InputError(f"loss.shift={self.shift} must be positive")


class WorldValueModel:
    """Pure functions of (params, inputs) over the streams' graph, ready for `jax.jit`."""

    def __init__(self, config: TinyConfig):
        self.config = config
        self.graph = Graph(lambda rngs: Streams(config, rngs=rngs))

    def tokenize(self, instruction: str) -> np.ndarray:
        """What the instruction encoder reads of one instruction."""
        return tokenize(instruction, self.config.text.max_bytes)

    def loss(self, params: Params, batch: dict[str, Array], rng: Array, config: LossConfig) -> tuple[Array, dict]:
        """L_value + lambda * L_video (Eq. 6, 7) of one batch.

        Args:
            params: of `Streams`.
            batch: current, future [B,h,w,z] normalised latents; value [B,4] in [0,1]; text [N,...] table of
                tokenised instructions; instruction [B] row of that table.
            rng: key; the loss is a pure function of it.
            config: weights.

        Returns:
            Scalar loss and its parts.
        """
        streams: Streams = self.graph.merge(params)
        current = batch["current"].astype(jnp.float32)[:, None]
        future = batch["future"].astype(jnp.float32)[:, None]
        value = 2.0 * batch["value"].astype(jnp.float32) - 1.0
        size = value.shape[0]
        keys = jax.random.split(rng, 6)
        text = streams.text(batch["text"])[batch["instruction"]]
        context = streams.context(current, text)

        # Value: the first token is given clean, as at inference, or replaced at random.
        noise = jax.random.normal(keys[0], value.shape)
        drawn = flow.draw_tau(keys[1], (size, 1), config.shift)
        tau = jnp.broadcast_to(drawn, value.shape).at[:, 0].set(1.0)
        replaced = jax.random.bernoulli(keys[2], config.random_prefix, (size,))
        prefix = jnp.where(replaced, jax.random.uniform(keys[3], (size,), minval=-1.0), value[:, 0])
        noisy = flow.noised(value, noise, tau).at[:, 0].set(prefix)
        error = streams.value_velocity(noisy, tau, text, context) - flow.velocity(value, noise)
        value_loss = jnp.square(error[:, 1:]).mean()
        if config.video == 0.0:
            return value_loss, {"loss": value_loss, "value": value_loss}

        # Video: the future latent with its own tau.
        noise = jax.random.normal(keys[4], future.shape)
        tau = flow.draw_tau(keys[5], (size, 1), config.shift)
        error = streams.future_velocity(flow.noised(future, noise, tau), tau, text, context)
        video_loss = jnp.square(error - flow.velocity(future, noise)).mean()
        loss = value_loss + config.video * video_loss
        return loss, {"loss": loss, "value": value_loss, "video": video_loss}

    def values(self, params: Params, context: KeyValue, prefix: Array, text: Array, steps: int = 1) -> Array:
        """Value chunks [B,4] in [0,1] by Euler steps from eps = 0, given prefix [B] in [0,1] as first token."""
        streams: Streams = self.graph.merge(params)
        clean = 2.0 * prefix[:, None] - 1.0
        fixed = jnp.arange(CHUNK) == 0

        def field(y: Array, tau: Array) -> Array:
            times = jnp.broadcast_to(jnp.where(fixed, 1.0, tau), y.shape)
            return jnp.where(fixed, 0.0, streams.value_velocity(y, times, text, context))

        start = jnp.where(fixed, clean, jnp.zeros((prefix.shape[0], CHUNK)))
        return jnp.clip((flow.euler(field, start, steps) + 1.0) / 2.0, 0.0, 1.0)

    def predict(self, params: Params, current: Array, prefix: Array, tokens: Array) -> Array:
        """Normalised current latents [B,h,w,z], prefix [B], tokenised instructions [B,...] -> values [B,4]."""
        streams: Streams = self.graph.merge(params)
        text = streams.text(tokens)
        return self.values(params, streams.context(current[:, None], text), prefix, text)
