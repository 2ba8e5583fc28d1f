"""Memory that a preset needs on a mesh, without allocating it: `python -m wvm_rl.plan wvm=wan2.2-ti2v-5b mesh.fsdp=8`.

Compiles the very update of pretraining (its check on held-out windows, a forward pass of no more samples, needs less),
or a critic's programs, for as many virtual CPU devices as the mesh has and prints what the compiled program says of
its own memory. Its matmuls' inputs are f32 even where the preset's are bf16,
which XLA's CPU compiler would widen a whole stack of layers at a time: temporary memory is an estimate. Its GPU
compiler fuses otherwise, too.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from omegaconf import MISSING
from rich.console import Console
from rich.table import Table

from wvm_rl import cli, sharding
from wvm_rl.errors import InputError
from wvm_rl.model import lora
from wvm_rl.model.codec import GROUP, Codec, LatentStatistics
from wvm_rl.model.inference import SEGMENT, Inference, Overlap
from wvm_rl.model.presets import CHUNK, PRESETS, ModelConfig
from wvm_rl.model.training import FitConfig, Training
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.sharding import MeshConfig

MODES = ("train", "inference")
GIB = 2.0**30


@dataclass
class PlanConfig:
    """What to plan for."""

    defaults: list[Any] = field(default_factory=lambda: [{"wvm": "tiny"}, "_self_"])
    wvm: Any = MISSING  # preset
    mode: str = "train"  # train (all of it, or with wvm.transformer.lora_rank) | inference (a critic)
    batch: int = 8  # samples an update, or episodes valued side by side
    instructions: int = 6  # different ones in a batch's table
    average: float = 0.999  # of the training, see FitConfig; 0: no running mean of the parameters
    loss: LossConfig = field(default_factory=LossConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode={self.mode}: choose one of {', '.join(MODES)}")
        if min(self.batch, self.instructions) < 1:
            raise InputError(f"batch={self.batch} and instructions={self.instructions} must be at least 1")


@dataclass
class Plan:
    """Bytes a device holds."""

    parameters: int  # of the model, those that stay as they are included
    optimiser: int  # moments, and the running mean
    batch: int
    temporary: int  # activations, gradients and gathered parameters, at their peak


def plan(config: PlanConfig) -> Plan:
    """Compiles for the mesh and reads the program's memory.

    Raises:
        InputError: a mesh that does not divide the model or the batch, or has more devices than there are.
    """
    preset: ModelConfig = config.wvm
    if config.mode == "inference" and preset.transformer.lora_rank:
        raise InputError("a released critic has no low-rank updates: leave wvm.transformer.lora_rank=0")
    stored = WorldValueModel(preset).stored
    model = WorldValueModel(replace(preset, transformer=replace(preset.transformer, compute_dtype="float32")))
    mesh = config.mesh.make()
    if config.mode == "inference":
        if mesh.size > 1:
            raise InputError("the critic runs on one device: leave mesh.data=1 mesh.fsdp=1")
        return _inference(model, stored, config.batch)
    batch = _batch(model, config)
    fit = FitConfig(steps=1000, batch=config.batch, learning_rate=1e-4, average=config.average)
    training = Training(partial(model.loss, config=config.loss), fit, 0, mesh)
    shapes = model.graph.shapes
    trains = partial(lora.trains, rank=preset.transformer.lora_rank)
    params = {name: _struct(shape, jnp.float32, training.target(name, shape)) for name, shape in shapes.items()}
    trained = {name: array for name, array in params.items() if trains(name)}
    frozen = {name: array for name, array in params.items() if not trains(name)}
    layout = sharding.batch(mesh, batch, config.batch)
    placed = {name: _struct(array.shape, array.dtype, layout[name]) for name, array in batch.items()}
    state = training.abstract(trained)
    with jax.set_mesh(mesh):
        compiled = training.compiled(trained).lower(state, frozen, placed, _struct((), jnp.int32)).compile()
    others = {name: part for name, part in state.items() if name != "params"}
    kept = {name: _struct(array.shape, stored(name), array.sharding) for name, array in frozen.items()}
    return Plan(_bytes([state["params"], kept]), _bytes(others), _bytes(placed), _temporary(compiled))


def _inference(model: WorldValueModel, stored: Callable[[str], Any], episodes: int) -> Plan:
    """A released critic on one device: VAE and model, parameters as its file keeps them, one program at a time."""
    config = model.config
    codec, channels = Codec(config), config.vae.z_dim
    programs = Inference(codec, model, LatentStatistics([0.0] * channels, [1.0] * channels), {}, {})
    vae = {name: _struct(shape, jnp.float32) for name, shape in codec.graph.shapes.items()}
    wvm = {name: _struct(shape, jnp.float32) for name, shape in model.graph.shapes.items()}
    kept = {name: _struct(shape, stored(name)) for name, shape in model.graph.shapes.items()}
    frames = _struct((GROUP, CHUNK + 1, config.size, config.size, 3), jnp.uint8)
    latents = _struct((episodes, SEGMENT, *config.latent), jnp.float32)
    first = _struct((episodes, *config.latent), jnp.float32)
    read = _struct((episodes, *config.text.shape), config.text.dtype)
    text = jax.eval_shape(programs.text, wvm, read)
    overlap = jax.eval_shape(lambda: Overlap.start(episodes))
    encode = programs.encode.lower(vae, frames).compile()
    advance = programs.advance.lower(wvm, latents, first, text, overlap).compile()
    temporary = max(_temporary(encode), _temporary(advance))
    return Plan(_bytes([vae, kept]), 0, _bytes([frames, latents, first, text]), temporary)


def _batch(model: WorldValueModel, config: PlanConfig) -> dict[str, Any]:
    """Shapes of a batch of the pool's windows."""
    latent = (config.batch, *model.config.latent)
    shape, kind = model.config.text.shape, model.config.text.dtype
    seen = ("current", "future", *(("first",) if model.config.first_frame else ()))
    return {
        **{name: _struct(latent, jnp.float16) for name in seen},
        "value": _struct((config.batch, CHUNK), jnp.float32),
        "text": _struct((config.instructions, *shape), kind),
        "instruction": _struct((config.batch,), jnp.int32),
    }


