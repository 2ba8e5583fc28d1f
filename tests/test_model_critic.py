"""The critic: overlap averaging by hand, independence of the batch, files and refusals."""

import hashlib
import json
import zlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load, load_file, save_file

from experiments import inference
from tests.model_toy import film, preset, random_critic
from tests.synthetic import dataset, episode
from wvm_rl.data.windows import NO_TEXT
from wvm_rl.errors import InputError
from wvm_rl.model import weights
from wvm_rl.model.critic import FORMAT, Critic, CriticConfig
from wvm_rl.model.critic_folder import folder_of
from wvm_rl.model.inference import Overlap
from wvm_rl.model.reading import Reading, mixed
from wvm_rl.speed import labelling_speed
from wvm_rl.values.wvm import Wvm

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture(scope="module")
def critic():
    return random_critic()


@pytest.fixture(scope="module")
def clips():
    return [(film(seed).frames, "push right" if seed % 2 else "push it over") for seed in range(5)]


@pytest.fixture(scope="module")
def values(critic, clips):
    return list(critic.values(clips, batch=2))


def test_overlap_averages_by_hand():
    """Four windows predict .2 .4 .6 | .4 .6 .8 | .8 .8 .8 | 1 1 1 for the frames 1-3 | 2-4 | 3-5 | 4-6."""
    state = Overlap.start(1)
    prefixes = []
    for chunk in ([0.2, 0.4, 0.6], [0.4, 0.6, 0.8], [0.8, 0.8, 0.8], [1.0, 1.0, 1.0]):
        mean, std = Overlap.moments(state)
        prefixes.append((float(mean[0, 0]), float(std[0, 0])))
        state = Overlap.add(state, jnp.asarray([[chunk]]))
    spread = np.std([0.6, 0.6, 0.8])
    np.testing.assert_allclose(prefixes, [(0, 0), (0.2, 0), (0.4, 0), (2 / 3, spread)], atol=1e-4)
    np.testing.assert_allclose(Overlap.moments(state)[0], [[(0.8 + 0.8 + 1) / 3, 0.9, 1.0]], rtol=1e-6)
    drawn = Overlap.moments(Overlap.add(Overlap.start(1), jnp.asarray([[[0.2, 0.4, 0.6]], [[0.4, 0.4, 1.0]]])))
    np.testing.assert_allclose(drawn, [[[0.3, 0.4, 0.8]], [[0.1, 0.0, 0.2]]], atol=1e-3)


def test_one_value_a_frame_within_bounds(clips, values):
    for (frames, _), (value, std) in zip(clips, values):
        assert value.shape == std.shape == (len(frames),)
        assert value.dtype == np.float32 and (value >= 0).all() and (value <= 1).all() and (std >= 0).all()
    assert not np.allclose(values[0][0], values[0][0][0])


def test_values_are_those_of_single_windows_in_order(critic, clips, values):
    """Inference by the definition, one window at a time."""
    frames, instruction = clips[2]
    model, tokens = critic.model, critic.model.config.text.tokenize(instruction)[None]
    encode = jax.jit(lambda shown: critic.codec.encode(critic.part("vae"), shown, critic.config.latents)[:, 1])
    predict = jax.jit(lambda current, prefix: model.predict(critic.part("wvm"), current, prefix, tokens)[0])
    sums, counts = np.zeros(len(frames) + 3), np.zeros(len(frames) + 3)  # from frame -3 on
    for t in range(len(frames)):
        shown = frames[np.clip(np.arange(t - 4, t + 1), 0, None)]
        prefix = sums[t] / max(counts[t], 1)
        chunk = predict(encode(shown[None]), np.array([prefix], np.float32))
        sums[t + 1 : t + 4] += np.asarray(chunk[1:])
        counts[t + 1 : t + 4] += 1
    np.testing.assert_allclose(values[2][0], (sums / np.maximum(counts, 1))[3:], atol=1e-4)


def test_values_do_not_depend_on_company(critic, clips, values):
    alone = [next(critic.values([clip], batch=2)) for clip in clips[3:]]
    backwards = list(critic.values(clips[::-1], batch=2))[::-1]
    for (value, std), (again, spread) in zip(values[3:] + values, alone + backwards):
        np.testing.assert_allclose(value, again, rtol=0, atol=1e-6)  # a row's rounding depends on the CPU's lanes
        np.testing.assert_allclose(std, spread, rtol=0, atol=1e-6)


def test_short_episodes_and_foreign_sizes_are_refused(critic, clips):
    frames, instruction = clips[0]
    with pytest.raises(InputError, match="8 frames, fewer than the 9"):
        list(critic.values([(frames[:8], instruction)], batch=2))
    with pytest.raises(InputError, match="do not fit"):
        list(critic.values([(frames[:, :12, :12], instruction)], batch=2))


