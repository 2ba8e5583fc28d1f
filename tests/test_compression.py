"""What the VAE learns from a batch: only its first clips are decoded, all are read for progress."""

from functools import cache

import jax
import numpy as np
import pytest

from tests.model_toy import corpus, preset
from wvm_rl.data.windows import Windows, WindowsConfig
from wvm_rl.errors import InputError
from wvm_rl.model.compression import Compression, CompressionConfig, kept

pytestmark = pytest.mark.usefixtures("compile_quickly")


@cache
def initial():
    return Compression(preset(), 2, CompressionConfig()).graph.init(0)


@pytest.fixture(scope="module")
def batch():
    return Compression(preset(), 2, CompressionConfig(decoded=1)).batches(
        Windows(corpus().training, WindowsConfig(), 0), 3
    )(0)


def parts(batch, **settings):
    compression = Compression(preset(), 2, CompressionConfig(decoded=1, **settings))
    loss, found = jax.jit(compression.loss)(initial(), batch, jax.random.key(0))
    return float(loss), {name: float(value) for name, value in found.items()}


def test_batches_are_clips_with_the_values_of_their_last_four_frames(batch):
    assert batch["frames"].shape == (3, 5, 16, 16, 3) and batch["background"].shape == (1, 16, 16, 3)
    assert batch["value"].shape == (3, 4) and batch["instruction"].shape == (3,)


def test_only_the_first_clips_are_decoded(batch):
    changed = batch | {"frames": np.concatenate([batch["frames"][:1], 255 - batch["frames"][1:]])}
    _, before = parts(batch, kl=0.0)
    _, after = parts(changed, kl=0.0)
    assert after["l1"] == pytest.approx(before["l1"], rel=1e-5) and after["kl"] != before["kl"]
    assert after["progress_rmse"] != before["progress_rmse"]


def test_the_loss_is_the_sum_of_its_parts(batch):
    reconstruction, found = parts(batch, kl=0.0, progress=0.0)
    whole, _ = parts(batch, kl=0.5, progress=3.0)
    assert whole == pytest.approx(reconstruction + 0.5 * found["kl"] + 3.0 * found["progress_rmse"] ** 2, rel=1e-5)


def test_pixels_that_leave_the_mean_picture_count_more(batch):
    still = batch | {"frames": batch["frames"][:, :1].repeat(5, 1)}
    alike = still | {"background": still["frames"][:1, 0]}  # nothing moves: all pixels count the same
    assert parts(alike, focus=0.0, kl=0.0)[0] == pytest.approx(parts(alike, focus=50.0, kl=0.0)[0], rel=1e-5)
    assert parts(batch, focus=0.0, kl=0.0)[0] != pytest.approx(parts(batch, focus=50.0, kl=0.0)[0], rel=1e-4)


def test_the_head_is_dropped():
    names = Compression(preset(), 2, CompressionConfig()).graph.shapes
    assert any(name.startswith("progress.") for name in names)
    assert set(kept(dict.fromkeys(names))) == {name.removeprefix("vae.") for name in names if name.startswith("vae.")}


@pytest.mark.parametrize("wrong", [{"kl": -1.0}, {"progress": float("inf")}, {"decoded": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"compression.{next(iter(wrong))}"):
        CompressionConfig(**wrong)
