"""Our Wan2.2 against what diffusers computed on the same weights and inputs (`tests/golden`)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from tests.golden import wan_cases as cases
from wvm_rl.model.wan import load, load_transformer, load_vae, pretrained, published, rope
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.model.wan.vae import Vae, VaeConfig
from wvm_rl.model.weights import graph_of

pytestmark = pytest.mark.usefixtures("compile_quickly")

GOLDEN = np.load(Path(__file__).parent / "golden" / "wan.npz")


def folder(path, entries, content):
    """A published folder with the cases' weights."""
    path.mkdir()
    tensors = {name: cases.weight(name, entry.shape) for entry in entries for name in entry.theirs}
    save_file(tensors, path / "diffusion_pytorch_model.safetensors")
    (path / "config.json").write_text(json.dumps(content))
    return path


def transformer(path, name):
    config = cases.TRANSFORMERS[name][0]
    shapes = pretrained.transformer_graph(TransformerConfig(**config)).shapes
    content = {"_class_name": "WanTransformer3DModel", **config, **load.TRANSFORMER_FIXED}
    return load_transformer(folder(path / name, published.transformer_entries(shapes, (2, 2), "diffusers"), content))


def vae(path, name):
    config = cases.VAES[name][0]
    shapes = graph_of(Vae, VaeConfig(**config)).shapes
    mean, std = cases.statistics(config["z_dim"])
    content = {"_class_name": "AutoencoderKLWan", **config, "is_residual": True}
    content |= {"latents_mean": mean, "latents_std": std}
    return load_vae(folder(path / name, published.vae_entries(shapes, config["num_res_blocks"], "diffusers"), content))


def difference(ours, theirs):
    """Largest difference, in standard deviations of theirs."""
    assert ours.shape == theirs.shape and np.isfinite(theirs).all()
    return float(np.abs(np.asarray(ours) - theirs).max() / theirs.std())


@pytest.mark.parametrize("name", cases.TRANSFORMERS)
def test_transformer_block_and_gradients(tmp_path, name):
    model, inputs = transformer(tmp_path, name), cases.transformer_inputs(name)
    latents, timestep, text = (jnp.asarray(inputs[key]) for key in ("latents", "timestep", "text"))
    assert difference(model(latents, timestep, text), GOLDEN[f"{name}/output"]) <= 2e-5

    graph, cotangent = pretrained.transformer_graph(model.config), jnp.asarray(inputs["cotangent"])
    _, frames, height, width, _ = latents.shape
    table = rope.table(rope.grid(list(range(frames)), height // 2, width // 2), model.config.attention_head_dim)
    groups = timestep[:, None] if timestep.ndim == 1 else timestep

    def loss(params):
        return (graph.merge(params)(latents, groups, text, table)[0] * cotangent).sum()

    gradients = jax.jit(jax.grad(loss))(model.params)
    checked = 0
    for entry in published.transformer_entries(graph.shapes, (2, 2), "diffusers"):
        for key, gradient in zip(entry.theirs, entry.write(gradients[entry.ours])):
            if f"{name}/gradient/{key}" in GOLDEN:
                theirs = GOLDEN[f"{name}/gradient/{key}"]
                assert np.abs(gradient - theirs).max() <= 1e-4 * np.abs(theirs).max(), key
                checked += 1
    assert checked == len(cases.GRADIENTS)

    def first_block(params):
        streams = graph.merge(params)
        rows = latents.reshape(*latents.shape[:2], height // 2, 2, width // 2, 2, -1).transpose(0, 1, 2, 4, 3, 5, 6)
        tokens = streams.patch_embedding(rows.reshape(len(latents), frames * height * width // 4, -1))
        graphdef, blocks = nnx.split(streams.stack.blocks)
        block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], blocks))
        return block(tokens, streams.conditioner.time(groups)[1], streams.conditioner.text(text), table, None)[0]

    assert difference(jax.jit(first_block)(model.params), GOLDEN[f"{name}/block"]) <= 5e-6


@pytest.mark.parametrize("name", cases.VAES)
def test_vae_encoder_and_decoder(tmp_path, name):
    model, inputs = vae(tmp_path, name), cases.vae_inputs(name)
    mean, std = (np.asarray(each, np.float32) for each in (model.mean, model.std))
    assert difference(model.encode(jnp.asarray(inputs["video"])) * std + mean, GOLDEN[f"{name}/latents"]) <= 1e-4
    video = model.decode((jnp.asarray(inputs["latents"]) - mean) / std)
    assert difference(video, GOLDEN[f"{name}/video"]) <= 1e-4