def test_round_trip(critic, clips, values, tmp_path):
    critic.card = "card"
    critic.save(tmp_path / "critic")
    loaded = Critic.load(tmp_path / "critic")
    assert loaded.fingerprint == critic.fingerprint and loaded.card == "card"
    assert (loaded.fps, loaded.size, loaded.camera) == (5.0, 16, "toy")
    assert sorted(path.name for path in (tmp_path / "critic").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    for name, value in critic.params.items():
        np.testing.assert_array_equal(value, loaded.params[name])


def damaged(tmp_path, critic, change):
    """Saves the critic, lets `change` edit its tensors and configuration, loads it again."""
    folder = tmp_path / "critic"
    critic.save(folder)
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return lambda: Critic.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop("wvm.value.place"), r"wvm\.value\.place is missing"),
        (lambda t, c: t.update(extra=np.zeros(1, np.float32)), "unknown tensor extra"),
        (
            lambda t, c: t.update({"wvm.value.place": np.zeros((5, 16), np.float32)}),
            r"wvm\.value\.place is .*\[5, 16\]",
        ),
        (lambda t, c: t.update({"wvm.value.place": np.full((4, 16), np.nan, np.float32)}), "not finite"),
        (lambda t, c: c.update(format=99), "format 2"),
        (lambda t, c: c["model"].update(depth=3), "unknown key depth of TinyConfig"),
        (lambda t, c: c["model"].pop("fps"), "missing key fps of TinyConfig"),
        (lambda t, c: c["model"]["value"].update(width="wide"), "expected int"),
        (lambda t, c: c["latents"].update(mean=[0.0]), "needs 4 means"),
        (lambda t, c: c["latents"].update(std=[0.0] * 4), "standard deviations above 0"),
        (lambda t, c: c["model"]["value"].update(width=32), "its config needs"),
    ],
)
def test_damaged_critics_are_refused(tmp_path, critic, change, message):
    with pytest.raises(InputError, match=message):
        damaged(tmp_path, critic, change)()


def test_a_critic_takes_the_place_of_critics_alone(tmp_path, critic, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="is not empty and holds no critic"):
        critic.save(other)
    critic.save(tmp_path / "tiny")
    (tmp_path / "tiny" / "notes.md").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.md, which a critic saved there would replace"):
        critic.save(tmp_path / "tiny")
    (tmp_path / "tiny" / "notes.md").unlink()
    critic.save(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"critic=tiny is shipped and a folder here, too: give \./tiny"):
        folder_of("tiny")
    assert folder_of("./tiny").resolve() == tmp_path / "tiny" and folder_of("tiny-2").name == "tiny-2"


def test_frames_that_are_not_pixels_are_refused(critic, clips):
    frames, words = clips[0]
    with pytest.raises(InputError, match=r"episode 0 has frames float32\[.*\], the critic reads uint8"):
        list(critic.values([(frames.astype(np.float32) / 255, words)]))
    with pytest.raises(InputError, match="batch=0 must be at least 1"):
        list(critic.values([(frames, words)], batch=0))


def test_files_that_are_no_critic_are_refused(tmp_path, critic):
    with pytest.raises(InputError, match="give the folder of a critic"):
        Critic.load(tmp_path)
    critic.save(tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        Critic.load(tmp_path / "cut")


def test_half_precision_takes_half_the_room_and_is_read_back_whole(critic, tmp_path):
    half = critic.halved()
    for each, name in ((critic, "whole"), (half, "half")):
        each.save(tmp_path / name)
    whole, small = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert small < 0.6 * whole
    loaded = Critic.load(tmp_path / "half")
    assert loaded.fingerprint == half.fingerprint != critic.fingerprint
    for name, value in half.params.items():
        assert loaded.params[name].dtype == value.dtype
        np.testing.assert_allclose(value, critic.params[name], rtol=1e-3, atol=1e-7)
    assert Critic(half.config, half.params).halved().fingerprint == half.fingerprint
    name = min(name for name in critic.params if name.startswith("vae."))
    with pytest.raises(InputError, match=f"{name} has numbers beyond half precision"):
        Critic(critic.config, critic.params | {name: 1e6 + critic.params[name]}).halved()


def test_fewer_bits_of_the_models_weights_compress_better(critic):
    whole, rounded = critic.halved(), critic.halved(mantissa=7)
    sizes = {}
    for name, value in rounded.params.items():
        if name.startswith("vae.") or value.dtype != np.float32:
            assert np.array_equal(value, whole.params[name])
            continue
        np.testing.assert_allclose(value, critic.params[name], rtol=2**-8 + 2**-11, atol=2**-18)  # half a last place
        halves = [params[name].astype(np.float16) for params in (whole.params, rounded.params)]
        assert not (halves[1].view(np.uint16) & 0b111).any()
        sizes[name] = [len(zlib.compress(half.tobytes())) for half in halves]
    before, after = np.sum(list(sizes.values()), axis=0)
    assert after < 0.9 * before


def test_few_bits_are_saved_byte_by_byte_and_read_back_whole(critic, tmp_path):
    names = {}
    for mantissa in (6, 5):
        rounded = critic.halved(mantissa)
        rounded.save(tmp_path / str(mantissa))
        file = (tmp_path / str(mantissa) / "model.safetensors").read_bytes()
        names[mantissa] = [name for name, value in load(file).items() if value.dtype == np.uint8]
        loaded = Critic.load(tmp_path / str(mantissa))
        assert loaded.fingerprint == rounded.fingerprint
        loaded.save(tmp_path / "again")
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == file
    assert names[5] and not names[6] and all(name.startswith("wvm.") for name in names[5])
    (large,) = weights.halved({"": np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)}, 5).values()
    weights.save(tmp_path / "large", {"": large})
    apart, mixed = (
        len(zlib.compress(file)) for file in ((tmp_path / "large").read_bytes(), large.astype("<f2").tobytes())
    )
    assert apart < 0.9 * mixed


