"""Wan models with their weights, ready to run."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array
from wvm_rl.model.wan import rope
from wvm_rl.model.wan.transformer import TransformerConfig, WanTransformer
from wvm_rl.model.wan.vae import Vae, VaeConfig
from wvm_rl.model.weights import Graph, Params, graph_of


@dataclass
class Transformer:
    """A Wan video transformer with its weights.

    Attributes:
        config: its sizes.
        params: its parameters by our names.
    """

    config: TransformerConfig
    params: Params

    @cached_property
    def _graph(self) -> Graph:
        return transformer_graph(self.config)

    @cached_property
    def _compiled(self) -> Any:
        return jax.jit(self.forward)

    def forward(self, params: Params, latents: Array, timestep: Array, text: Array) -> Array:
        """The pure function of parameters and inputs, to be differentiated or compiled; timestep is [B,G]."""
        rows, columns = self.config.patch_size[1:]
        _, frames, height, width, _ = latents.shape
        positions = rope.grid(list(range(frames)), height // rows, width // columns)
        table = rope.table(positions, self.config.attention_head_dim)
        return self._graph.merge(params)(latents, timestep, text, table)[0]

    def __call__(self, latents: Array, timestep: Array, text: Array) -> Array:
        """Wan's convention: timestep 1000 is noise, 0 is data; the output estimates noise - data.

        Args:
            latents: [B,T,H,W,C], normalised.
            timestep: [B], or [B,G] for G groups of consecutive tokens: latent frames, or single tokens.
            text: [B,L,D]; Wan's pipeline pads it with zeros to 512 tokens.

        Returns:
            [B,T,H,W,C] f32.

        Raises:
            InputError: latents whose sides the patch does not divide, or timesteps that do not group the tokens.
        """
        _, frames, height, width, _ = latents.shape
        rows, columns = self.config.patch_size[1:]
        timestep = timestep[:, None] if timestep.ndim == 1 else timestep
        tokens = frames * (height // rows) * (width // columns)
        if height % rows or width % columns or tokens % timestep.shape[1]:
            raise InputError(
                f"latents of {frames}x{height}x{width} with {timestep.shape[1]} timesteps do not fit tokens of "
                f"{rows}x{columns}: sides must be multiples, timesteps one a sample, a latent frame or a token"
            )
        return self._compiled(self.params, latents, timestep, text)


@dataclass
class VideoVae:
    """A Wan video VAE with its weights and the statistics of its latents.

    Attributes:
        config: its sizes.
        params: its parameters by our names.
        mean, std: [z], of each latent channel.
    """

    config: VaeConfig
    params: Params
    mean: list[float]
    std: list[float]

    @cached_property
    def _graph(self) -> Graph:
        return graph_of(Vae, self.config)

    @cached_property
    def _functions(self) -> tuple[Any, Any]:
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)

        def encode(params: Params, video: Array) -> Array:
            return (self._graph.merge(params).encode(video)[0] - mean) / std

        def decode(params: Params, latents: Array) -> Array:
            return self._graph.merge(params).decode(latents * std + mean)

        return jax.jit(encode), jax.jit(decode)

    def encode(self, video: Array) -> Array:
        """[B,1+4k,H,W,3] in [-1,1] -> normalised posterior mean [B,1+k,h,w,z].

        Raises:
            InputError: other numbers of frames, or sides that the latents' cells do not divide.
        """
        space, time = self.config.spatial_factor, self.config.temporal_factor
        if (video.shape[1] - 1) % time or video.shape[2] % space or video.shape[3] % space:
            raise InputError(
                f"video of {video.shape[1]}x{video.shape[2]}x{video.shape[3]}: needs 1 + {time}k frames and sides "
                f"that are multiples of {space}"
            )
        return self._functions[0](self.params, video)

    def decode(self, latents: Array) -> Array:
        """[B,1+k,h,w,z] -> video [B,1+4k,H,W,3], not clipped to [-1,1]."""
        return self._functions[1](self.params, latents)


def transformer_graph(config: TransformerConfig) -> Graph:
    """The transformer's parameters by name, without memory."""
    return graph_of(WanTransformer, config)
