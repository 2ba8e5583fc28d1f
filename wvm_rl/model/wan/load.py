"""Wan models from and to folders of published weights: `load_transformer`, `load_vae` and their `save_` twins."""

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array
from wvm_rl.model.wan import published, rope
from wvm_rl.model.wan.transformer import TransformerConfig, WanTransformer
from wvm_rl.model.wan.vae import Vae, VaeConfig
from wvm_rl.model.weights import Graph, Params, graph_of
from wvm_rl.sharding import placed

# Keys of published configurations that only this value is supported of; null where the layout lacks them.
TRANSFORMER_FIXED = {
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
}
ORIGINAL = {  # keys of an original transformer's config.json
    "in_dim": "in_channels",
    "out_dim": "out_channels",
    "num_layers": "num_layers",
    "num_heads": "num_attention_heads",
    "ffn_dim": "ffn_dim",
    "freq_dim": "freq_dim",
    "eps": "eps",
}
VAE_FIXED = {"is_residual": True, "attn_scales": [], "dropout": 0.0}


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


def load_transformer(path: Path | str, dtype: Any = jnp.float32, sharding: Any = None) -> Transformer:
    """Reads a transformer's folder: diffusers' layout or the original one, whole or sharded.

    Args:
        path: folder of config.json and safetensors files, or a diffusers pipeline's folder with `transformer/`.
        dtype: float32 or bfloat16, of kernels, whatever they are stored as, and of matmuls' inputs. Sums, norms,
            modulation and the residual stream are f32 either way; their weights are not rounded.
        sharding: `jax.sharding.Sharding`, or a function (name, shape) -> sharding; None leaves it to JAX.

    Raises:
        InputError: files that are missing or cut short, a configuration that is not this model's, tensors unknown,
            missing, misshaped or not finite, by name.
    """
    folder = folder_of(path, "transformer")
    config = transformer_config(folder, dtype)
    weights, shapes = published.Weights(folder), transformer_graph(config).shapes
    layout = "original" if "head.head.weight" in weights else "diffusers"
    entries = published.transformer_entries(shapes, _patch(config), layout)
    return Transformer(config, _placed(weights.read(entries, shapes, dtype), sharding))


def save_transformer(model: Transformer, path: Path | str, layout: str = "diffusers") -> None:
    """Writes a folder that `load_transformer` and, in diffusers' layout, diffusers itself read."""
    sizes = {key: value for key, value in asdict(model.config).items() if key not in EXECUTION}
    if layout == "original":
        back = {ours: theirs for theirs, ours in ORIGINAL.items()}
        if model.config.text_dim != TransformerConfig.text_dim or list(_patch(model.config)) != [2, 2]:
            raise InputError("the original layout has text_dim=4096 and 2x2 patches: choose layout=diffusers")
        content: dict[str, Any] = {"_class_name": "WanModel", "model_type": "ti2v", "text_len": 512}
        content |= {"dim": model.config.width} | {back[key]: sizes[key] for key in back}
    else:
        content = {"_class_name": "WanTransformer3DModel", **sizes, **TRANSFORMER_FIXED}
    entries = published.transformer_entries(transformer_graph(model.config).shapes, _patch(model.config), layout)
    published.write(Path(path), entries, model.params, content)


def load_vae(path: Path | str, dtype: Any = jnp.float32) -> VideoVae:
    """Reads a VAE's folder: config.json in diffusers' terms, weights in either layout.

    Args:
        path: folder of config.json and safetensors files, or a diffusers pipeline's folder with `vae/`.
        dtype: of kernels, whatever they are stored as; other weights are not rounded.

    Raises:
        InputError: as `load_transformer`.
    """
    folder = folder_of(path, "vae")
    config, content = vae_config(folder)
    statistics = []
    for key in ("latents_mean", "latents_std"):
        values = content.get(key)
        if not isinstance(values, list) or len(values) != config.z_dim:
            raise InputError(f"{folder / 'config.json'}: {key} needs {config.z_dim} numbers, one a latent channel")
        statistics.append([float(value) for value in values])
    vae = VideoVae(config, {}, *statistics)
    weights, shapes = published.Weights(folder), vae._graph.shapes
    layout = "original" if "encoder.head.0.gamma" in weights else "diffusers"
    entries = published.vae_entries(shapes, config.num_res_blocks, layout)
    vae.params = _placed(weights.read(entries, shapes, dtype), None)
    return vae