def test_fingerprint_follows_weights_and_configuration(critic):
    params = {**critic.params, "wvm.value.place": critic.params["wvm.value.place"] + 1}
    assert Critic(critic.config, params).fingerprint != critic.fingerprint
    other = CriticConfig(FORMAT, "tiny", "elsewhere", [], critic.config.model, critic.config.latents)
    assert Critic(other, critic.params).fingerprint != critic.fingerprint


def test_the_first_frame_stays_in_sight(critic, clips):
    """By the definition, as above; without it values and fingerprint are others."""
    watching = Critic(replace(critic.config, model=replace(preset(), first_frame=True)), critic.params)
    assert watching.fingerprint != critic.fingerprint
    found = [value for value, _ in watching.values(clips[:3], batch=2)]
    frames, instruction = clips[2]
    cut = next(watching.values([(np.concatenate([255 - frames[:1], frames]), instruction)], batch=2))[0]
    assert np.abs(cut[-3:] - found[2][-3:]).max() > 1e-3

    model, params = watching.model, watching.part("wvm")
    encode = jax.jit(lambda shown: critic.codec.encode(critic.part("vae"), shown, critic.config.latents)[:, 1])
    predict = jax.jit(lambda *given: model.predict(params, *given)[0])
    assert len({len(frames) for frames, _ in clips[:3]}) > 1
    for value, (frames, instruction) in zip(found, clips):
        tokens = model.config.text.tokenize(instruction)[None]
        first = None
        sums, counts = np.zeros(len(frames) + 3), np.zeros(len(frames) + 3)
        for t in range(len(frames)):
            latent = encode(frames[np.clip(np.arange(t - 4, t + 1), 0, None)][None])
            first = latent if first is None else first
            prefix = np.array([sums[t] / max(counts[t], 1)], np.float32)
            sums[t + 1 : t + 4] += predict(latent, prefix, tokens, first)[1:]
            counts[t + 1 : t + 4] += 1
        np.testing.assert_allclose(value, (sums / np.maximum(counts, 1))[3:], atol=1e-4)


def test_critics_without_the_first_frame_are_as_before(critic, tmp_path):
    critic.save(tmp_path / "critic")
    assert "first_frame" not in json.loads((tmp_path / "critic" / "config.json").read_text())["model"]
    released = Critic.load(folder_of("tiny-2"))  # whose card says
    assert released.fingerprint.startswith("7145b3a49ef5fc61") and not released.config.model.first_frame


@pytest.mark.parametrize(
    ("name", "config", "model"),
    [("tiny", "a28625307c83", "16416ec4b5c6"), ("tiny-2", "b37252d3f4bf", "43b76c28cc85")]
    + [("tiny-3", "ffb7cf7dd562", "b99a2bb6c51b"), ("tiny-4", "ffb7cf7dd562", "a5b67b449899")],
)
def test_shipped_critics_stay_as_released_and_are_saved_as_they_are(name, config, model, tmp_path):
    folder = folder_of(name)
    Critic.load(folder).save(tmp_path / "again")
    for file, released in (("config.json", config), ("model.safetensors", model)):
        content = (folder / file).read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(released), file
        assert (tmp_path / "again" / file).read_bytes() == content, file


