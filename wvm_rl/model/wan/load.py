"""Wan models from and to folders of published weights: `load_transformer`, `load_vae` and their `save_` twins."""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from wvm_rl.errors import InputError
from wvm_rl.model.wan import published
from wvm_rl.model.wan.pretrained import Transformer, VideoVae, transformer_graph
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.model.wan.vae import VaeConfig
from wvm_rl.model.weights import Params
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
SAMPLE = 65536  # bytes
VAE_FIXED = {"is_residual": True, "attn_scales": [], "dropout": 0.0}


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


def load_vae(path: Path | str) -> VideoVae:
    """Reads a VAE's folder: config.json in diffusers' terms, weights in either layout, kept as f32.

    Args:
        path: folder of config.json and safetensors files, or a diffusers pipeline's folder with `vae/`.

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
    vae.params = _placed(weights.read(entries, shapes, jnp.float32), None)
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


def fingerprint(folder: Path) -> str:
    """Tells published weights apart without reading them whole: configuration, and size and samples of every file."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.safetensors"))]:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for at in range(0, size, max(SAMPLE, size // 64)):
                file.seek(at)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


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
