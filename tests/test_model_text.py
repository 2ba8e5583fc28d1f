"""What the model reads of an instruction: a trained encoder, or embeddings from a file."""

import json
import re
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_toy import corpus, of, preset, random
from wvm_rl.embed import add
from wvm_rl.errors import InputError
from wvm_rl.model.codec import Codec, LatentStatistics
from wvm_rl.model.config import read
from wvm_rl.model.critic import FORMAT, Critic, CriticConfig
from wvm_rl.model.initial import PretrainedConfig
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.text import Umt5TextConfig, default_cache
from wvm_rl.model.wan.transformer import attend
from wvm_rl.model.wvm import WorldValueModel
from wvm_rl.values.wvm import Wvm

pytestmark = pytest.mark.usefixtures("compile_quickly")

ORIGIN = {"encoder": "umt5", "dtype": "float32"}


def embedded(file="", **changes):
    """The toy with precomputed embeddings of three tokens and their padding as text."""
    transformer = replace(preset().transformer, **changes)
    sizes = {"size": 16, "vae": preset().vae, "transformer": transformer, "value": preset().value}
    return PRESETS["wan2.2-ti2v-5b"](text=Umt5TextConfig(file=str(file), tokens=3, width=8), **sizes)


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


def test_a_critic_keeps_bf16_and_forgets_where_its_maker_kept_embeddings(tmp_path, monkeypatch):
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

    monkeypatch.setattr("wvm_rl.model.critic.default_cache", lambda: str(tmp_path / "umt5.safetensors"))
    told = replace(critic.config, text_origin=found.origin)
    Critic(told, critic.params).save(tmp_path / "critic")
    assert Critic.load(tmp_path / "critic").fingerprint == critic.fingerprint
    (tmp_path / "umt5.safetensors").unlink()
    add(tmp_path / "umt5.safetensors", {}, ORIGIN)
    with pytest.raises(InputError, match=r"learned with embeddings of .*bfloat16.* has those of .*float32"):
        Critic.load(tmp_path / "critic")

    given = PretrainedConfig(critic=str(tmp_path / "critic"))  # a training reads the file that it is given
    for dtype in ("bfloat16", "float32"):
        add(tmp_path / f"{dtype}.safetensors", {}, ORIGIN | {"dtype": dtype})
    mine, other = (embedded(tmp_path / dtype, text_length=8, compute_dtype="bfloat16") for dtype in ("mine", "mine"))
    mine.text.file, other.text.file = (str(tmp_path / f"{dtype}.safetensors") for dtype in ("bfloat16", "float32"))
    assert given.fingerprint(mine) == {"vae": critic.fingerprint}
    with pytest.raises(
        InputError, match=r"learned with embeddings of .*bfloat16.*float32.*give another wvm\.text\.file"
    ):
        given.fingerprint(other)


def test_texts_that_do_not_fit_their_length_are_refused():
    for config, message in ((lambda: embedded(text_length=3), "tokens=3"), (lambda: of(text_length=9), "give 0")):
        with pytest.raises(InputError, match=message):
            config()
