"""Wan2.2's causal video VAE: 1 + 4k frames become 1 + k latents.

One straight causal pass over the whole clip equals the reference's loop over chunks of 1, 4, 4, ... frames with
a two-frame cache: the first frame skips the temporal convolutions of the resampling layers, everything else
pads time with zeros at the front. Arrays are [B,T,H,W,C]. XLA's 3D convolutions are slow on CPU, so a causal
3D convolution stacks its time taps along the channels and runs one 2D convolution (2-3x faster).
"""

import itertools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array

_IMAGE = ("NHWC", "HWIO", "NHWC")


@dataclass
class VaeConfig:
    """Sizes of the causal video VAE; names are those of Wan's published configuration."""

    base_dim: int = 160  # channels of the encoder's first level
    decoder_base_dim: int = 256  # channels of the decoder's last level
    z_dim: int = 48  # latent channels
    dim_mult: list[int] = field(default_factory=lambda: [1, 2, 4, 4])  # channels of each level, in base dims
    num_res_blocks: int = 2  # residual blocks a level (one more in the decoder)
    temperal_downsample: list[bool] = field(default_factory=lambda: [False, True, True])  # spelt as Wan spells it
    patch_size: int = 2  # pixels folded into channels before the first convolution

    def __post_init__(self) -> None:
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise InputError(
                f"temperal_downsample={self.temperal_downsample} needs one entry fewer than dim_mult={self.dim_mult}"
            )
        if min(self.base_dim, self.decoder_base_dim, self.z_dim, self.num_res_blocks, self.patch_size) < 1:
            raise InputError("every size of the VAE must be at least 1")
        if min(self.dim_mult, default=0) < 1:
            raise InputError(f"dim_mult={self.dim_mult} must hold numbers of at least 1")
        # Shortcuts average whole groups of channels on the way down, and repeat channels wholly on the way up.
        folds = [4 * (1 + temporal) for temporal in self.temperal_downsample]
        down = zip(itertools.pairwise([1, *self.dim_mult]), [*folds, 1])
        up = zip(itertools.pairwise([self.dim_mult[-1], *self.dim_mult[::-1]]), folds[::-1])
        if any(a * fold % b for (a, b), fold in down) or any(b * fold % a for (a, b), fold in up):
            raise InputError(
                f"dim_mult={self.dim_mult}: widths of neighbouring levels must divide each other, up to the factor 4 "
                "(8 with time) by which a level shrinks, and the last level may not widen: as in [1, 4, 4]"
            )

    @property
    def spatial_factor(self) -> int:
        """Pixels a latent cell covers along each side."""
        return self.patch_size * 2 ** len(self.temperal_downsample)

    @property
    def temporal_factor(self) -> int:
        """Frames a latent covers, the first one excepted."""
        return 2 ** sum(self.temperal_downsample)


# Layers


def conv2d(x: Array, kernel: Array, stride: int = 1, padding: tuple[tuple[int, int], ...] | None = None) -> Array:
    """2D convolution of every frame: [B,T,H,W,I] with [kh,kw,I,O]; pads to keep the size unless told otherwise."""
    batch, frames, height, width, channels = x.shape
    padding = padding or tuple((size // 2, size // 2) for size in kernel.shape[:2])
    flat = x.reshape(batch * frames, height, width, channels)
    y = jax.lax.conv_general_dilated(flat, kernel, (stride, stride), padding, dimension_numbers=_IMAGE)
    return y.reshape(batch, frames, *y.shape[1:])


def _uniform(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> Array:
    """PyTorch's default for convolutions: uniform within +-1/sqrt(fan_in)."""
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -(fan_in**-0.5), fan_in**-0.5)


class Conv2d(nnx.Module):
    """Per-frame 2D convolution with bias; kernel [size,size,I,O]."""

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs):
        fan_in = inputs * size * size
        self.kernel = nnx.Param(_uniform(rngs, (size, size, inputs, outputs), fan_in))
        self.bias = nnx.Param(_uniform(rngs, (outputs,), fan_in))

    def __call__(self, x: Array, stride: int = 1, padding: tuple[tuple[int, int], ...] | None = None) -> Array:
        if self.kernel.shape[:2] == (1, 1):
            return jnp.dot(x, self.kernel[0, 0]) + self.bias[...]
        return conv2d(x, self.kernel[...], stride, padding) + self.bias[...]


class CausalConv3d(nnx.Module):
    """3D convolution that sees this frame and earlier ones, zeros before the first; kernel [kt,kh,kw,I,O]."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int, int], *, rngs: nnx.Rngs):
        fan_in = inputs * size[0] * size[1] * size[2]
        self.kernel = nnx.Param(_uniform(rngs, (*size, inputs, outputs), fan_in))
        self.bias = nnx.Param(_uniform(rngs, (outputs,), fan_in))

    def __call__(self, x: Array) -> Array:
        taps, frames = self.kernel.shape[0], x.shape[1]
        padded = jnp.pad(x, ((0, 0), (taps - 1, 0), (0, 0), (0, 0), (0, 0)))
        return self.taps([padded[:, tap : tap + frames] for tap in range(taps)])

    def taps(self, frames: list[Array]) -> Array:
        """Output for the given input of each time tap, oldest first: the caller decides padding and stride."""
        taps, height, width, inputs, outputs = self.kernel.shape
        stacked = jnp.concatenate(frames, -1) if taps > 1 else frames[0]
        kernel = jnp.moveaxis(self.kernel[...], 0, 2).reshape(height, width, taps * inputs, outputs)
        if height == width == 1:
            return jnp.dot(stacked, kernel[0, 0]) + self.bias[...]
        return conv2d(stacked, kernel) + self.bias[...]


class Norm(nnx.Module):
    """x / ||x||_2 * sqrt(C) * gamma over the channels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.gamma = nnx.Param(jnp.ones(channels))

    def __call__(self, x: Array) -> Array:
        # The square root's gradient is infinite at 0: bound the square, as the reference bounds the norm (1e-12).
        square = jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24)
        return x * jax.lax.rsqrt(square) * (x.shape[-1] ** 0.5) * self.gamma[...]


