"""Pixels to normalised latents: the VAE with the statistics measured after its training, frozen then."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array
from wvm_rl.model.presets import ModelConfig
from wvm_rl.model.wan.vae import Vae
from wvm_rl.model.weights import Params, graph_of

GROUP = 16  # clips encoded at once: more spill out of the cache on CPUs (a third of the speed at 128)


@dataclass
class LatentStatistics:
    """Mean and standard deviation of each latent channel, [z]."""

    mean: list[float]
    std: list[float]

    @classmethod
    def measured(cls, latents: np.ndarray) -> "LatentStatistics":
        """Of latents [N,k,h,w,z]."""
        flat = latents.astype(np.float64)
        mean, std = flat.mean((0, 1, 2, 3)), flat.std((0, 1, 2, 3))
        return cls(mean.tolist(), np.maximum(std, 1e-6).tolist())


class Codec:
    """Pure functions over the VAE's graph."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self.graph = graph_of(Vae, config.vae)

    def encode(self, params: Params, frames: Array, statistics: LatentStatistics) -> Array:
        """u8 frames [B,1+4k,H,W,3] -> normalised posterior means [B,1+k,h,w,z]."""
        mean, _ = self.graph.merge(params).encode(to_unit(frames))
        return (mean - jnp.asarray(statistics.mean)) / jnp.asarray(statistics.std)

    def encode_many(self, params: Params, frames: Array, statistics: LatentStatistics) -> Array:
        """As `encode` for a batch that is a multiple of `GROUP`, a group at a time."""
        groups = frames.reshape(-1, GROUP, *frames.shape[1:])
        latents = jax.lax.map(lambda group: self.encode(params, group, statistics), groups)
        return latents.reshape(-1, *latents.shape[2:])


def to_unit(frames: Array) -> Array:
    """u8 [0,255] -> f32 [-1,1]."""
    return frames.astype(jnp.float32) / 127.5 - 1.0


def fit_size(frames: np.ndarray, size: int) -> np.ndarray:
    """Shrinks square frames [...,S,S,3] u8 to [...,size,size,3] by averaging blocks; S must be a multiple of `size`.

    Raises:
        InputError: other shapes.
    """
    height, width, channels = frames.shape[-3:]
    if (height, width) == (size, size) and channels == 3:
        return frames
    if channels != 3 or height != width or height % size:
        raise InputError(
            f"frames of {height}x{width}x{channels} do not fit the critic's {size}x{size}x3: "
            f"render them with size={size} or a multiple of it"
        )
    block = height // size
    split = frames.reshape(*frames.shape[:-3], size, block, size, block, 3).astype(np.float32)
    return np.round(split.mean((-4, -2))).astype(np.uint8)
