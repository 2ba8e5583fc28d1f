"""Small layers that every module of the model shares: linear maps and the two norms."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array


def xavier(key: Array, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """Uniform draw within +-sqrt(6 / (fan_in + fan_out)), f32."""
    limit = (6.0 / (fan_in + fan_out)) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


class Linear(nnx.Module):
    """Affine map of the last axis; `dtype` is that of the matmul's inputs only, sums and output are f32.

    On CPUs with AMX, bf16 inputs are faster than f32 ones, but everything else in bf16 is slower. `rank` > 0 adds
    the low-rank update x A B (LoRA, arXiv 2106.09685, with scale 1), which starts at zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rngs: nnx.Rngs,
        zero: bool = False,
        dtype: Any = None,
        rank: int = 0,
    ):
        kernel = jnp.zeros((inputs, outputs)) if zero else xavier(rngs.params(), (inputs, outputs), inputs, outputs)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.lora_a = nnx.Param(xavier(rngs.params(), (inputs, rank), inputs, rank)) if rank else None
        self.lora_b = nnx.Param(jnp.zeros((rank, outputs))) if rank else None
        self.dtype = dtype or jnp.float32

    def __call__(self, x: Array) -> Array:
        """[..., inputs] -> [..., outputs]."""
        # Two axes only: XLA's CPU backend makes the gradient of a batched dot 2-3x slower.
        flat = x.reshape(-1, x.shape[-1])
        y = self._dot(flat, self.kernel[...])
        if self.lora_a is not None and self.lora_b is not None:
            y = y + self._dot(self._dot(flat, self.lora_a[...]), self.lora_b[...])
        return y.reshape(*x.shape[:-1], -1) + self.bias[...]

    def _dot(self, x: Array, kernel: Array) -> Array:
        return jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.float32)


def layer_norm(x: Array, eps: float) -> Array:
    """Zero mean and unit variance over the last axis, in f32, without an affine map."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)


class LayerNorm(nnx.Module):
    """Layer norm with a learned scale and shift."""

    def __init__(self, width: int, *, eps: float, rngs: nnx.Rngs):
        self.scale, self.bias, self.eps = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width)), eps

    def __call__(self, x: Array) -> Array:
        return layer_norm(x, self.eps) * self.scale[...] + self.bias[...]


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in f32."""

    def __init__(self, width: int, *, eps: float, rngs: nnx.Rngs):
        self.scale, self.eps = nnx.Param(jnp.ones(width)), eps

    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps) * self.scale[...]