class ResidualBlock(nnx.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the input (through a 1x1x1 convolution where widths differ)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.norm1 = Norm(inputs, rngs=rngs)
        self.conv1 = CausalConv3d(inputs, outputs, (3, 3, 3), rngs=rngs)
        self.norm2 = Norm(outputs, rngs=rngs)
        self.conv2 = CausalConv3d(outputs, outputs, (3, 3, 3), rngs=rngs)
        self.conv_shortcut = CausalConv3d(inputs, outputs, (1, 1, 1), rngs=rngs) if inputs != outputs else None

    def __call__(self, x: Array) -> Array:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class FrameAttention(nnx.Module):
    """Single-head attention among the positions of one frame, added to the input."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.norm = Norm(channels, rngs=rngs)
        self.to_qkv = Conv2d(channels, 3 * channels, 1, rngs=rngs)
        self.proj = Conv2d(channels, channels, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, frames, height, width, channels = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(batch * frames, height * width, 3, channels)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        weights = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", query, key) * channels**-0.5, axis=-1)
        return x + self.proj(jnp.einsum("bqk,bkc->bqc", weights, value).reshape(x.shape))


class MidBlock(nnx.Module):
    """Residual block, attention, residual block at the coarsest level."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.resnets = nnx.List([ResidualBlock(channels, channels, rngs=rngs) for _ in range(2)])
        self.attention = FrameAttention(channels, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.resnets[1](self.attention(self.resnets[0](x)))


# Resampling


def average_down(x: Array, outputs: int, time: int, space: int) -> Array:
    """Shortcut of a down block: folds time and space into channels and averages groups of them (no parameters)."""
    batch, frames, height, width, channels = x.shape
    pad = -frames % time  # at the front, so that the first frame stays alone
    x = jnp.pad(x, ((0, 0), (pad, 0), (0, 0), (0, 0), (0, 0)))
    x = x.reshape(batch, (frames + pad) // time, time, height // space, space, width // space, space, channels)
    x = x.transpose(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(*x.shape[:4], outputs, -1).mean(-1)


def duplicate_up(x: Array, outputs: int, time: int, space: int) -> Array:
    """Shortcut of an up block: repeats channels into time and space; the first latent yields one frame only."""
    batch, frames, height, width, channels = x.shape
    x = jnp.repeat(x, outputs * time * space * space // channels, axis=-1)
    x = x.reshape(batch, frames, height, width, outputs, time, space, space)
    x = x.transpose(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, frames * time, height * space, width * space, outputs)
    return x[:, time - 1 :]


class Downsample(nnx.Module):
    """Halves height and width, and time after the first frame when `temporal`."""

    def __init__(self, channels: int, temporal: bool, *, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, 3, rngs=rngs)
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1), rngs=rngs) if temporal else None

    def __call__(self, x: Array) -> Array:
        x = self.conv(x, stride=2, padding=((0, 1), (0, 1)))
        if self.time_conv is None or x.shape[1] == 1:
            return x
        later = self.time_conv.taps([x[:, :-2:2], x[:, 1:-1:2], x[:, 2::2]])
        return jnp.concatenate([x[:, :1], later], 1)


class Upsample(nnx.Module):
    """Doubles height and width, and time after the first frame when `temporal`."""

    def __init__(self, channels: int, temporal: bool, *, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, 3, rngs=rngs)
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1), rngs=rngs) if temporal else None

    def __call__(self, x: Array) -> Array:
        if self.time_conv is not None and x.shape[1] > 1:
            # Starts from zeros after the first frame, which it neither changes nor sees.
            pair = self.time_conv(x[:, 1:])
            batch, frames, height, width, channels = pair.shape
            pair = pair.reshape(batch, frames, height, width, 2, channels // 2).transpose(0, 1, 4, 2, 3, 5)
            pair = pair.reshape(batch, 2 * frames, height, width, channels // 2)
            x = jnp.concatenate([x[:, :1], pair], 1)
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3))


class DownBlock(nnx.Module):
    """Residual blocks and an optional downsampling, with the averaged input added."""

    def __init__(self, inputs: int, outputs: int, blocks: int, temporal: bool, down: bool, *, rngs: nnx.Rngs):
        widths = [inputs] + [outputs] * blocks
        self.resnets = nnx.List([ResidualBlock(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)])
        self.downsampler = Downsample(outputs, temporal, rngs=rngs) if down else None
        self.outputs, self.time, self.space = outputs, 1 + temporal, 1 + down

    def __call__(self, x: Array) -> Array:
        shortcut = average_down(x, self.outputs, self.time, self.space)
        for block in self.resnets:
            x = block(x)
        return (x if self.downsampler is None else self.downsampler(x)) + shortcut


class UpBlock(nnx.Module):
    """Residual blocks and an optional upsampling, with the duplicated input added."""

    def __init__(self, inputs: int, outputs: int, blocks: int, temporal: bool, up: bool, *, rngs: nnx.Rngs):
        widths = [inputs] + [outputs] * (blocks + 1)
        self.resnets = nnx.List([ResidualBlock(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)])
        self.upsampler = Upsample(outputs, temporal, rngs=rngs) if up else None
        self.outputs, self.time = outputs, 1 + temporal

    def __call__(self, x: Array) -> Array:
        y = x
        for block in self.resnets:
            y = block(y)
        if self.upsampler is None:
            return y
        return self.upsampler(y) + duplicate_up(x, self.outputs, self.time, 2)


# Encoder, decoder


def patchify(video: Array, patch: int) -> Array:
    """[B,T,H,W,C] -> [B,T,H/p,W/p,C*p*p] with Wan's channel order (c, column, row)."""
    batch, frames, height, width, channels = video.shape
    x = video.reshape(batch, frames, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 2, 4, 6, 5, 3).reshape(batch, frames, height // patch, width // patch, -1)


def unpatchify(x: Array, patch: int) -> Array:
    """Inverse of `patchify`."""
    batch, frames, height, width, channels = x.shape
    x = x.reshape(batch, frames, height, width, channels // patch**2, patch, patch)
    return x.transpose(0, 1, 2, 6, 3, 5, 4).reshape(batch, frames, height * patch, width * patch, -1)


class Encoder(nnx.Module):
    """Patchified video [B,1+4k,h,w,c] -> moments [B,1+k,h',w',2z]."""

    def __init__(self, config: VaeConfig, *, rngs: nnx.Rngs):
        widths = [config.base_dim * factor for factor in [1, *config.dim_mult]]
        temporal = [*config.temperal_downsample, False]
        self.conv_in = CausalConv3d(3 * config.patch_size**2, widths[0], (3, 3, 3), rngs=rngs)
        self.down_blocks = nnx.List(
            [
                DownBlock(a, b, config.num_res_blocks, temporal[level], level < len(temporal) - 1, rngs=rngs)
                for level, (a, b) in enumerate(itertools.pairwise(widths))
            ]
        )
        self.mid_block = MidBlock(widths[-1], rngs=rngs)
        self.norm_out = Norm(widths[-1], rngs=rngs)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.z_dim, (3, 3, 3), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latents [B,1+k,h',w',z] -> patchified video [B,1+4k,h,w,c]."""

    def __init__(self, config: VaeConfig, *, rngs: nnx.Rngs):
        factors = config.dim_mult[::-1]
        widths = [config.decoder_base_dim * factor for factor in [factors[0], *factors]]
        temporal = [*config.temperal_downsample[::-1], False]
        self.conv_in = CausalConv3d(config.z_dim, widths[0], (3, 3, 3), rngs=rngs)
        self.mid_block = MidBlock(widths[0], rngs=rngs)
        self.up_blocks = nnx.List(
            [
                UpBlock(a, b, config.num_res_blocks, temporal[level], level < len(temporal) - 1, rngs=rngs)
                for level, (a, b) in enumerate(itertools.pairwise(widths))
            ]
        )
        self.norm_out = Norm(widths[-1], rngs=rngs)
        self.conv_out = CausalConv3d(widths[-1], 3 * config.patch_size**2, (3, 3, 3), rngs=rngs)

    def __call__(self, z: Array) -> Array:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class Vae(nnx.Module):
    """Encoder and decoder; latents here are not yet normalised by their mean and standard deviation."""

    def __init__(self, config: VaeConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        self.quant_conv = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1), rngs=rngs)
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1), rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.patch_size = config.patch_size

    def encode(self, video: Array) -> tuple[Array, Array]:
        """[B,1+4k,H,W,3] in [-1,1] -> posterior mean and log variance, each [B,1+k,h,w,z]."""
        moments = self.quant_conv(self.encoder(patchify(video, self.patch_size)))
        mean, logvar = jnp.split(moments, 2, -1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, z: Array) -> Array:
        """[B,1+k,h,w,z] -> video [B,1+4k,H,W,3], not clipped to [-1,1]."""
        return unpatchify(self.decoder(self.post_quant_conv(z)), self.patch_size)