def save_vae(model: VideoVae, path: Path | str, layout: str = "diffusers") -> None:
    """Writes a folder that `load_vae` and, in diffusers' layout, diffusers itself read."""
    channels = 3 * model.config.patch_size**2
    content = {
        "_class_name": "AutoencoderKLWan",
        **asdict(model.config),
        **VAE_FIXED,
        "in_channels": channels,
        "out_channels": channels,
        "scale_factor_temporal": model.config.temporal_factor,
        "scale_factor_spatial": model.config.spatial_factor,
        "latents_mean": model.mean,
        "latents_std": model.std,
    }
    entries = published.vae_entries(model._graph.shapes, model.config.num_res_blocks, layout)
    published.write(Path(path), entries, model.params, content)


# Settings of ours that no published configuration has.
EXECUTION = ("compute_dtype", "unroll", "remat", "lora_rank", "text_length")


def _patch(config: TransformerConfig) -> tuple[int, int]:
    return config.patch_size[1], config.patch_size[2]


def folder_of(path: Path | str, part: str) -> Path:
    """The folder itself, or the part of a diffusers pipeline in it."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one with config.json and safetensors files")
    return folder / part if (folder / part / "config.json").exists() else folder


def _read(folder: Path, fixed: dict[str, Any]) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON; it comes with the weights") from error
    for key, value in fixed.items():
        if content.get(key, value) != value:
            raise InputError(f"{path}: {key}={content[key]} is not supported, only {value}")
    return content


def _known(folder: Path, content: dict[str, Any], kind: type) -> dict[str, Any]:
    """The sizes of a configuration, which must name them all."""
    names = [each.name for each in fields(kind) if each.name not in EXECUTION]
    if missing := [name for name in names if name not in content]:
        raise InputError(f"{folder / 'config.json'}: {missing[0]} is missing: is it a Wan2.2 model's?")
    return {name: content[name] for name in names}


def vae_config(folder: Path) -> tuple[VaeConfig, dict[str, Any]]:
    """Sizes a VAE's folder states, and all that it states."""
    content = _read(folder, VAE_FIXED)
    return VaeConfig(**_known(folder, content, VaeConfig)), content


def transformer_config(folder: Path, dtype: Any) -> TransformerConfig:
    """Sizes a transformer's folder states, in either layout."""
    content = _read(folder, TRANSFORMER_FIXED)
    if "num_heads" in content:  # the original layout
        if missing := [key for key in (*ORIGINAL, "dim") if key not in content]:
            raise InputError(f"{folder / 'config.json'}: {missing[0]} is missing: is it a Wan2.2 model's?")
        content |= {ours: content[theirs] for theirs, ours in ORIGINAL.items()}
        content |= {"attention_head_dim": content["dim"] // content["num_heads"], "patch_size": [1, 2, 2]}
        content |= {"text_dim": TransformerConfig.text_dim}
    sizes = _known(folder, content, TransformerConfig)
    return TransformerConfig(
        **sizes | {"patch_size": list(sizes["patch_size"])}, compute_dtype=np.dtype(dtype or jnp.float32).name
    )


def _placed(arrays: Any, layout: Any) -> Params:
    """Arrays on devices, each let go of as soon as it is there."""
    params = {}
    for name, array in arrays:
        target = layout(name, array.shape) if callable(layout) else layout
        params[name] = jnp.asarray(array) if target is None else placed(array, target)
    return params
