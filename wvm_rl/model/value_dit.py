"""The value stream: a transformer of the video stream's depth over the h tokens of a value chunk (PAPER section 2)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from wvm_rl.errors import InputError
from wvm_rl.model.heads import HEADS
from wvm_rl.model.layers import Array, Linear
from wvm_rl.model.wan.rope import Rope
from wvm_rl.model.wan.transformer import BlockSize, Conditioner, Head, KeyValue, Stack, TransformerConfig


@dataclass
class ValueStreamConfig:
    """Sizes of the value stream; depth and joint self-attention are the video stream's."""

    width: int = 512
    cross_heads: int = 8  # heads of the attention to text
    cross_head_dim: int = 64
    ffn_dim: int = 14336
    head: str = "flow"  # flow | hl_gaussian | regression, see `wvm_rl.model.heads`

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise InputError(f"value.head={self.head}: choose one of {', '.join(HEADS)}")
        if min(self.width, self.cross_heads, self.cross_head_dim, self.ffn_dim) < 1:
            raise InputError("every size of the value stream must be at least 1")


class ValueTransformer(nnx.Module):
    """Value tokens, their timesteps, text and the current video tokens' keys and values in; what the head reads out.

    Queries, keys and values of the joint self-attention are projected from the stream's width to the video
    width and back, so a value token attends to value tokens and clean video tokens alike. A learned vector a
    place tells the tokens of a chunk apart, as they all start from the same noise (0) at inference.
    """

    def __init__(self, config: ValueStreamConfig, video: TransformerConfig, chunk: int, *, rngs: nnx.Rngs):
        dtype, width = jnp.dtype(video.compute_dtype), config.width
        self.embedding = Linear(1, width, rngs=rngs)
        self.place = nnx.Param(jax.random.normal(rngs.params(), (chunk, width)) * 0.5)
        self.conditioner = Conditioner(width, video.freq_dim, video.text_dim, dtype, rngs=rngs)
        size = BlockSize(
            width=width,
            heads=video.num_attention_heads,
            head_dim=video.attention_head_dim,
            cross_heads=config.cross_heads,
            cross_head_dim=config.cross_head_dim,
            ffn=config.ffn_dim,
            eps=video.eps,
            dtype=dtype,
            text_length=video.text_length,
        )
        self.stack = Stack(video.num_layers, size, video.unroll, video.remat, rngs=rngs)
        self.head = Head(width, HEADS[config.head].outputs, video.eps, rngs=rngs)

    def __call__(self, values: Array, timestep: Array, text: Array, rope: Rope, context: KeyValue) -> Array:
        """[B,h] noised values, [B,h] timesteps (Wan's: 1000 noise, 0 data), text [B,L,text_dim] -> [B,h,outputs]."""
        embedding, modulation = self.conditioner.time(timestep)
        x = self.embedding(values[..., None]) + self.place[...]
        x, _ = self.stack(x, modulation, self.conditioner.text(text), rope, context)
        return self.head(x, embedding)
