"""Heads, text, low-rank updates, published weights as a start, and the memory plan."""

import json
import re
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.model_toy import corpus, preset, random_critic, stages
from wvm_rl.embed import add
from wvm_rl.errors import InputError
from wvm_rl.model import lora
from wvm_rl.model import stages as stages_module
from wvm_rl.model.codec import Codec, LatentStatistics
from wvm_rl.model.config import read
from wvm_rl.model.critic import FORMAT, Critic, CriticConfig
from wvm_rl.model.heads import HEADS, HLGaussian
from wvm_rl.model.initial import PretrainedConfig, interpolated
from wvm_rl.model.pool import Pool
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.reading import Reading
from wvm_rl.model.stages import Stages, train
from wvm_rl.model.text import Umt5TextConfig, default_cache
from wvm_rl.model.wan.load import Transformer, VideoVae, load_transformer, save_transformer, save_vae, transformer_graph
from wvm_rl.model.wan.transformer import attend
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.plan import PlanConfig, plan
from wvm_rl.values.wvm import Wvm

pytestmark = pytest.mark.usefixtures("compile_quickly")

ORIGIN = {"encoder": "umt5", "dtype": "float32"}


def of(**changes):
    """The toy with other settings of its transformer."""
    return replace(preset(), transformer=replace(preset().transformer, **changes))


def embedded(file="", **changes):
    """The toy with precomputed embeddings of three tokens and their padding as text."""
    transformer = replace(preset().transformer, **changes)
    sizes = {"size": 16, "vae": preset().vae, "transformer": transformer, "value": preset().value}
    return PRESETS["wan2.2-ti2v-5b"](text=Umt5TextConfig(file=str(file), tokens=3, width=8), **sizes)


def random(shapes, seed=0, scale=0.2):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape, scale=scale).astype(np.float32) for name, shape in shapes.items()}


# Heads


def test_hl_gaussian_target_by_hand():
    """PAPER section 3: 51 bins, sigma of one bin, one-hot within 1e-6 of 0 and 1, read as the expectation."""
    head = HLGaussian()
    target = np.asarray(head.target(2.0 * jnp.array([0.5, 0.0, 1.0, 1e-7, 0.011]) - 1.0))
    weights = np.exp(-0.5 * ((np.arange(51) / 50 - 0.5) * 50) ** 2)
    np.testing.assert_allclose(target[0], weights / weights.sum(), atol=1e-6)
    for row, place in ((1, 0), (2, 50), (3, 0)):
        np.testing.assert_array_equal(target[row], np.eye(51)[place])
    assert target[4, 0] > 0.1 and target[4, 1] > 0.1
    np.testing.assert_allclose(target @ np.asarray(head.centres), [0, -1, 1, -1, -0.978], atol=0.02)


@pytest.mark.parametrize("name", HEADS)
def test_a_perfect_network_has_the_values_and_the_least_loss(name):
    """Every head reads back what its own loss asks for, keeps the prefix, and looks only behind it."""
    head, value = HEADS[name](), jnp.array([[-0.4, -0.2, 0.0, 0.2], [0.6, 0.5, 0.5, 0.9]])

    def network(tokens, tau):
        if name == "flow":
            # The exact velocity towards `value`, from wherever the token is.
            return ((value - tokens) / jnp.maximum(1.0 - tau, 1e-3))[..., None]
        return value[..., None] if name == "regression" else jnp.log(head.target(value) + 1e-9)

    prefix = jnp.array([-0.3, 0.7])
    values = head.values(network, prefix, 4, 1)
    np.testing.assert_allclose(values[:, 0], prefix)
    np.testing.assert_allclose(values[:, 1:], value[:, 1:], atol=1e-3)
    key = jax.random.key(0)
    right = head.loss(network, value, prefix, key, 1.0)
    wrong = head.loss(lambda *given: 0.5 * network(*given), value, prefix, key, 1.0)
    assert right.shape == (2, 3) and (right < wrong + 1e-6).all() and right.mean() < wrong.mean()


def test_another_head_trains_and_predicts():
    """A few updates of the whole model lower the loss of one batch."""
    model = WorldValueModel(replace(preset(), value=replace(preset().value, head="hl_gaussian")))
    params = model.graph.init(0)
    rng = np.random.default_rng(0)
    batch = {
        "current": rng.normal(size=(4, *model.config.latent)),
        "future": rng.normal(size=(4, *model.config.latent)),
        "value": rng.uniform(size=(4, 4)),
        "text": model.config.text.tokenize("lift")[None],
        "instruction": np.zeros(4, int),
    }
    config = LossConfig(video=0.0, random_prefix=0.0)
    step = jax.jit(jax.value_and_grad(lambda params: model.loss(params, batch, jax.random.key(0), config)[0]))
    first = None
    for _ in range(30):
        loss, grads = step(params)
        first = first or float(loss)
        params = jax.tree.map(lambda value, grad: value - 0.05 * grad, params, grads)
    assert float(loss) < 0.95 * first
    tokens = np.repeat(batch["text"], 4, 0)
    values = jax.jit(model.predict)(params, batch["current"], batch["value"][:, 0], tokens)
    assert values.shape == (4, 4) and np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()


