"""Wan2.2 in JAX: the video transformer and the causal video VAE, from and to their published weights."""

from wvm_rl.model.wan.load import load_transformer, load_vae, save_transformer, save_vae
from wvm_rl.model.wan.pretrained import Transformer, VideoVae

__all__ = ["Transformer", "VideoVae", "load_transformer", "load_vae", "save_transformer", "save_vae"]