def _struct(shape: tuple[int, ...], dtype: Any, layout: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)


def _bytes(tree: Any) -> int:
    """What one device holds of the arrays of a tree."""
    total = 0
    for array in jax.tree.leaves(tree):
        shape = array.shape if array.sharding is None else array.sharding.shard_shape(array.shape)
        total += math.prod(shape) * array.dtype.itemsize
    return total


def _temporary(compiled: Any) -> int:
    """Memory beside arguments: temporary, and results that do not take an argument's place."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def main(config: PlanConfig) -> None:
    jax.config.update("jax_num_cpu_devices", config.mesh.data * config.mesh.fsdp)
    jax.config.update("jax_platforms", "cpu")
    found = plan(config)
    model = WorldValueModel(config.wvm)
    count = Counter({"VAE": sum(map(math.prod, Codec(config.wvm).graph.shapes.values()))})
    for name, shape in model.graph.shapes.items():
        count[name.split(".")[0]] += math.prod(shape)
    print("parameters:", ", ".join(f"{name} {number:,}" for name, number in count.items()))
    mesh = f"mesh data={config.mesh.data} fsdp={config.mesh.fsdp}"
    table = Table(title=f"GiB a device: {config.mode}, batch {config.batch}, {mesh}", title_justify="left")
    for column in ("parameters", "optimiser", "batch", "temporary", "all"):
        table.add_column(column)
    numbers = [found.parameters, found.optimiser, found.batch, found.temporary]
    table.add_row(*[f"{number / GIB:.2f}" for number in [*numbers, sum(numbers)]])
    Console(width=120).print(table)


if __name__ == "__main__":
    cli.run(main, PlanConfig, {"wvm": PRESETS})
