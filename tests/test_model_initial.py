"""How a model starts and what of it trains: published weights, a critic, low-rank updates."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_toy import corpus, of, preset, random, random_critic, stages
from wvm_rl.errors import InputError
from wvm_rl.model import lora
from wvm_rl.model import stages as stages_module
from wvm_rl.model.initial import PretrainedConfig, interpolated
from wvm_rl.model.pool import Pool
from wvm_rl.model.reading import Reading
from wvm_rl.model.stages import Stages, train
from wvm_rl.model.wan import Transformer, VideoVae, load_transformer, save_transformer, save_vae
from wvm_rl.model.wan.pretrained import transformer_graph
from wvm_rl.model.wvm import LossConfig, WorldValueModel

pytestmark = pytest.mark.usefixtures("compile_quickly")


def test_low_rank_updates_start_at_nothing_and_merge():
    plain, adapted = WorldValueModel(preset()), WorldValueModel(of(lora_rank=2))
    extra = adapted.graph.shapes.keys() - plain.graph.shapes.keys()
    assert extra and all(name.startswith("video.stack") and lora.trains(name, 2) for name in extra)
    kernel = "video.stack.blocks.ffn_in.kernel"
    assert lora.trains(kernel, 0) and not lora.trains(kernel, 2) and lora.trains("value.place", 2)
    params = random(adapted.graph.shapes)
    rng = np.random.default_rng(1)
    current, prefix = rng.normal(size=(3, *plain.config.latent)).astype(np.float32), np.full(3, 0.5, np.float32)
    tokens = np.stack([plain.config.text.tokenize("lift")] * 3)
    fresh = {name: np.zeros_like(value) if name.endswith(".lora_b") else value for name, value in params.items()}
    base = {name: params[name] for name in plain.graph.shapes}

    def values(model, params):
        return np.asarray(jax.jit(model.predict)(params, current, prefix, tokens))

    np.testing.assert_allclose(values(adapted, fresh), values(plain, base), atol=1e-6)
    merged = lora.merged(params)
    assert merged.keys() == plain.graph.shapes.keys()
    np.testing.assert_allclose(values(plain, merged), values(adapted, params), atol=2e-4)
    assert not np.allclose(values(plain, merged), values(plain, base), atol=1e-3)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A pipeline's folder with random weights of the toy's sizes, and those weights."""
    folder, config = tmp_path_factory.mktemp("published"), preset()
    transformer = Transformer(config.transformer, random(transformer_graph(config.transformer).shapes))
    vae = VideoVae(config.vae, {}, [0.1] * 4, [0.5] * 4)
    vae.params = random(vae._graph.shapes, 1)
    save_transformer(transformer, folder / "transformer")
    save_vae(vae, folder / "vae")
    return folder, transformer.params, vae.params


def test_pretrained_video_stream_starts_a_fresh_model(published):
    folder, video, _ = published
    model = WorldValueModel(preset())
    start = PretrainedConfig(str(folder)).params(model, 0, None)
    other = model.graph.init(0)
    assert start.keys() == other.keys()
    for name, value in start.items():
        expected = video[name.removeprefix("video.")] if name.startswith("video.") else other[name]
        np.testing.assert_array_equal(value, expected)


