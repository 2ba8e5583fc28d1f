"""The World Value Model: video and value streams coupled by one joint attention per layer (PAPER section 2).

The asymmetric mask needs no mask. Current video tokens attend to nobody else, so their stream runs first and
leaves keys and values of every layer; future video tokens attend to those and their own; value tokens to those
and their own:

    query \\ key   first  current  future  value
    first           x
    current         x       x
    future          x       x        x
    value           x       x                x

`first`, the latent of the episode's first frame standing still, is there with `first_frame` alone: what the paper's
window shows does not say where an object came from, and so not how long the way is. It sees itself only, so that its
keys and values are computed once for many windows of an episode. Hence neither the future nor the values can touch
the current stream, and at inference the future is not computed. Values are mapped from [0,1] to [-1,1] inside, to the
scale of the noise.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wvm_rl.errors import InputError
from wvm_rl.model import flow
from wvm_rl.model.heads import HEADS, Network, ValueHead
from wvm_rl.model.layers import Array
from wvm_rl.model.presets import CHUNK, ModelConfig
from wvm_rl.model.value_dit import ValueTransformer
from wvm_rl.model.wan import rope
from wvm_rl.model.wan.transformer import KeyValue, WanTransformer
from wvm_rl.model.weights import Params, graph_of

FIRST, CURRENT, FUTURE = -1.0, 0.0, 1.0  # temporal positions of the latents; only their differences matter


class Streams(nnx.Module):
    """Video stream, value stream and instruction encoder."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.video = WanTransformer(config.transformer, rngs=rngs)
        self.value = ValueTransformer(config.value, config.transformer, CHUNK, rngs=rngs)
        self.text = config.text.encoder(config.transformer.text_dim, rngs=rngs)
        self.cells = (config.latent[0] // self.video.patch[0], config.latent[1] // self.video.patch[1])
        self.head_dim = config.transformer.attention_head_dim

    def _video_rope(self, frame: float) -> rope.Rope:
        return rope.table(rope.grid([frame], *self.cells), self.head_dim)

    def _value_rope(self) -> rope.Rope:
        """Value token j sits at its frame's place within the current latent, time (j - 1.5) / 4, mid-image."""
        time = CURRENT + (np.arange(CHUNK) - (CHUNK - 1) / 2) / CHUNK
        middle = [np.full(CHUNK, (side - 1) / 2) for side in self.cells]
        return rope.table(np.stack([time, *middle], -1), self.head_dim)

    def memory(self, first: Array, text: Array) -> KeyValue:
        """Clean latent [B,1,h,w,z] of the first frame and text [B,L,D] -> keys and values of every layer."""
        return self._seen(first, text, FIRST, None)

    def context(self, current: Array, text: Array, memory: KeyValue | None = None) -> KeyValue:
        """Clean current latent [B,1,h,w,z] and text [B,L,D] -> keys and values of every layer, memory's first."""
        own = self._seen(current, text, CURRENT, memory)
        return own if memory is None else jax.tree.map(lambda *parts: jnp.concatenate(parts, 2), memory, own)

    def _seen(self, latent: Array, text: Array, time: float, context: KeyValue | None) -> KeyValue:
        clean = jnp.zeros((latent.shape[0], 1))  # tau = 1 is Wan's timestep 0
        return self.video(latent, clean, text, self._video_rope(time), context)[1]

    def future_velocity(self, noisy: Array, tau: Array, text: Array, context: KeyValue) -> Array:
        """Noised future latent [B,1,h,w,z] at tau [B,1] -> its velocity."""

        def forward(y: Array, timestep: Array) -> Array:
            return self.video(y, timestep, text, self._video_rope(FUTURE), context)[0]

        return flow.through_wan(forward, noisy, tau)

    def value_outputs(self, noisy: Array, tau: Array, text: Array, context: KeyValue) -> Array:
        """Noised values [B,h] in [-1,1] at tau [B,h] -> what the head reads, signed as velocities, [B,h,outputs]."""

        def forward(y: Array, timestep: Array) -> Array:
            return self.value(y, timestep, text, self._value_rope(), context)

        return flow.through_wan(forward, noisy, tau)


@dataclass
class LossConfig:
    """Training objective of the World Value Model."""

    video: float = 1.0  # lambda, weight of the video loss (Eq. 7)
    random_prefix: float = 0.5  # p, share of samples whose prefix is replaced by U[0,1] (section 3)
    shift: float = 5.0  # Wan's timestep shift for both streams' tau; 1 is uniform, more favours noise
    draws: int = 1  # of noise, tau and prefix for the values of a window, whose video tokens are computed once

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"loss.draws={self.draws} must be at least 1")
        if not 0 <= self.video < float("inf"):
            raise InputError(f"loss.video={self.video} must be finite and not negative")
        if not 0 <= self.random_prefix <= 1:
            raise InputError(f"loss.random_prefix={self.random_prefix} must lie in [0, 1]")
        if not 0 < self.shift < float("inf"):
            raise InputError(f"loss.shift={self.shift} must be positive")


