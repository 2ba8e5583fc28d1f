"""Our Wan2.2 beside diffusers' on the same random weights, f32: `python -m experiments.compare_wan`.

Needs PyTorch and diffusers (`pip install torch==2.13.0 diffusers`). Weights go from ours to diffusers through
`save_transformer` and `save_vae`, and back through diffusers' own files. Prints largest differences beside the bars
(in standard deviations of the output) and fails if one is missed.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.model.wan import Transformer, VideoVae, load_transformer, load_vae, save_transformer, save_vae
from wvm_rl.model.wan.pretrained import transformer_graph
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.model.wan.vae import Vae, VaeConfig
from wvm_rl.model.weights import Params, graph_of

BARS = {"transformer": 2e-5, "its gradients": 1e-4, "VAE encoder": 1e-4, "VAE decoder": 1e-4}
SIZES = ((192, 4, 6, (2, 2, 8, 8)), (384, 3, 4, (1, 3, 6, 10)), (96, 2, 8, (2, 1, 4, 4)))  # width, heads, layers, input
SMALL: dict[str, Any] = {"in_channels": 16, "out_channels": 16, "text_dim": 64, "freq_dim": 64}


@dataclass
class CompareConfig:
    """Random weights and inputs."""

    seed: int = 0


def reference() -> tuple[Any, Any]:
    """PyTorch and diffusers."""
    try:
        import diffusers
        import torch
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install torch==2.13.0 diffusers") from error
    return torch, diffusers


def lively(params: Params, seed: int) -> Params:
    """Random parameters under which every one matters: nothing is 0 or 1 as after an initialisation."""
    rng = np.random.default_rng(seed)
    return {
        name: value + jnp.asarray(0.1 * rng.standard_normal(value.shape) * (value.std() + 0.3), jnp.float32)
        for name, value in params.items()
    }


def deviation(ours: Any, theirs: np.ndarray) -> float:
    """Largest difference, in standard deviations of theirs."""
    return float(np.abs(np.asarray(ours) - theirs).max() / theirs.std())


def transformer_pair(config: TransformerConfig, seed: int, folder: Path) -> tuple[Transformer, Any]:
    """Our transformer and diffusers', with the same weights."""
    _, diffusers = reference()
    save_transformer(Transformer(config, lively(transformer_graph(config).init(seed), seed)), folder / "ours")
    theirs = diffusers.WanTransformer3DModel.from_pretrained(folder / "ours").eval()
    theirs.save_pretrained(folder / "theirs", max_shard_size="1MB")
    return load_transformer(folder / "theirs"), theirs


def vae_pair(config: VaeConfig, seed: int, folder: Path) -> tuple[VideoVae, Any]:
    """Our VAE and diffusers', with the same weights."""
    _, diffusers = reference()
    params = graph_of(Vae, config).init(seed)
    save_vae(VideoVae(config, params, [0.0] * config.z_dim, [1.0] * config.z_dim), folder / "ours")
    theirs = diffusers.AutoencoderKLWan.from_pretrained(folder / "ours").eval()
    theirs.save_pretrained(folder / "theirs")
    return load_vae(folder / "theirs"), theirs


def inputs(model: Transformer, shape: tuple[int, int, int, int], text: int, seed: int) -> dict[str, np.ndarray]:
    """latents [B,T,H,W,C], timestep [B,tokens], text [B,L,D]; f32."""
    rng, config = np.random.default_rng(seed), model.config
    tokens = shape[1] * shape[2] * shape[3] // 4
    return {
        "latents": rng.standard_normal((*shape, config.in_channels)).astype(np.float32),
        "timestep": (1000 * rng.random((shape[0], tokens))).astype(np.float32),
        "text": rng.standard_normal((shape[0], text, config.text_dim)).astype(np.float32),
    }


def compare_transformer(config: TransformerConfig, shape: tuple[int, int, int, int], seed: int) -> dict[str, float]:
    """Largest differences of output and gradients, as shares of the gradient's largest entry."""
    torch, _ = reference()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = transformer_pair(config, seed, Path(folder))
    given = inputs(ours, shape, 9, seed)
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    expected = theirs(tensors["latents"].movedim(-1, 1), tensors["timestep"], tensors["text"], return_dict=False)[0]
    arrays = [jnp.asarray(value) for value in given.values()]
    found = ours(*arrays)
    output = deviation(found, expected.movedim(1, -1).detach().numpy())
    expected.square().mean().backward()

    def loss(params: Params) -> Any:
        return jnp.square(ours.forward(params, *arrays)).mean()

    gradients = jax.jit(jax.grad(loss))(ours.params)
    with tempfile.TemporaryDirectory() as folder:  # to their names
        save_transformer(Transformer(config, gradients), Path(folder) / "gradients")
        mine = type(theirs).from_pretrained(Path(folder) / "gradients").state_dict()
    worst = max(
        float((mine[name] - each.grad).abs().max() / each.grad.abs().max()) for name, each in theirs.named_parameters()
    )
    return {"transformer": output, "its gradients": worst}


def compare_vae(config: VaeConfig, shape: tuple[int, int, int, int], seed: int) -> dict[str, float]:
    """Largest differences of latents and, within [-1,1] where diffusers cuts it, video."""
    torch, _ = reference()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = vae_pair(config, seed, Path(folder))
    video = np.tanh(np.random.default_rng(seed).standard_normal((*shape, 3)).astype(np.float32))
    with torch.no_grad():
        expected = theirs.encode(torch.from_numpy(video).movedim(-1, 1)).latent_dist.mode()
        decoded = theirs.decode(expected, return_dict=False)[0].movedim(1, -1).numpy()
    latents = expected.movedim(1, -1).numpy()
    again = np.clip(np.asarray(ours.decode(jnp.asarray(latents))), -1, 1)
    return {
        "VAE encoder": deviation(ours.encode(jnp.asarray(video)), latents),
        "VAE decoder": deviation(again, decoded),
    }


def main(config: CompareConfig) -> None:
    torch, diffusers = reference()
    table = Table(title=f"largest differences from diffusers {diffusers.__version__}, PyTorch {torch.__version__}, f32")
    for column in ("sizes", "input", *BARS):
        table.add_column(column)
    table.add_row("bar", "", *(f"{bar:.0e}" for bar in BARS.values()))
    missed = False
    rows: list[tuple[str, str, dict[str, float]]] = []
    for width, heads, layers, shape in SIZES:
        sizes = TransformerConfig(
            num_attention_heads=heads, attention_head_dim=width // heads, num_layers=layers, ffn_dim=4 * width, **SMALL
        )
        result = compare_transformer(sizes, shape, config.seed)
        rows.append((f"{layers} layers of {width}, {heads} heads", "x".join(map(str, shape)), result))
    for frames in (1, 5, 9, 17):
        sizes_vae = VaeConfig(base_dim=16, decoder_base_dim=24, z_dim=8)
        result = compare_vae(sizes_vae, (1, frames, 48, 32), config.seed)
        rows.append(("base 16, decoder 24, z 8", f"1x{frames}x48x32", result))
    for sizes_name, shape_name, result in rows:
        table.add_row(sizes_name, shape_name, *(f"{result[name]:.1e}" if name in result else "" for name in BARS))
        missed |= any(value > BARS[name] for name, value in result.items())
    Console(width=140).print(table)
    if missed:
        sys.exit("a bar is missed")


if __name__ == "__main__":
    cli.run(main, CompareConfig, {})
