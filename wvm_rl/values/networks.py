"""Small networks that read progress off one frame, a video so far, or the simulator's state."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from wvm_rl.model.layers import Array, LayerNorm, Linear

CHANNELS = (24, 48, 64, 96)  # after each halving of the picture
HIDDEN = 128
HEADS, BLOCKS = 4, 2  # of the one that reads videos


class Pictures(nnx.Module):
    """Frames [N,S,S,3] u8 -> features [N,HIDDEN]."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        widths = [3, *CHANNELS]
        self.convolutions = nnx.List(
            nnx.Conv(a, b, (3, 3), strides=2, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
            for a, b in pairwise(widths)
        )
        side = -(-size // 2 ** len(CHANNELS))
        self.out = Linear(side * side * CHANNELS[-1], HIDDEN, rngs=rngs)

    def __call__(self, frames: Array) -> Array:
        x = frames.astype(jnp.float32) / 127.5 - 1
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return self.out(x.reshape(len(x), -1))


class FrameNet(nnx.Module):
    """One frame and the instruction -> progress."""

    def __init__(self, size: int, instructions: int, *, rngs: nnx.Rngs):
        self.pictures = Pictures(size, rngs=rngs)
        self.instruction = nnx.Param(0.1 * jax.random.normal(rngs.params(), (instructions, HIDDEN)))
        self.out = Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, frames: Array, instruction: Array) -> Array:
        """Frames [N,S,S,3] u8 and rows [N] -> progress [N] in (0,1)."""
        x = jax.nn.relu(self.pictures(frames) + self.instruction[instruction])
        return jax.nn.sigmoid(self.out(x)[:, 0])


class VideoNet(nnx.Module):
    """The video so far, as ReWiND reads it (arXiv 2505.10911, section 3.2): causal attention over frames' features.

    Only the first frame carries its place, so that time cannot be read off the number of frames.
    """

    def __init__(self, size: int, instructions: int, *, rngs: nnx.Rngs):
        self.pictures = Pictures(size, rngs=rngs)
        self.instruction = nnx.Param(0.1 * jax.random.normal(rngs.params(), (instructions, HIDDEN)))
        self.first = nnx.Param(0.1 * jax.random.normal(rngs.params(), (HIDDEN,)))
        self.blocks = nnx.List(_Block(rngs=rngs) for _ in range(BLOCKS))
        self.norm = LayerNorm(HIDDEN, eps=1e-6, rngs=rngs)
        self.out = Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, frames: Array, instruction: Array) -> Array:
        """Frames [N,C,S,S,3] u8 and rows [N] -> progress [N,C] in (0,1) at every frame."""
        features = self.pictures(frames.reshape(-1, *frames.shape[2:])).reshape(*frames.shape[:2], HIDDEN)
        return self.over(features, instruction)

    def over(self, features: Array, instruction: Array) -> Array:
        """The same from the frames' features [N,C,HIDDEN]."""
        x = features.at[:, 0].add(self.first[...]) + self.instruction[instruction][:, None]
        for block in self.blocks:
            x = block(x)
        return jax.nn.sigmoid(self.out(self.norm(x))[..., 0])


class _Block(nnx.Module):
    """Causal self-attention and a hidden layer, both after a norm and added."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.norms = nnx.List(LayerNorm(HIDDEN, eps=1e-6, rngs=rngs) for _ in range(2))
        self.mix, self.mixed = Linear(HIDDEN, 3 * HIDDEN, rngs=rngs), Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.widen, self.narrow = Linear(HIDDEN, 2 * HIDDEN, rngs=rngs), Linear(2 * HIDDEN, HIDDEN, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        parts = self.mix(self.norms[0](x)).reshape(*x.shape[:2], 3, HEADS, HIDDEN // HEADS)
        mixed = jax.nn.dot_product_attention(*(parts[:, :, number] for number in range(3)), is_causal=True)
        x = x + self.mixed(mixed.reshape(x.shape))
        return x + self.narrow(jax.nn.gelu(self.widen(self.norms[1](x))))


class StateNet(nnx.Module):
    """State and phase -> progress."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        widths = [inputs, 256, 256, 1]
        self.layers = nnx.List(Linear(a, b, rngs=rngs) for a, b in pairwise(widths))

    def __call__(self, state: Array) -> Array:
        """[N,inputs] -> [N] in (0,1)."""
        for layer in list(self.layers)[:-1]:
            state = jax.nn.gelu(layer(state))
        return jax.nn.sigmoid(self.layers[-1](state)[:, 0])
