"""Run as a program with eight virtual devices: loss, gradients and updates on meshes against one device.

Prints one JSON line: mesh -> relative difference of the loss, largest of the gradients in shares of each one's largest
entry, and the shape a device holds of one parameter, its moment and its mean; `lora` is the mixed mesh with low-rank
updates of a frozen video stream, and the first frame in sight.
"""

import json
import tempfile
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from tests.model_toy import preset
from wvm_rl import sharding
from wvm_rl.model import lora
from wvm_rl.model.training import FitConfig, Training
from wvm_rl.model.wan import Transformer, load_transformer, save_transformer
from wvm_rl.model.wan.pretrained import transformer_graph
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.sharding import MeshConfig

MESH = (2, 4)  # data and fsdp
SIZE = 16
BIG = "video.stack.blocks.ffn_in.kernel"


def model_of(rank: int = 0) -> WorldValueModel:
    """The toy with sides that eight devices divide, and with the scan and rematerialisation of the large preset."""
    config, heads = preset(), {"num_attention_heads": 4, "attention_head_dim": 8}
    transformer = replace(config.transformer, **heads, remat=True, lora_rank=rank)
    return WorldValueModel(replace(config, transformer=transformer, first_frame=rank > 0))


def batch_of(model: WorldValueModel) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "current": rng.normal(size=(SIZE, *model.config.latent)).astype(np.float32),
        "future": rng.normal(size=(SIZE, *model.config.latent)).astype(np.float32),
        "value": rng.uniform(size=(SIZE, 4)).astype(np.float32),
        "text": np.stack([model.config.text.tokenize(words) for words in ("lift", "stack")]),
        "instruction": rng.integers(0, 2, SIZE).astype(np.int32),
        "first": rng.normal(size=(SIZE, *model.config.latent)).astype(np.float32),
    }


def run(mesh: tuple[int, int], rank: int = 0) -> dict:
    model, part = model_of(rank), LossConfig(video=0.0 if rank else 1.0)  # half of the time to compile
    config = FitConfig(steps=10, batch=SIZE, learning_rate=1e-2, warmup=0, clip=1e6, beta1=0.5)
    training = Training(lambda *given: model.loss(*given, part), config, 0, MeshConfig(*mesh).make())
    rng = np.random.default_rng(1)  # a fresh model's output layers are zero, and so most of its gradients
    params = {}
    for name, shape in model.graph.shapes.items():
        deviation = shape[-2] ** -0.5 if len(shape) > 1 else 0.1
        drawn = deviation * rng.normal(size=shape) + name.endswith("scale")
        params[name] = jax.device_put(drawn.astype(np.float32), training.target(name, shape))
    frozen = {name: params.pop(name) for name in list(params) if not lora.trains(name, rank)}
    update = training.compiled(params)
    state = training.start(params)
    with jax.set_mesh(training.mesh):
        state, parts = update(state, frozen, training.place(batch_of(model)), np.int32(0))
    moment = state["optimiser"][1][0].mu  # after one step half the gradient, as beta1 is
    large = [frozen] if rank else [state["params"], moment, state["mean"]]
    shapes = [array[BIG].sharding.shard_shape(array[BIG].shape) for array in large]
    loss, grads = jax.device_get((parts["loss"], moment))
    return {"loss": loss, "grads": grads, "shapes": shapes}


def loaded() -> dict:
    """Published weights read straight onto a mesh, against the same on one device."""
    config = model_of().config.transformer
    rng = np.random.default_rng(0)
    shapes = transformer_graph(config).shapes
    params = {name: 0.1 * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    mesh = MeshConfig(fsdp=8).make()
    inputs = (rng.normal(size=(1, 1, 4, 4, 4)).astype(np.float32), np.full(1, 500.0), np.ones((1, 3, 8), np.float32))
    with tempfile.TemporaryDirectory() as folder:
        save_transformer(Transformer(config, params), folder)
        models = [load_transformer(folder), load_transformer(folder, sharding=partial(sharding.parameter, mesh))]
    one, split = [np.asarray(model(*map(jax.numpy.asarray, inputs))) for model in models]
    kernel = models[1].params[BIG.removeprefix("video.")]
    return {"difference": float(np.abs(one - split).max()), "shape": kernel.sharding.shard_shape(kernel.shape)}


if __name__ == "__main__":
    assert jax.device_count() == 8
    summary = {}
    for name, rank in (("mixed", 0), ("lora", 4)):
        one, other = run((1, 1), rank), run(MESH, rank)
        scale = {key: np.abs(grad).max() or 1.0 for key, grad in one["grads"].items()}
        worst = max(float(np.abs(other["grads"][key] - one["grads"][key]).max() / scale[key]) for key in scale)
        summary[name] = {
            "loss": float(abs(other["loss"] / one["loss"] - 1)),
            "gradients": worst,
            "shapes": other["shapes"],
        }
    print(json.dumps(summary | {"loaded": loaded()}))
