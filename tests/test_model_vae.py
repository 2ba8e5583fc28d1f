"""The video VAE: shapes, causality, and one pass against the reference's loop over chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_toy import preset
from wvm_rl.errors import InputError
from wvm_rl.model.codec import Codec, LatentStatistics, fit_size
from wvm_rl.model.wan.vae import VaeConfig, average_down, duplicate_up, patchify, unpatchify

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture(scope="module")
def codec():
    return Codec(preset())


@pytest.fixture(scope="module")
def params(codec):
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(rng.normal(size=shape, scale=0.3), jnp.float32) for name, shape in codec.graph.shapes.items()
    }


@pytest.fixture(scope="module")
def video():
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 9, 16, 16, 3)), jnp.float32)


@pytest.fixture(scope="module")
def encode(codec, params):
    return jax.jit(lambda video: codec.graph.merge(params).encode(video)[0])


def test_clips_of_1_5_9_frames(codec, params, video, encode):
    decode = jax.jit(lambda z: codec.graph.merge(params).decode(z))
    for frames, latents in ((1, 1), (5, 2), (9, 3)):
        z = encode(video[:, :frames])
        assert z.shape == (1, latents, 2, 2, 4)
    assert decode(z).shape == video.shape


def test_encoder_is_causal(video, encode):
    """A changed frame leaves all earlier latents alone, and shorter clips have the same first latents."""
    whole, changed = encode(video), encode(video.at[:, 5].add(1.0))
    np.testing.assert_array_equal(whole[:, :2], changed[:, :2])
    assert not np.allclose(whole[:, 2], changed[:, 2])
    np.testing.assert_allclose(encode(video[:, :5]), whole[:, :2], atol=2e-5)
    np.testing.assert_allclose(encode(video[:, :1]), whole[:, :1], atol=2e-5)


def test_every_frame_of_a_latent_counts(video, encode):
    whole = encode(video[:, :5])
    for frame in range(1, 5):
        assert not np.allclose(encode(video[:, :5].at[:, frame].add(1.0))[:, 1], whole[:, 1], atol=1e-4)


def test_decoder_is_causal(codec, params):
    decode = jax.jit(lambda z: codec.graph.merge(params).decode(z))
    z = jnp.asarray(np.random.default_rng(2).normal(size=(1, 3, 2, 2, 4)), jnp.float32)
    whole, changed = decode(z), decode(z.at[:, 2].add(1.0))
    np.testing.assert_array_equal(whole[:, :5], changed[:, :5])


def test_patchify_orders_channel_column_row():
    video = jnp.arange(2 * 2 * 3).reshape(1, 1, 2, 2, 3)  # value = 6*row + 3*column + channel
    np.testing.assert_array_equal(patchify(video, 2)[0, 0, 0, 0], [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11])
    np.testing.assert_array_equal(unpatchify(patchify(video, 2), 2), video)


def test_average_down_pads_the_front():
    x = jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1) * jnp.ones((1, 3, 2, 2, 1))
    # Pairs of frames (0,1), (2,3), four pixels each, into two channels: one a time tap.
    np.testing.assert_allclose(average_down(x, 2, 2, 2)[0, :, 0, 0], [[0, 1], [2, 3]])


def test_duplicate_up_drops_the_first_frames_twin():
    x = jnp.arange(1.0, 3.0).reshape(1, 2, 1, 1, 1) * jnp.ones((1, 2, 1, 1, 4))
    np.testing.assert_allclose(duplicate_up(x, 2, 2, 2)[0, :, 0, 0, 0], [1, 2, 2])


def test_latents_are_normalised(codec, params, video):
    statistics = LatentStatistics([0.1, -0.2, 0.3, 0.0], [2.0, 0.5, 1.0, 3.0])
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 5, 16, 16, 3)), jnp.uint8)
    unit = LatentStatistics([0.0] * 4, [1.0] * 4)
    plain = jax.jit(lambda x: codec.encode(params, x, unit))(frames)
    normal = jax.jit(lambda x: codec.encode(params, x, statistics))(frames)
    np.testing.assert_allclose(normal, (plain - np.array(statistics.mean)) / np.array(statistics.std), atol=1e-4)


def test_frames_shrink_by_whole_blocks():
    frames = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, -1)
    np.testing.assert_array_equal(fit_size(frames, 2)[0, :, :, 0], [[2, 4], [10, 12]])  # means 2.5, 4.5, ... to even
    with pytest.raises(InputError, match="render them"):
        fit_size(frames, 3)


def test_config_names_a_wrong_length():
    with pytest.raises(InputError, match="temperal_downsample"):
        VaeConfig(dim_mult=[1, 2], temperal_downsample=[True, True])
