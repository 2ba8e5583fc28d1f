"""What the parity of our Wan2.2 with diffusers is tested on: sizes, inputs and weights, made alike on both sides.

Weights are drawn from a generator seeded by each published tensor's name, so no weights need to be stored.
"""

import zlib
from typing import Any

import numpy as np

_WAN = {"in_channels": 4, "out_channels": 4, "patch_size": [1, 2, 2], "text_dim": 16, "freq_dim": 16, "eps": 1e-6}
# name -> (config, latents [B,T,H,W], text tokens, timesteps: one a "sample", a "frame" or a "token")
TRANSFORMERS: dict[str, tuple[dict[str, Any], tuple[int, int, int, int], int, str]] = {
    "one_latent": (
        _WAN | {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64},
        (2, 1, 4, 6),
        5,
        "sample",
    ),
    "per_token": (
        _WAN | {"num_layers": 3, "num_attention_heads": 3, "attention_head_dim": 16, "ffn_dim": 96},
        (2, 2, 6, 4),
        7,
        "token",
    ),
    "per_frame": (
        _WAN | {"num_layers": 1, "num_attention_heads": 4, "attention_head_dim": 12, "ffn_dim": 40},
        (1, 5, 4, 4),
        3,
        "frame",
    ),
}
_VAE = {"z_dim": 4, "temperal_downsample": [False, True, True], "patch_size": 2}
# name -> (config, video [B,T,H,W])
VAES: dict[str, tuple[dict[str, Any], tuple[int, int, int, int]]] = {
    f"frames_{frames}": (
        _VAE | {"base_dim": 8, "decoder_base_dim": 12, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2},
        (1, frames, 32, 48),
    )
    for frames in (1, 5, 9, 17)
} | {
    "other_sizes": (
        {"z_dim": 6, "base_dim": 12, "decoder_base_dim": 8, "dim_mult": [1, 2, 2], "num_res_blocks": 1}
        | {"temperal_downsample": [True, True], "patch_size": 2},
        (2, 9, 24, 16),
    )
}
GRADIENTS = (  # parameters whose gradients are compared, published names
    "patch_embedding.weight",
    "condition_embedder.time_embedder.linear_1.weight",
    "blocks.0.attn1.norm_q.weight",
    "blocks.0.attn2.to_k.weight",
    "blocks.0.ffn.net.0.proj.bias",
    "blocks.0.scale_shift_table",
    "proj_out.weight",
)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of a published name, f32: activations stay of order 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    draw = rng.standard_normal(shape)
    if name.endswith("gamma") or (".norm" in name and name.endswith("weight")):
        return (1 + 0.2 * draw).astype(np.float32)
    if name.endswith("bias") or "scale_shift_table" in name:
        return (0.2 * draw).astype(np.float32)
    return (draw / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def draw(name: str, *shape: int) -> np.ndarray:
    """An input of a case, f32 of order 1."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def transformer_inputs(name: str) -> dict[str, np.ndarray]:
    """latents [B,T,H,W,C], text [B,L,D], timestep [B], [B,T] or [B,S], and a cotangent of the output."""
    config, (batch, frames, height, width), length, kind = TRANSFORMERS[name]
    groups = {"sample": 1, "frame": frames, "token": frames * height * width // 4}[kind]
    timestep = 1000 * np.random.default_rng(len(name)).random((batch, groups)).astype(np.float32)
    return {
        "latents": draw(f"{name}/latents", batch, frames, height, width, config["in_channels"]),
        "text": draw(f"{name}/text", batch, length, config["text_dim"]),
        "timestep": timestep[:, 0] if kind == "sample" else timestep,
        "cotangent": draw(f"{name}/cotangent", batch, frames, height, width, config["out_channels"]),
    }


def vae_inputs(name: str) -> dict[str, np.ndarray]:
    """video [B,T,H,W,3] in [-1,1] and latents [B,t,h,w,z]."""
    config, (batch, frames, height, width) = VAES[name]
    space = config["patch_size"] * 2 ** len(config["temperal_downsample"])
    latent = (batch, 1 + (frames - 1) // 4, height // space, width // space, config["z_dim"])
    return {
        "video": np.tanh(draw(f"{name}/video", batch, frames, height, width, 3)),
        "latents": draw(f"{name}/latents", *latent),
    }


def statistics(channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the latents."""
    return [0.1 * channel - 0.2 for channel in range(channels)], [0.5 + 0.25 * channel for channel in range(channels)]
