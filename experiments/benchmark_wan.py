"""Speed of our Wan2.2 beside diffusers' on this machine's CPU: `python -m experiments.benchmark_wan`.

Same weights, same sizes, f32, all cores, repeats that alternate between the two. Needs PyTorch and diffusers, as
`experiments.compare_wan` does. Writes `experiments/results/wan_speed.json`, other settings a file of their own; timings
are only comparable within a run.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from experiments.cells import RESULTS, named
from experiments.compare_wan import SMALL, inputs, reference, transformer_pair, vae_pair
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.model.presets import TinyConfig
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json

Call = Callable[[], Any]


@dataclass
class BenchmarkConfig:
    """How often to measure."""

    repeats: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 3:
            raise InputError(f"repeats={self.repeats} must be at least 3")


def transformer_calls(config: TransformerConfig, shape: tuple[int, int, int, int], seed: int) -> dict[str, Any]:
    """Forward, and forward with the gradient of every parameter: name -> (ours, theirs, floating point operations)."""
    torch, _ = reference()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = transformer_pair(config, seed, Path(folder))
    ours = replace(ours, config=config)  # files do not say how to run
    given = inputs(ours, shape, 8, seed)
    given["timestep"] = given["timestep"][:, :1].repeat(shape[1], 1)  # one a latent frame
    tokens = shape[2] * shape[3] // 4
    arrays = [jnp.asarray(value) for value in given.values()]
    latents, timestep, text = (torch.from_numpy(value) for value in given.values())
    latents, timestep = latents.movedim(-1, 1).contiguous(), timestep.repeat_interleave(tokens, dim=1)

    def loss(params: Any) -> Any:
        return jnp.square(ours.forward(params, *arrays)).mean()

    def torch_forward() -> None:
        with torch.no_grad():
            theirs(latents, timestep, text, return_dict=False)

    def torch_backward() -> None:
        theirs.zero_grad(set_to_none=True)
        theirs(latents, timestep, text, return_dict=False)[0].square().mean().backward()

    forward = jax.jit(lambda params: ours.forward(params, *arrays)).lower(ours.params).compile()
    backward = jax.jit(jax.value_and_grad(loss)).lower(ours.params).compile()
    flops = 2 * (sum(value.size for value in ours.params.values())) * shape[0] * shape[1] * tokens  # weights' matmuls
    return {
        "transformer forward": (lambda: jax.block_until_ready(forward(ours.params)), torch_forward, flops),
        "transformer forward+backward": (
            lambda: jax.block_until_ready(backward(ours.params)),
            torch_backward,
            3 * flops,
        ),
    }


def vae_calls(batch: int, seed: int) -> dict[str, Any]:
    """Encoding of 9 frames at `tiny`'s size."""
    torch, _ = reference()
    preset = TinyConfig()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = vae_pair(preset.vae, seed, Path(folder))
    shape = (batch, 9, preset.size, preset.size, 3)
    video = np.tanh(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    array, tensor = jnp.asarray(video), torch.from_numpy(video).movedim(-1, 1).contiguous()

    def torch_encode() -> None:
        with torch.no_grad():
            theirs.encode(tensor)

    return {"VAE encode, 9 frames": (lambda: jax.block_until_ready(ours.encode(array)), torch_encode, None)}


def seconds(ours: Call, theirs: Call, repeats: int) -> tuple[list[float], list[float]]:
    """Wall times of alternating calls, after two to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for call, found in zip((ours, theirs), times):
            start = time.perf_counter()
            call()
            if repeat >= 2:
                found.append(time.perf_counter() - start)
    return times


def matmul_peak() -> float:
    """Floating point operations a second of the best of 20 f32 matmuls of 2048."""
    x = jnp.ones((2048, 2048))
    product = jax.jit(jnp.dot)
    product(x, x).block_until_ready()
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def main(config: BenchmarkConfig) -> None:
    reference()
    tiny = TinyConfig()
    wide = TransformerConfig(num_attention_heads=4, attention_head_dim=96, num_layers=4, ffn_dim=1536, **SMALL)
    cases = {}
    for how, unroll in (("unrolled", True), ("scanned", False)):
        narrow, broad = replace(tiny.transformer, unroll=unroll), replace(wide, unroll=unroll)
        height, width, _ = tiny.latent
        size = f"tiny ({narrow.width} wide), {height * width // 4} tokens x 16"
        cases[f"{size}, {how}"] = transformer_calls(narrow, (16, 1, height, width), config.seed)
        cases[f"384 wide, 128 tokens x 2, {how}"] = transformer_calls(broad, (2, 2, 16, 16), config.seed)
    cases |= {
        f"tiny VAE, {tiny.size} pixels, 1 clip": vae_calls(1, config.seed),
        f"tiny VAE, {tiny.size} pixels, 16 clips": vae_calls(16, config.seed),
    }
    peak, rows = matmul_peak(), []
    bar = tqdm([(size, name, call) for size, calls in cases.items() for name, call in calls.items()])
    for size, name, (ours, theirs, flops) in bar:
        mine, other = seconds(ours, theirs, config.repeats)
        ratios = np.array(other) / np.array(mine)
        rows.append(
            {
                "size": size,
                "what": name,
                "ours_ms": 1e3 * float(np.median(mine)),
                "diffusers_ms": 1e3 * float(np.median(other)),
                "times_as_fast": float(np.median(ratios)),
                "quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
                "share_of_peak": flops / float(np.median(mine)) / peak if flops else None,
            }
        )
    table = Table(title=f"Wan2.2 on CPU, f32; matmul peak {peak / 1e9:.0f} GFLOP/s; median of {config.repeats}")
    for column in ("size", "what", "ours ms", "diffusers ms", "times as fast", "share of peak"):
        table.add_column(column)
    for row in rows:
        low, high = row["quartiles"]
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
        times = f"{row['times_as_fast']:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(row["size"], row["what"], f"{row['ours_ms']:.1f}", f"{row['diffusers_ms']:.1f}", times, share)
    Console(width=140).print(table)
    torch, diffusers = reference()
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    target = RESULTS / f"{named('wan_speed', config, 'repeats', 'seed')}.json"
    write_json(target, {"rows": rows, "matmul_peak": peak, "provenance": provenance() | versions})


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig, {})