class WorldValueModel:
    """Pure functions of (params, inputs) over the streams' graph, ready for `jax.jit`."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self.graph = graph_of(Streams, config)
        self.head: ValueHead = HEADS[config.value.head]()

    def stored(self, name: str) -> np.dtype:
        """Type in which a parameter can be kept without changing any result: that of the matmul it is cast for."""
        parts = (".blocks.", ".conditioner.text_", ".patch_embedding.")
        casts = name.endswith(".kernel") and any(part in name for part in parts)
        return np.dtype(jnp.dtype(self.config.transformer.compute_dtype) if casts else jnp.float32)

    def loss(
        self, params: Params, batch: dict[str, Array], rng: Array, config: LossConfig, value_too: bool = True
    ) -> tuple[Array, dict]:
        """L_value + lambda * L_video (Eq. 6, 7) of one batch; without the value's, L_video alone.

        Args:
            params: of `Streams`.
            batch: current, future [B,h,w,z] normalised latents; value [B,4] in [0,1]; text [N,...] table of
                tokenised instructions; instruction [B] row of that table; with `first_frame`, first [B,h,w,z].
            rng: key; the loss is a pure function of it.
            config: weights.

        Returns:
            Scalar loss and its parts.
        """
        streams: Streams = self.graph.merge(params)
        current = batch["current"].astype(jnp.float32)
        future = batch["future"].astype(jnp.float32)[:, None]
        value = 2.0 * batch["value"].astype(jnp.float32) - 1.0
        size = value.shape[0]
        keys = jax.random.split(rng, 5)
        text = streams.text(batch["text"])[batch["instruction"]]
        first = batch["first"].astype(jnp.float32) if self.config.first_frame else None
        context = self.context(streams, current, text, first)

        parts: dict[str, Array] = {}
        if value_too:  # the first token is given clean, as at inference, or replaced at random
            value, words = (jnp.repeat(x, config.draws, 0) for x in (value, text))
            seen = jax.tree.map(lambda x: jnp.repeat(x, config.draws, 1), context)
            replaced = jax.random.bernoulli(keys[0], config.random_prefix, value.shape[:1])
            prefix = jnp.where(replaced, jax.random.uniform(keys[1], value.shape[:1], minval=-1.0), value[:, 0])
            network = self._network(streams, words, seen)
            parts["value"] = self.head.loss(network, value, prefix, keys[2], config.shift).mean()
        if config.video or not value_too:  # the future latent with its own tau
            noise = jax.random.normal(keys[3], future.shape)
            tau = flow.draw_tau(keys[4], (size, 1), config.shift)
            found = streams.future_velocity(flow.noised(future, noise, tau), tau, text, context)
            parts["video"] = jnp.square(found - flow.velocity(future, noise)).mean()
        if value_too:
            loss = parts["value"] + (config.video * parts["video"] if config.video else 0.0)
        else:
            loss = parts["video"]
        return loss, {"loss": loss, **parts}

    def context(self, streams: Streams, current: Array, text: Array, first: Array | None) -> KeyValue:
        """What values and futures of W windows of each of B episodes may attend to.

        Args:
            streams: of the parameters.
            current: normalised latents [W*B,h,w,z], ordered by window, then episode.
            text: tokens [B,L,D].
            first: latents [B,h,w,z] of the episodes' first frames standing still; read with `first_frame` alone.

        Returns:
            Keys and values of every layer.
        """
        windows, rest = divmod(len(current), len(text))
        assert not rest, (current.shape, text.shape)
        memory = None
        if self.config.first_frame:
            assert first is not None, "a model with first_frame=true reads latents of first frames"
            memory = streams.memory(first[:, None], text)
        if windows > 1:
            text = jnp.tile(text, (windows, 1, 1))
            memory = jax.tree.map(lambda x: jnp.tile(x, (1, windows, 1, 1, 1)), memory)
        return streams.context(current[:, None], text, memory)

    def values(
        self,
        params: Params,
        context: KeyValue,
        prefix: Array,
        text: Array,
        steps: int = 1,
        noise: Array | None = None,
    ) -> Array:
        """Value chunks [B,4] in [0,1], given prefix [B] in [0,1] as first token.

        The flow head takes `steps` of Euler from noise [B,4] or, as the paper's one step does, from its mode; the
        histogram gives a bin drawn by noise [B,4], or its mean.
        """
        network = self._network(self.graph.merge(params), text, context)
        return jnp.clip((self.head.values(network, 2.0 * prefix - 1.0, CHUNK, steps, noise) + 1.0) / 2.0, 0.0, 1.0)

    @staticmethod
    def _network(streams: Streams, text: Array, context: KeyValue) -> Network:
        """The value stream as heads see it."""
        return lambda noisy, tau: streams.value_outputs(noisy, tau, text, context)

    def predict(
        self, params: Params, current: Array, prefix: Array, tokens: Array, first: Array | None = None
    ) -> Array:
        """Normalised current latents [B,h,w,z], prefix [B], tokenised instructions [B,...] -> values [B,4].

        With `first_frame`, `first` [B,h,w,z] is read, too.
        """
        streams: Streams = self.graph.merge(params)
        text = streams.text(tokens)
        return self.values(params, self.context(streams, current, text, first), prefix, text)
