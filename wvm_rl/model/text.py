"""Instructions as text tokens: a small trainable encoder of bytes, for presets without a language model.

An encoder has `tokenize(instruction) -> array` (numpy, once an instruction) and is called with a stack of
those, [N,...] -> [N,L,text_dim]. Instructions are few and repeat, so a batch carries a table of them and an
index a sample.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array, Linear, layer_norm


@dataclass
class ByteTextConfig:
    """Sizes of the byte-level instruction encoder."""

    max_bytes: int = 64  # of an instruction
    width: int = 64
    tokens: int = 8  # text tokens an instruction becomes


def tokenize(instruction: str, max_bytes: int) -> np.ndarray:
    """UTF-8 bytes plus one, zero-padded: [max_bytes] i32.

    Raises:
        InputError: the instruction is longer.
    """
    data = instruction.encode()
    if len(data) > max_bytes:
        raise InputError(f"instruction `{instruction}` has {len(data)} bytes, this model reads {max_bytes}: shorten it")
    return np.array([byte + 1 for byte in data] + [0] * (max_bytes - len(data)), np.int32)


class ByteText(nnx.Module):
    """Byte and place embeddings, a window of three bytes, and learned queries that attend to them."""

    def __init__(self, config: ByteTextConfig, text_dim: int, *, rngs: nnx.Rngs):
        width, key = config.width, rngs.params
        self.bytes = nnx.Param(jax.random.normal(key(), (257, width)) * 0.5)
        self.place = nnx.Param(jax.random.normal(key(), (config.max_bytes, width)) * 0.5)
        self.mix = Linear(3 * width, width, rngs=rngs)
        self.queries = nnx.Param(jax.random.normal(key(), (config.tokens, width)))
        self.key_value = Linear(width, 2 * width, rngs=rngs)
        self.out = Linear(width, text_dim, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """Byte codes [N,max_bytes] i32 (0 is padding) -> [N,L,text_dim]."""
        x = self.bytes[tokens] + self.place[...]
        around = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        x = x + jax.nn.gelu(self.mix(jnp.concatenate([around[:, :-2], x, around[:, 2:]], -1)))
        key, value = jnp.split(self.key_value(layer_norm(x, 1e-6)), 2, -1)
        logits = jnp.einsum("qd,nbd->nqb", self.queries[...], key) * key.shape[-1] ** -0.5
        logits = jnp.where((tokens > 0)[:, None], logits, -1e9)
        mixed = jnp.einsum("nqb,nbd->nqd", jax.nn.softmax(logits, axis=-1), value)
        return self.out(mixed + self.queries[...])