def test_unknown_head_is_refused():
    with pytest.raises(InputError, match="flow, hl_gaussian, regression"):
        replace(preset().value, head="histogram")


# Presets and text


def test_full_size_has_the_papers_sizes():
    """5.0 B of video and 0.7 B of value stream, by shapes alone."""
    shapes = WorldValueModel(PRESETS["wan2.2-ti2v-5b"]()).graph.shapes
    count = {part: sum(np.prod(s) for n, s in shapes.items() if n.startswith(part)) for part in ("video", "value")}
    assert count == {"video": 4_999_787_712, "value": 666_074_625}
    assert shapes["value.stack.blocks.attn1.to_q.kernel"] == (30, 512, 3072)


def test_repeated_padding_is_attended_to_once():
    """A last key counted as often equals as many copies of it."""
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, size, 3, 8)), jnp.float32) for size in (5, 4, 4))
    copies = [jnp.concatenate([x, jnp.repeat(x[:, -1:], 508, 1)], 1) for x in (key, value)]
    np.testing.assert_allclose(attend(query, key, value, 509), attend(query, *copies), atol=1e-5)


def test_short_text_stands_for_padded_text():
    """The whole model sees no difference between 512 zero-padded tokens and the few that differ."""
    short, full = (WorldValueModel(embedded(text_length=length)) for length in (512, 4))
    params = random(full.graph.shapes)
    rng = np.random.default_rng(1)
    current = rng.normal(size=(2, 1, *full.config.latent)).astype(np.float32)
    text = np.zeros((2, 512, full.config.transformer.text_dim), np.float32)
    text[:, :3] = rng.normal(size=(2, 3, text.shape[-1]))

    def keys(model, text):
        return jax.jit(lambda text: model.graph.merge(params).context(current, text))(text)

    for a, b in zip(keys(short, text[:, :4]), keys(full, text)):
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4)


def test_embeddings_of_instructions_come_from_one_file(tmp_path):
    path = tmp_path / "umt5.safetensors"
    config = Umt5TextConfig(file=str(path), tokens=3, width=8)
    with pytest.raises(InputError, match=r"python -m wvm_rl\.embed"):
        config.tokenize("lift")
    rng = np.random.default_rng(0)
    add(path, {"lift": rng.normal(size=(2, 8)).astype(np.float32)}, ORIGIN)
    add(path, {"stack": np.ones((4, 8), np.float32), "wide": np.ones((2, 9), np.float32)}, ORIGIN)
    assert json.loads(config.origin) == ORIGIN
    with pytest.raises(InputError, match="holds embeddings of dtype=float32 encoder=umt5, these are of dtype=bfloat16"):
        add(path, {}, ORIGIN | {"dtype": "bfloat16"})
    tokens = config.tokenize("lift")
    assert tokens.shape == config.shape == (4, 8) and tokens.dtype == config.dtype
    assert (tokens[:2] != 0).all() and (tokens[2:] == 0).all()  # the padding Wan attends to
    for instruction, message in (("push", "has no embedding of `push`"), ("stack", "4 tokens"), ("wide", "expected")):
        with pytest.raises(InputError, match=message):
            config.tokenize(instruction)
    with pytest.raises(InputError, match=re.escape("""'instructions=["don'"'"'t"]'""")):
        config.tokenize("don't")
    path.write_bytes(path.read_bytes()[:50])
    for read_it in (lambda: config.tokenize("lift"), lambda: config.origin, lambda: add(path, {}, ORIGIN)):
        with pytest.raises(InputError, match="not a whole safetensors file"):
            read_it()


def test_embedded_text_reaches_the_values(tmp_path):
    """A model of the large preset's kind, with embeddings in place of a trained encoder."""
    path = tmp_path / "umt5.safetensors"
    rng = np.random.default_rng(0)
    add(path, {words: rng.normal(size=(2, 8)).astype(np.float32) for words in corpus().instructions}, ORIGIN)
    config = embedded(path, text_length=8)
    large, text = type(config), config.text
    model = WorldValueModel(config)
    assert not any(name.startswith("text") for name in model.graph.shapes)
    tokens = np.stack([text.tokenize(words) for words in corpus().instructions])
    current = rng.normal(size=(1, *config.latent)).astype(np.float32).repeat(2, 0)
    values = jax.jit(model.predict)(random(model.graph.shapes), current, np.zeros(2, np.float32), tokens)
    assert not np.allclose(values[0], values[1])  # only the instruction differs
    written = json.loads(json.dumps(asdict(config)))
    assert read(large, written, "config.json") == config
    with pytest.raises(InputError, match="missing key file of Umt5TextConfig"):
        read(large, written | {"text": {"tokens": 3}}, "config.json")


