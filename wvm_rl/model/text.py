"""Instructions as text tokens: umT5's, precomputed, or a small encoder of bytes that is trained along.

The configuration of an encoder turns an instruction into an array, `tokenize`, and builds the module, `encoder`,
that turns a stack of those, [N,...], into text tokens [N,L,text_dim]. Instructions are few and repeat, so a batch
carries a table of them and an index a sample.
"""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from flax import nnx
from safetensors import SafetensorError, safe_open

from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array, Linear, layer_norm


class TextConfig(Protocol):
    """What every encoder's configuration offers."""

    dtype: ClassVar[type]  # of one instruction's array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one instruction's array."""

    @property
    def origin(self) -> str:
        """What tokens depend on beside this configuration; empty: on nothing."""

    def tokenize(self, instruction: str) -> np.ndarray:
        """What the encoder reads of one instruction, `dtype` of `shape`."""

    def encoder(self, text_dim: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """The module: stacked `tokenize` [N,...] -> [N,L,text_dim]."""


@dataclass
class ByteTextConfig:
    """Sizes of the byte-level instruction encoder."""

    max_bytes: int = 64  # of an instruction
    width: int = 64
    tokens: int = 8  # text tokens an instruction becomes
    dtype: ClassVar[type] = np.int32

    def __post_init__(self) -> None:
        for name in ("max_bytes", "width", "tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"text.{name}={getattr(self, name)} must be at least 1")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.max_bytes,)

    @property
    def origin(self) -> str:
        return ""

    def tokenize(self, instruction: str) -> np.ndarray:
        """UTF-8 bytes plus one, zero-padded: [max_bytes] i32.

        Raises:
            InputError: the instruction is longer.
        """
        data = instruction.encode()
        if len(data) > self.max_bytes:
            raise InputError(
                f"instruction `{instruction}` has {len(data)} bytes, this model reads {self.max_bytes}: shorten "
                "it, or train one with wvm.text.max_bytes=128 or data.text=false"
            )
        return np.array([byte + 1 for byte in data] + [0] * (self.max_bytes - len(data)), np.int32)

    def encoder(self, text_dim: int, *, rngs: nnx.Rngs) -> "ByteText":
        return ByteText(self, text_dim, rngs=rngs)


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


def default_cache() -> str:
    """File of precomputed embeddings in the user's cache."""
    return str(platformdirs.user_cache_path("wvm_rl") / "umt5.safetensors")


def origin_of(path: Path) -> dict[str, str]:
    """What computed a file's embeddings: encoder and dtype.

    Raises:
        InputError: the file is damaged, or does not say.
    """
    try:
        with safe_open(path, "numpy") as file:
            found = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}): remove it") from error
    if found.keys() != {"encoder", "dtype"}:
        raise InputError(f"{path} does not say what computed its embeddings: remove it, run `python -m wvm_rl.embed`")
    return found


@dataclass
class Umt5TextConfig:
    """Text tokens of Wan's own encoder, umT5-xxl, from a file that `python -m wvm_rl.embed` writes.

    The file holds one array [n,width] an instruction, without padding.
    """

    file: str = field(default_factory=default_cache)
    tokens: int = 64  # read of an instruction; the zeros Wan pads with follow (see TransformerConfig.text_length)
    width: int = 4096
    dtype: ClassVar[type] = np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tokens + 1, self.width)

    def __post_init__(self) -> None:
        if min(self.tokens, self.width) < 1:
            raise InputError(f"tokens={self.tokens} and width={self.width} of the text must be at least 1")

    @property
    def origin(self) -> str:
        """The encoder that the file's embeddings come from, and its type.

        Raises:
            InputError: no such file, or not one of `python -m wvm_rl.embed`.
        """
        path = Path(self.file).expanduser()
        if not path.exists():
            raise InputError(f"{path}: no precomputed text embeddings: run `python -m wvm_rl.embed file={path}`")
        return json.dumps(origin_of(path), sort_keys=True)

    def tokenize(self, instruction: str) -> np.ndarray:
        """Embeddings and the zeros behind them, [tokens+1,width] f32.

        Raises:
            InputError: no such file, or it lacks the instruction, or the instruction is longer.
        """
        path = Path(self.file).expanduser()
        wanted = shlex.quote(f"instructions=[{json.dumps(instruction)}]")
        remedy = f"run `python -m wvm_rl.embed file={path} {wanted}`"
        if not path.exists():
            raise InputError(f"{path}: no precomputed text embeddings: {remedy}")
        try:
            with safe_open(path, "numpy") as file:
                if instruction not in file.keys():  # noqa: SIM118, not a dict
                    raise InputError(f"{path} has no embedding of `{instruction}`: {remedy}")
                found = file.get_tensor(instruction)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a whole safetensors file ({error}): {remedy} anew") from error
        if found.ndim != 2 or found.shape[1] != self.width or found.dtype != np.float32:
            raise InputError(
                f"{path}: `{instruction}` is {found.dtype}{list(found.shape)}, expected float32[n, {self.width}]: "
                f"{remedy} anew"
            )
        if len(found) > self.tokens:
            raise InputError(
                f"instruction `{instruction}` has {len(found)} tokens, this model reads {self.tokens}: shorten it"
            )
        return np.pad(found, ((0, self.tokens + 1 - len(found)), (0, 0)))

    def encoder(self, text_dim: int, *, rngs: nnx.Rngs) -> "GivenText":
        if text_dim != self.width:
            raise InputError(f"text.width={self.width} must equal transformer.text_dim={text_dim}")
        return GivenText()


class GivenText(nnx.Module):
    """Tokens that are embeddings already."""

    def __call__(self, tokens: Array) -> Array:
        """[N,L,text_dim] as they are."""
        return tokens
