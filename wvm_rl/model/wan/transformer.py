"""Wan2.2's diffusion transformer for video, as modules that the World Value Model's streams share.

Tokens are [B,S,D] with S ordered (time, row, column). The timestep is one per group of consecutive tokens (a
latent frame, or a single token): modulation is [B,G,6,D] with S divisible by G, broadcast, never materialised
per token. A block returns the keys and values of its self-attention, and can be given those of tokens it may
also attend to (`context`): the joint attention of `wvm_rl.model.wvm` is built from that. Blocks are stacked on
a leading layer axis and run with `lax.scan`.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wvm_rl import sharding
from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array, LayerNorm, Linear, RMSNorm, layer_norm
from wvm_rl.model.wan.rope import Rope, rotate

KeyValue = tuple[Array, Array]  # keys and values of a self-attention, each [B,S,heads,head_dim]


@dataclass
class TransformerConfig:
    """The video transformer's sizes, named as Wan publishes them, and from `compute_dtype` on how it runs."""

    in_channels: int = 48  # latent channels
    out_channels: int = 48
    patch_size: list[int] = field(default_factory=lambda: [1, 2, 2])  # latents folded into a token (time, row, column)
    num_layers: int = 30
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    ffn_dim: int = 14336
    text_dim: int = 4096  # width of the text tokens given
    freq_dim: int = 256  # width of the timestep's sinusoid
    eps: float = 1e-6
    compute_dtype: str = "float32"  # inputs of matmuls: float32 | bfloat16; everything else is float32
    unroll: bool = False  # unroll the scan over layers: lets XLA drop what nobody reads, compiles slower
    remat: bool = False  # recompute a block in the backward pass instead of keeping its activations
    lora_rank: int = 0  # of low-rank updates of the blocks' linear maps, which train in their place; 0: none
    # Shorter texts stand for ones padded to this many tokens by repeats of their last one, which attention then counts
    # as often: Wan pads to 512 without a mask, and equal tokens need no computing twice. 0: texts are taken as given.
    text_length: int = 0

    def __post_init__(self) -> None:
        if len(self.patch_size) != 3 or self.patch_size[0] != 1 or min(self.patch_size) < 1:
            raise InputError(
                f"patch_size={self.patch_size}: a token covers one latent in time, give [1, rows, columns]"
            )
        sizes = ("in_channels", "out_channels", "num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim")
        for name in (*sizes, "text_dim", "freq_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise InputError(f"compute_dtype={self.compute_dtype}: choose float32 or bfloat16")
        if self.attention_head_dim % 2:
            raise InputError(f"attention_head_dim={self.attention_head_dim} must be even (rotary pairs)")
        if self.freq_dim % 2:
            raise InputError(f"freq_dim={self.freq_dim} must be even (sines and cosines)")
        if min(self.lora_rank, self.text_length) < 0:
            raise InputError(f"lora_rank={self.lora_rank} and text_length={self.text_length} must be 0 or more")

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass
class BlockSize:
    """Widths of one block: the value stream's attention may be wider than its residual stream."""

    width: int
    heads: int  # of the self-attention
    head_dim: int
    cross_heads: int
    cross_head_dim: int
    ffn: int
    eps: float
    dtype: Any
    text_length: int
    rank: int = 0  # of low-rank updates


def attend(query: Array, key: Array, value: Array, repeats: int = 1) -> Array:
    """Softmax attention, sums and weights f32, the last key counted `repeats` times.

    [B,Q,H,d] with [B,K,H,d] -> [B,Q,H*d] f32.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    if repeats > 1:
        logits = logits + np.log(np.array([1] * (key.shape[1] - 1) + [repeats], np.float32))
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value, preferred_element_type=jnp.float32)
    return mixed.reshape(*mixed.shape[:2], -1)


class Attention(nnx.Module):
    """Multi-head attention whose queries and keys are RMS-normed over all heads together."""

    def __init__(self, width: int, heads: int, head_dim: int, eps: float, dtype: Any, rank: int, *, rngs: nnx.Rngs):
        inner = heads * head_dim
        self.to_q = Linear(width, inner, rngs=rngs, dtype=dtype, rank=rank)
        self.to_k = Linear(width, inner, rngs=rngs, dtype=dtype, rank=rank)
        self.to_v = Linear(width, inner, rngs=rngs, dtype=dtype, rank=rank)
        self.to_out = Linear(inner, width, rngs=rngs, dtype=dtype, rank=rank)
        self.norm_q = RMSNorm(inner, eps=eps, rngs=rngs)
        self.norm_k = RMSNorm(inner, eps=eps, rngs=rngs)
        self.heads, self.head_dim, self.dtype = heads, head_dim, dtype

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.heads, self.head_dim)

    def query(self, x: Array, rope: Rope | None) -> Array:
        """[B,S,width] -> [B,S,heads,head_dim]."""
        query = self._split(self.norm_q(self.to_q(x)))
        return (query if rope is None else rotate(query, rope)).astype(self.dtype)

    def key_value(self, x: Array, rope: Rope | None) -> KeyValue:
        """[B,S,width] -> keys and values [B,S,heads,head_dim]."""
        key = self._split(self.norm_k(self.to_k(x)))
        key = key if rope is None else rotate(key, rope)
        return key.astype(self.dtype), self._split(self.to_v(x)).astype(self.dtype)


class Block(nnx.Module):
    """Self-attention, cross-attention to text and feed-forward, the first and last modulated by the timestep."""

    def __init__(self, size: BlockSize, *, rngs: nnx.Rngs):
        width, eps, dtype, rank = size.width, size.eps, size.dtype, size.rank
        self.attn1 = Attention(width, size.heads, size.head_dim, eps, dtype, rank, rngs=rngs)
        self.norm2 = LayerNorm(width, eps=eps, rngs=rngs)
        self.attn2 = Attention(width, size.cross_heads, size.cross_head_dim, eps, dtype, rank, rngs=rngs)
        self.ffn_in = Linear(width, size.ffn, rngs=rngs, dtype=dtype, rank=rank)
        self.ffn_out = Linear(size.ffn, width, rngs=rngs, dtype=dtype, rank=rank)
        self.scale_shift_table = nnx.Param(jax.random.normal(rngs.params(), (6, width)) * width**-0.5)
        self.eps, self.text_length = eps, size.text_length

    def __call__(
        self, x: Array, modulation: Array, text: Array, rope: Rope, context: KeyValue | None
    ) -> tuple[Array, KeyValue]:
        """Tokens [B,S,D], modulation [B,G,6,D], text [B,L,D] -> tokens and their keys and values."""
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation + self.scale_shift_table[...], 6, axis=2)

        own = modulate(x, shift1, scale1, self.eps)
        key_value = self.attn1.key_value(own, rope)
        key, value = key_value
        if context is not None:
            key, value = jnp.concatenate([context[0], key], 1), jnp.concatenate([context[1], value], 1)
        x = gated(x, self.attn1.to_out(attend(self.attn1.query(own, rope), key, value)), gate1)

        query = self.attn2.query(self.norm2(x), None)
        repeats = max(1, self.text_length - text.shape[1] + 1)
        x = x + self.attn2.to_out(attend(query, *self.attn2.key_value(text, None), repeats))

        hidden = jax.nn.gelu(self.ffn_in(modulate(x, shift2, scale2, self.eps)), approximate=True)
        return gated(x, self.ffn_out(hidden), gate2), key_value


def modulate(x: Array, shift: Array, scale: Array, eps: float) -> Array:
    """LN(x) * (1 + scale) + shift with [B,S,D] and [B,G,1,D], in f32."""
    grouped = layer_norm(x, eps).reshape(x.shape[0], shift.shape[1], -1, x.shape[-1])
    return (grouped * (1 + scale) + shift).reshape(x.shape)


def gated(x: Array, update: Array, gate: Array) -> Array:
    """x + update * gate with [B,S,D] and [B,G,1,D], in f32."""
    grouped = update.reshape(x.shape[0], gate.shape[1], -1, x.shape[-1])
    return x + (grouped * gate).reshape(x.shape)


class Stack(nnx.Module):
    """Blocks of one stream, their parameters stacked on a leading layer axis."""

    def __init__(self, layers: int, size: BlockSize, unroll: bool, remat: bool, *, rngs: nnx.Rngs):
        make = nnx.vmap(lambda rngs: Block(size, rngs=rngs), in_axes=0, out_axes=0)
        self.blocks = make(rngs.split(layers))
        self.unroll, self.remat = unroll, remat

    def __call__(
        self, x: Array, modulation: Array, text: Array, rope: Rope, context: KeyValue | None
    ) -> tuple[Array, KeyValue]:
        """Runs every layer; `context` and the returned keys and values are [layers,B,S,heads,head_dim]."""
        graphdef, params = nnx.split(self.blocks)

        def layer(x: Array, inputs: tuple[Any, KeyValue | None]) -> tuple[Array, KeyValue]:
            block = nnx.merge(graphdef, sharding.gathered(inputs[0]))
            return block(sharding.over_batch(x), modulation, text, rope, inputs[1])

        step = jax.checkpoint(layer, prevent_cse=self.unroll) if self.remat else layer  # a loop needs no barriers
        return jax.lax.scan(step, x, (params, context), unroll=self.unroll)


class Conditioner(nnx.Module):
    """Embeds timestep and text for one stream."""

    def __init__(self, width: int, freq_dim: int, text_dim: int, dtype: Any, *, rngs: nnx.Rngs):
        self.time_in = Linear(freq_dim, width, rngs=rngs)  # f32, as modulation is
        self.time_out = Linear(width, width, rngs=rngs)
        self.time_proj = Linear(width, 6 * width, rngs=rngs)
        self.text_in = Linear(text_dim, width, rngs=rngs, dtype=dtype)
        self.text_out = Linear(width, width, rngs=rngs, dtype=dtype)
        for layer in (self.time_in, self.time_out):
            layer.kernel[...] = 0.02 * jax.random.normal(rngs.params(), layer.kernel.shape)
        self.freq_dim = freq_dim

    def time(self, timestep: Array) -> tuple[Array, Array]:
        """Timestep [B,G] in [0,1000] -> embedding [B,G,D] and modulation [B,G,6,D]."""
        embedding = self.time_out(jax.nn.silu(self.time_in(sinusoid(timestep, self.freq_dim))))
        modulation = self.time_proj(jax.nn.silu(embedding))
        modulation = modulation.reshape(*embedding.shape[:2], 6, -1)
        return sharding.over_batch(embedding), sharding.over_batch(modulation)

    def text(self, tokens: Array) -> Array:
        """[B,L,text_dim] -> [B,L,D]."""
        return sharding.over_batch(self.text_out(jax.nn.gelu(self.text_in(tokens), approximate=True)))


def sinusoid(timestep: Array, dims: int) -> Array:
    """[...] -> [..., dims], cosine half first."""
    frequencies = jnp.exp(-math.log(1e4) * jnp.arange(dims // 2, dtype=jnp.float32) / (dims // 2))
    angle = timestep[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


class Head(nnx.Module):
    """Modulated norm and the projection of tokens to the stream's outputs, which starts at zero."""

    def __init__(self, width: int, outputs: int, eps: float, *, rngs: nnx.Rngs):
        self.scale_shift_table = nnx.Param(jax.random.normal(rngs.params(), (2, width)) * width**-0.5)
        self.proj_out = Linear(width, outputs, rngs=rngs, zero=True)
        self.eps = eps

    def __call__(self, x: Array, embedding: Array) -> Array:
        """Tokens [B,S,D] and timestep embedding [B,G,D] -> [B,S,outputs]."""
        shift, scale = jnp.split(embedding[:, :, None] + self.scale_shift_table[...], 2, axis=2)
        return self.proj_out(modulate(x, shift, scale, self.eps))


class WanTransformer(nnx.Module):
    """The video stream: latents, timestep per latent frame (or per token) and text in; velocity out."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        dtype, width = jnp.dtype(config.compute_dtype), config.width
        heads, head_dim = config.num_attention_heads, config.attention_head_dim
        cell = config.patch_size[1] * config.patch_size[2]
        self.patch_embedding = Linear(config.in_channels * cell, width, rngs=rngs, dtype=dtype)
        self.conditioner = Conditioner(width, config.freq_dim, config.text_dim, dtype, rngs=rngs)
        size = BlockSize(
            width=width,
            heads=heads,
            head_dim=head_dim,
            cross_heads=heads,
            cross_head_dim=head_dim,
            ffn=config.ffn_dim,
            eps=config.eps,
            dtype=dtype,
            text_length=config.text_length,
            rank=config.lora_rank,
        )
        self.stack = Stack(config.num_layers, size, config.unroll, config.remat, rngs=rngs)
        self.head = Head(width, config.out_channels * cell, config.eps, rngs=rngs)
        self.patch = (config.patch_size[1], config.patch_size[2])

    def __call__(
        self, latents: Array, timestep: Array, text: Array, rope: Rope, context: KeyValue | None = None
    ) -> tuple[Array, KeyValue]:
        """Wan's own convention: timestep 1000 is noise, 0 is data; the output estimates noise - data.

        Args:
            latents: [B,T,H,W,C].
            timestep: [B,G], G = T or the number of tokens.
            text: [B,L,text_dim].
            rope: table of the S = T*(H/2)*(W/2) tokens' positions.
            context: keys and values of further tokens to attend to, [layers,B,S',heads,head_dim].

        Returns:
            [B,T,H,W,C] and the keys and values of these tokens.
        """
        batch, frames, height, width, _ = latents.shape
        rows, columns = self.patch
        x = latents.reshape(batch, frames, height // rows, rows, width // columns, columns, -1)
        x = x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, frames * (height // rows) * (width // columns), -1)
        embedding, modulation = self.conditioner.time(timestep)
        x, key_value = self.stack(self.patch_embedding(x), modulation, self.conditioner.text(text), rope, context)
        y = self.head(x, embedding)
        y = y.reshape(batch, frames, height // rows, width // columns, rows, columns, -1)
        return y.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, frames, height, width, -1), key_value
