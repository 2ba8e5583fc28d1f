"""Published weights: both layouts, shards, full size by name, and refusals."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wvm_rl.errors import InputError
from wvm_rl.model.wan import Transformer, VideoVae, load_transformer, load_vae, published, save_transformer, save_vae
from wvm_rl.model.wan.pretrained import transformer_graph
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.model.wan.vae import Vae, VaeConfig
from wvm_rl.model.weights import graph_of

pytestmark = pytest.mark.usefixtures("compile_quickly")

SMALL = {"in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12}
SMALL |= {"ffn_dim": 32, "freq_dim": 16}
SMALL_VAE = {"base_dim": 4, "decoder_base_dim": 4, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 1}
SMALL_VAE |= {"temperal_downsample": [True, True]}


@pytest.fixture(scope="module")
def transformer():
    config = TransformerConfig(**SMALL)
    return Transformer(config, transformer_graph(config).init(0))


@pytest.fixture(scope="module")
def vae():
    config = VaeConfig(**SMALL_VAE)
    return VideoVae(config, graph_of(Vae, config).init(0), [0.1] * 4, [2.0] * 4)


def tensors_of(folder):
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("layout", published.LAYOUTS)
def test_transformer_round_trip(tmp_path, transformer, layout):
    save_transformer(transformer, tmp_path / "out", layout)
    again = load_transformer(tmp_path / "out")
    assert again.config == transformer.config
    assert_same(again.params, transformer.params)
    names = tensors_of(tmp_path / "out")
    assert ("head.modulation" in names) == (layout == "original")
    assert ("blocks.1.norm3.weight" in names) == (layout == "original")  # diffusers calls it norm2


@pytest.mark.parametrize("layout", published.LAYOUTS)
def test_vae_round_trip(tmp_path, vae, layout):
    save_vae(vae, tmp_path / "pipeline" / "vae", layout)
    again = load_vae(tmp_path / "pipeline")
    assert (again.config, again.mean, again.std) == (vae.config, vae.mean, vae.std)
    assert_same(again.params, vae.params)
    video = jnp.zeros((1, 5, 16, 24, 3))
    latents = again.encode(video)
    assert latents.shape == (1, 2, 2, 3, 4) and again.decode(latents).shape == video.shape
    with pytest.raises(InputError, match=r"needs 1 \+ 4k frames and sides that are multiples of 8"):
        again.encode(video[:, :4])


def test_shards_and_their_index(tmp_path, transformer, monkeypatch):
    monkeypatch.setattr(published, "SHARD_BYTES", 100_000)
    save_transformer(transformer, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"diffusion_pytorch_model-00001-of-{len(files):05d}.safetensors"
    assert_same(load_transformer(tmp_path / "out").params, transformer.params)
    (tmp_path / "out" / files[0]).write_bytes((tmp_path / "out" / files[0]).read_bytes()[:100])
    with pytest.raises(InputError, match=r"00001-of-.*not a whole safetensors file"):
        load_transformer(tmp_path / "out")


@pytest.mark.parametrize("layout", published.LAYOUTS)
def test_full_size_names_and_shapes(layout):
    """Wan2.2-TI2V-5B's transformer: 825 tensors, 4,999,787,712 parameters; nothing is allocated."""
    shapes = transformer_graph(TransformerConfig()).shapes
    entries = published.transformer_entries(shapes, (2, 2), layout)
    tensors = {name: entry.shape for entry in entries for name in entry.theirs}
    assert len(tensors) == 825 and sum(int(np.prod(shape)) for shape in tensors.values()) == 4_999_787_712
    assert tensors["patch_embedding.weight"] == (3072, 48, 1, 2, 2)
    if layout == "original":
        assert tensors["blocks.29.self_attn.norm_q.weight"] == (3072,)
        assert tensors["head.modulation"] == (1, 2, 3072) and tensors["time_projection.1.weight"] == (18432, 3072)
    else:
        assert tensors["blocks.29.ffn.net.0.proj.weight"] == (14336, 3072)
        assert tensors["scale_shift_table"] == (1, 2, 3072) and tensors["proj_out.weight"] == (192, 3072)


def test_full_size_vae_names_and_shapes():
    shapes = graph_of(Vae, VaeConfig()).shapes
    tensors = {e.theirs[0]: e.shape for e in published.vae_entries(shapes, 2, "original")}
    assert len(tensors) == 196
    assert tensors["encoder.downsamples.1.downsamples.2.time_conv.weight"] == (320, 320, 3, 1, 1)
    assert "encoder.downsamples.0.downsamples.2.time_conv.weight" not in tensors
    assert tensors["decoder.upsamples.0.upsamples.3.time_conv.weight"] == (2048, 1024, 3, 1, 1)
    assert tensors["decoder.head.2.weight"] == (12, 256, 3, 3, 3)


def test_bf16(tmp_path, transformer):
    half = {name: value.astype(jnp.bfloat16) for name, value in transformer.params.items()}
    save_transformer(Transformer(transformer.config, half), tmp_path / "out")
    assert {value.dtype for value in load_transformer(tmp_path / "out").params.values()} == {np.dtype(np.float32)}
    model = load_transformer(tmp_path / "out", dtype=jnp.bfloat16)
    assert {value.dtype for value in model.params.values()} == {np.dtype(ml_dtypes.bfloat16)}
    latents, text = jnp.ones((1, 1, 2, 2, 4)), jnp.ones((1, 3, 4096))
    output = model(latents, jnp.full(1, 500.0), text)
    assert output.dtype == jnp.float32 and output.shape == latents.shape
    with pytest.raises(InputError, match="with 3 timesteps do not fit"):
        model(jnp.ones((1, 2, 4, 4, 4)), jnp.ones((1, 3)), text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop("proj_out.bias"), r"tensor proj_out\.bias is missing \(1 in all\)"),
        (lambda t, c: t.update(extra=np.zeros(1, np.float32)), "tensor extra is unknown"),
        (
            lambda t, c: t.update({"proj_out.bias": np.zeros(3, np.float32)}),
            r"proj_out\.bias is \[3\], its config\.json needs \[16\]",
        ),
        (lambda t, c: t.update({"proj_out.bias": np.full(16, np.nan, np.float32)}), "values that are not finite"),
        (lambda t, c: c.update(num_layers=3), r"tensor blocks\.2\..* is missing"),
        (lambda t, c: c.update(qk_norm=None), "qk_norm=None is not supported"),
        (lambda t, c: c.pop("ffn_dim"), "ffn_dim is missing"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, transformer, change, message):
    save_transformer(transformer, tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.safetensors")
    tensors, config = load_file(file), json.loads((tmp_path / "out" / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, file)
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_transformer(tmp_path / "out")


def test_missing_files_are_refused(tmp_path, transformer):
    with pytest.raises(InputError, match="is no folder"):
        load_transformer(tmp_path / "absent")
    save_transformer(transformer, tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.safetensors")
    file.rename(tmp_path / "out" / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: pickles are not loaded"):
        load_transformer(tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: cannot be read as JSON"):
        load_transformer(tmp_path / "out")
