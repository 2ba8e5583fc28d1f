"""Wan's rotary positions over (time, height, width), interleaved pairs, theta 1e4."""

import jax.numpy as jnp
import numpy as np

from wvm_rl.model.layers import Array

Rope = tuple[np.ndarray, np.ndarray]  # cosine and sine, each [S, head_dim/2] f32


def grid(frames: list[float], height: int, width: int) -> np.ndarray:
    """Positions (time, row, column) of the patches of some latents, [len(frames)*height*width, 3] f64."""
    axes = np.meshgrid(np.asarray(frames, np.float64), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes], -1)


def table(positions: np.ndarray, head_dim: int, theta: float = 1e4) -> Rope:
    """Cosine and sine of every position's angles, computed in f64.

    Of `head_dim` dimensions height and width take 2*(head_dim//6) each and time the rest (44, 42, 42 of 128).
    """
    space = 2 * (head_dim // 6)
    angles = []
    for axis, dims in enumerate((head_dim - 2 * space, space, space)):
        frequencies = theta ** -(np.arange(0, dims, 2, dtype=np.float64) / dims)
        angles.append(np.outer(positions[:, axis], frequencies))
    angle = np.concatenate(angles, 1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: Array, rope: Rope) -> Array:
    """Rotates the pairs (2i, 2i+1) of every head: [B,S,heads,head_dim] by a table of S positions."""
    cosine, sine = rope[0][:, None], rope[1][:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).reshape(x.shape)