def test_a_critic_without_text_is_another(critic, clips):
    """It is told none, so its values are others, and the same whatever it is asked for."""
    silent = Critic(replace(critic.config, instructions=[NO_TEXT]), critic.params)
    renamed = Critic(replace(critic.config, instructions=["juggle"]), critic.params)
    assert silent.fingerprint != critic.fingerprint == renamed.fingerprint
    frames = clips[0][0]
    (value, _), (same, _) = silent.values([(frames, "juggle three balls " * 9), (frames, NO_TEXT)])
    np.testing.assert_allclose(value, same, atol=1e-6)  # places in a batch may round differently
    (told, _) = next(critic.values([(frames, "juggle")]))
    assert not np.allclose(value, told, atol=1e-5)


def test_draws_of_a_chunks_distribution_spread(critic, clips, values):
    reading = critic.inference(draws=3)
    drawn, spread = next(reading.values(clips[:1], batch=2))
    np.testing.assert_array_equal(next(reading.values(clips[:1], batch=2))[0], drawn)
    assert not np.allclose(drawn, values[0][0], atol=1e-3) and spread[-1] > 0 == values[0][1][-1]  # one window
    assert Wvm(critic, 3).fingerprint != Wvm(critic).fingerprint == critic.fingerprint
    histogram = random_critic("hl_gaussian")
    drawn, spread = next(histogram.inference(draws=3).values(clips[:1], batch=2))
    assert not np.allclose(drawn, next(histogram.values(clips[:1]))[0], atol=1e-3) and spread[-1] > 0
    with pytest.raises(InputError, match="the head regression gives one value"):
        random_critic("regression").inference(draws=3)


def test_the_speed_of_labelling_is_of_these_films(critic, tmp_path):
    films = [replace(episode(index, 60, interval=4), instruction="push right") for index in range(2)]
    data = dataset(tmp_path / "films.hdf5", films)
    found = labelling_speed(Critic(replace(critic.config, camera="workspace"), critic.params), {"lift": data})
    assert found["windows_per_second"] == pytest.approx(found["windows_per_second_by"]["lift"])
    assert found["windows_per_second"] > 0 and found["vae_share"] > 0 and found["cores"] >= 1


def test_the_study_of_readings_starts_from_the_critics_own(critic, clips, values):
    latents, text = next(critic.programs.encoded(clips[:1]))
    chunks = np.asarray(inference.reader(critic, inference.VARIANTS["paper"])(latents, text))
    np.testing.assert_allclose(inference.joined(chunks, newest=False), values[0][0], atol=1e-5)
    by_hand = np.array([[0, 0, 0.1], [0, 0.2, 0.3], [0.3, 0.4, 0.5], [0.6, 0.7, 0.8]])
    np.testing.assert_allclose(inference.joined(by_hand, newest=False), [0.2, 1.3 / 3, 0.6, 0.8])
    np.testing.assert_allclose(inference.joined(by_hand, newest=True), [0.3, 0.6, 0.7, 0.8])
    sampled = np.asarray(inference.reader(critic, inference.VARIANTS["draws8"])(latents, text))
    assert sampled.shape == chunks.shape and not np.allclose(sampled, chunks, atol=1e-4)
    other = Critic(replace(critic.config, reading=mixed()), critic.params)
    chunks = np.asarray(inference.reader(other, inference.VARIANTS["both"])(latents, text))
    both = mixed().smoothed(inference.joined(chunks, newest=False))
    np.testing.assert_allclose(both, next(other.values(clips[:1]))[0], atol=1e-5)
    assert np.abs(both - values[0][0]).max() > 1e-3
    together = list(other.values(clips, batch=len(clips)))
    for one, (value, _) in zip(other.values(clips, batch=1), together):
        np.testing.assert_allclose(one[0], value, atol=1e-5)
    drawn = next(other.inference(draws=2).values(clips[:1]))
    assert drawn[0].shape == both.shape and not np.allclose(drawn[0], both, atol=1e-4)


def test_readings():
    value = np.array([0, 0, 0.9, 0, 0.9], np.float32)
    np.testing.assert_array_equal(Reading().smoothed(value), value)
    np.testing.assert_allclose(Reading(smooth=1).smoothed(value), [0, 0.225, 0.45, 0.45, 0.675])
    np.testing.assert_allclose(Reading(smooth=2).smoothed(np.full(4, 0.7)), 0.7)
    for wrong in ({"smooth": -1}, {"prefixes": -1}):
        with pytest.raises(InputError, match="must be at least 0"):
            Reading(**wrong)


def test_a_critic_keeps_its_reading(critic, tmp_path):
    other = Critic(replace(critic.config, reading=mixed()), critic.params)
    other.save(tmp_path / "other")
    loaded = Critic.load(tmp_path / "other")
    assert loaded.config.reading == mixed() and loaded.fingerprint == other.fingerprint != critic.fingerprint
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    del config["reading"]  # as critics of before have it
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    before = Critic.load(tmp_path / "other")
    assert before.config.reading == Reading() and before.fingerprint == critic.fingerprint
