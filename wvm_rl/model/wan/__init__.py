"""Wan2.2 in JAX: the video transformer and the causal video VAE, from and to their published weights."""

from wvm_rl.model.wan.load import (
    Transformer,
    VideoVae,
    load_transformer,
    load_vae,
    save_transformer,
    save_vae,
)

__all__ = ["Transformer", "VideoVae", "load_transformer", "load_vae", "save_transformer", "save_vae"]