def test_a_critic_keeps_bf16_and_forgets_where_its_maker_kept_embeddings(tmp_path):
    config = embedded(tmp_path / "mine", text_length=8, compute_dtype="bfloat16")
    shapes = {f"vae.{name}": shape for name, shape in Codec(config).graph.shapes.items()}
    shapes |= {f"wvm.{name}": shape for name, shape in WorldValueModel(config).graph.shapes.items()}
    statistics = LatentStatistics([0.0] * 4, [1.0] * 4)
    critic = Critic(CriticConfig(FORMAT, "wan2.2-ti2v-5b", "toy", [], config, statistics), random(shapes))
    critic.save(tmp_path / "critic")
    assert "mine" not in (tmp_path / "critic" / "config.json").read_text()
    found = Critic.load(tmp_path / "critic")
    assert found.fingerprint == critic.fingerprint and found.config.model.text.file == default_cache()
    assert found.params["wvm.video.stack.blocks.ffn_in.kernel"].dtype == jnp.bfloat16
    found.config.model.text.file = str(tmp_path / "umt5.safetensors")
    sources = []
    for dtype in ("float32", "bfloat16"):
        (tmp_path / "umt5.safetensors").unlink(missing_ok=True)
        add(tmp_path / "umt5.safetensors", {}, ORIGIN | {"dtype": dtype})
        sources.append(Wvm(found).fingerprint)
    assert sources[0] != sources[1]  # values depend on the text encoder


# Low-rank updates


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


# Published weights as a start


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
            made.wvm(pool, pool)
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
    assert Stages(config, corpus(), tmp_path).model_meta != Stages(stages(), corpus(), tmp_path).model_meta
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


def test_texts_that_do_not_fit_their_length_are_refused():
    for config, message in ((lambda: embedded(text_length=3), "tokens=3"), (lambda: of(text_length=9), "give 0")):
        with pytest.raises(InputError, match=message):
            config()


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


# Precision and memory


def test_bf16_keeps_norms_and_sums_in_f32():
    """Outputs are close to f32's; storing kernels in bf16 changes no bit."""
    exact, quick = WorldValueModel(of()), WorldValueModel(of(compute_dtype="bfloat16"))
    params = {name: jnp.asarray(value) for name, value in random(exact.graph.shapes).items()}
    stored = {name: value.astype(quick.stored(name)) for name, value in params.items()}
    kinds = {name: str(value.dtype) for name, value in stored.items()}
    assert kinds["video.stack.blocks.ffn_in.kernel"] == "bfloat16" and kinds["value.head.proj_out.kernel"] == "float32"
    assert {kind for name, kind in kinds.items() if not name.endswith(".kernel")} == {"float32"}
    rng = np.random.default_rng(1)
    current, prefix = rng.normal(size=(3, *exact.config.latent)).astype(np.float32), np.full(3, 0.5, np.float32)
    tokens = np.stack([exact.config.text.tokenize("lift")] * 3)
    values = [
        np.asarray(jax.jit(m.predict)(p, current, prefix, tokens))
        for m, p in ((exact, params), (quick, params), (quick, stored))
    ]
    assert 0 < np.abs(values[1] - values[0]).max() < 0.05
    np.testing.assert_array_equal(values[1], values[2])
    kinds = set(of_half(jax.make_jaxpr(quick.predict)(stored, current, prefix, tokens).jaxpr))
    assert kinds == {"convert_element_type", "concatenate", "scan"}  # bf16 only on its way into a matmul


def of_half(jaxpr):
    """Primitives with a result in bf16, nested ones too."""
    for equation in jaxpr.eqns:
        if any(getattr(out.aval, "dtype", None) == jnp.bfloat16 for out in equation.outvars):
            yield str(equation.primitive)
        for inner in jaxprs_in_params(equation.params):
            yield from of_half(inner)


def test_plan_counts_bytes_without_allocating():
    config = PlanConfig(wvm=preset(), batch=4)
    count = sum(np.prod(shape) for shape in WorldValueModel(preset()).graph.shapes.values())
    full = plan(config)
    assert full.parameters == 4 * count
    assert 3 * 4 * count <= full.optimiser < 3 * 4 * count + 100 and full.temporary > 4 * count
    low = plan(replace(config, wvm=replace(of(lora_rank=2), first_frame=True), average=0.0))
    assert low.batch > full.batch  # the first frames
    assert low.optimiser < full.optimiser and low.parameters > full.parameters
    inference = plan(replace(config, mode="inference"))
    vae = sum(np.prod(shape) for shape in Codec(preset()).graph.shapes.values())
    assert inference.parameters == 4 * (count + vae) and inference.optimiser == 0
    for changes, message in (({"mode": "full"}, "choose one of train, inference"), ({"batch": 0}, "at least 1")):
        with pytest.raises(InputError, match=message):
            replace(config, **changes)