def test_value_stream_interpolates_the_video_streams_weights(published):
    folder, video, _ = published
    model = WorldValueModel(preset())
    start = PretrainedConfig(str(folder), "interpolated").params(model, 0, None)
    name = "stack.blocks.ffn_in.kernel"  # [2,24,32] -> [2,16,32]
    small = np.stack(
        [[np.interp(np.linspace(0, 23, 16), np.arange(24), column) for column in layer.T] for layer in video[name]]
    )
    small = small.swapaxes(1, 2) * np.sqrt((video[name] ** 2).mean() / (small**2).mean() * 24 / 16)
    np.testing.assert_allclose(start[f"value.{name}"], small, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(start["value.place"], model.graph.init(0)["value.place"])
    scale = jnp.arange(6.0).reshape(1, 6)
    np.testing.assert_allclose(interpolated(scale, (1, 3), kernel=False), [[0, 2.5, 5]])


def test_pretraining_takes_the_published_vae_and_trains_low_rank_updates(published, tmp_path):
    """End to end: the frozen video kernels move by a product of rank 1 and nothing else of the stream does."""
    folder, video, vae = published
    config = stages(
        wvm=of(lora_rank=1),
        pretrained=PretrainedConfig(str(folder)),
        model=replace(stages().model, steps=20, average=0.0),
        loss=LossConfig(video=0.0),  # the values' gradients reach the video stream, too
    )
    critic, scores = train(Stages(config, corpus(), tmp_path))
    assert "vae step" not in scores and critic.config.model.transformer.lora_rank == 0
    assert critic.config.latents.mean == [0.1] * 4
    for name, value in critic.part("vae").items():
        np.testing.assert_array_equal(value, vae[name])
    moved = 0
    for name, value in critic.part("wvm").items():
        if name.startswith("video."):
            difference = np.asarray(value) - video[name.removeprefix("video.")]
            if name.endswith(".kernel") and ".blocks." in name:
                moved += np.abs(difference).max() > 1e-4
                assert np.linalg.matrix_rank(difference[0], tol=1e-4) <= 1
            else:
                np.testing.assert_array_equal(difference, 0)
    assert moved
    critic.save(tmp_path / "critic")
    assert type(critic).load(tmp_path / "critic").fingerprint == critic.fingerprint


def test_what_stands_still_in_each_stage(published, tmp_path, monkeypatch):
    """Low-rank updates alone train of a published video stream; of a frozen critic's, its text stays, too."""
    random_critic().save(tmp_path / "critic")
    asked = []

    def fitted(*given, trains=None):
        asked.append(trains or given[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(stages_module, "fit", fitted)
    latents = np.zeros((256, 2, 2, 2, 4), np.float16)
    pool = Pool(latents, np.zeros((256, 4), np.float32), np.zeros(256, np.int32))
    adapted = stages(wvm=of(lora_rank=1), pretrained=PretrainedConfig(str(published[0])), video_steps=3)
    still = stages(pretrained=PretrainedConfig(critic=str(tmp_path / "critic")), frozen=True)
    found = []
    for config in (adapted, still):
        made = Stages(config, corpus(), tmp_path)
        with pytest.raises(KeyboardInterrupt):
            made.wvm(lambda: (pool, pool))
        found.append({name for name in made.model.graph.shapes if asked[-1](name)})
    video = {name for name in found[0] if name.startswith("video.")}
    assert video and all(".lora_" in name for name in video) and not any(name.startswith("value.") for name in found[0])
    assert found[1] and all(name.startswith("value.") for name in found[1])
    with pytest.raises(InputError, match="frozen=true leaves nothing to low-rank updates"):
        replace(adapted, video_steps=0, frozen=True)
    with pytest.raises(InputError, match=r"reading\.prefixes=1 cannot be spread"):
        stages(reading=Reading(prefixes=1))
    with pytest.raises(InputError, match="warmup=5 at least 0 and less than the steps"):
        replace(stages().model, steps=5)


def test_a_critic_goes_on_learning_with_its_vae_as_it_is(tmp_path):
    first = random_critic()
    first.save(tmp_path / "critic")
    given = PretrainedConfig(critic=str(tmp_path / "critic"))
    config = stages(pretrained=given)
    vae, statistics = Stages(config, corpus(), tmp_path).vae()
    start = given.params(WorldValueModel(config.wvm), 0, None)
    for part, params in (("vae", vae), ("wvm", start)):
        assert params.keys() == first.part(part).keys()
        for name, value in first.part(part).items():
            np.testing.assert_array_equal(params[name], value)
    assert statistics == first.config.latents and first.fingerprint in given.described(config.wvm)
    histogram = replace(config.wvm, value=replace(config.wvm.value, head="hl_gaussian"))
    assert given.fingerprint(histogram) == given.fingerprint(config.wvm)
    other = given.params(WorldValueModel(histogram), 0, None)
    assert other["value.head.proj_out.bias"].shape == (51,)
    for name in first.part("wvm").keys() - {name for name in other if name.startswith("value.head.")}:
        np.testing.assert_array_equal(other[name], first.part("wvm")[name])
    longer = replace(config.vae, steps=config.vae.steps + 1)
    folders = [Stages(each, corpus(), tmp_path).stages for each in (config, stages(), replace(config, vae=longer))]
    assert folders[0]["wvm"].folder != folders[1]["wvm"].folder
    assert folders[0]["wvm"].folder == folders[2]["wvm"].folder  # a VAE that is given does not train
    for refused, message in (
        (lambda: given.fingerprint(replace(config.wvm, fps=9.0)), "its model has fps="),
        (lambda: given.fingerprint(of(num_layers=3)), "its transformer has num_layers="),
        (lambda: PretrainedConfig("folder", critic="tiny"), "exclude each other"),
        (lambda: PretrainedConfig(critic="tini").vae(), "neither a folder nor a shipped critic"),
    ):
        with pytest.raises(InputError, match=message):
            refused()


def test_published_weights_of_another_size_are_refused(published):
    folder = published[0]
    with pytest.raises(InputError, match="its transformer has num_layers=2, the preset 3"):
        PretrainedConfig(str(folder)).fingerprint(of(num_layers=3))
    with pytest.raises(InputError, match="its vae has base_dim=4, the preset 16"):
        PretrainedConfig(str(folder)).fingerprint(replace(preset(), vae=replace(preset().vae, base_dim=16)))
    with pytest.raises(InputError, match=r"needs pretrained\.path"):
        PretrainedConfig(value="interpolated")
    with pytest.raises(InputError, match=r"lora_rank needs pretrained\.path"):
        stages(wvm=of(lora_rank=1))


def test_weights_of_several_types_start_a_model(tmp_path):
    """diffusers keeps some tensors in f32 when it saves a bf16 model."""
    config = preset().transformer
    params = random(transformer_graph(config).shapes)
    half = jnp.bfloat16
    mixed = {name: value.astype(half) if name.endswith(".kernel") else value for name, value in params.items()}
    save_transformer(Transformer(config, mixed), tmp_path)
    found = load_transformer(tmp_path).params
    for name, value in mixed.items():
        np.testing.assert_array_equal(found[name], value.astype(np.float32))
    save_transformer(Transformer(config, params), tmp_path)
    found = load_transformer(tmp_path, half).params  # from f32: kernels are rounded, norms and modulation are not
    for name, value in mixed.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
