"""Heads of the value stream: targets, losses, and what they read back."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_toy import preset
from wvm_rl.errors import InputError
from wvm_rl.model.heads import HEADS, HLGaussian
from wvm_rl.model.wvm import LossConfig, WorldValueModel

pytestmark = pytest.mark.usefixtures("compile_quickly")


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


def test_draws_of_a_histogram_follow_it():
    head, shares = HLGaussian(), np.zeros(51, np.float32)
    shares[[10, 30, 40]] = 0.2, 0.5, 0.3
    noise = jax.random.normal(jax.random.key(0), (4000, 4))
    logits = jnp.broadcast_to(jnp.log(shares + 1e-12), (4000, 4, 51))
    drawn = np.asarray(head.values(lambda *_: logits, jnp.full(4000, 0.3), 4, 1, noise))
    np.testing.assert_allclose(drawn[:, 0], 0.3, atol=1e-6)
    found = [np.isclose(drawn[:, 1:], head.centres[place]).mean() for place in (10, 30, 40)]
    np.testing.assert_allclose(found, [0.2, 0.5, 0.3], atol=0.02)  # 4 standard deviations of 12,000 draws
    high = head.values(lambda *_: logits, jnp.zeros(4000), 4, 1, noise + 9.0)  # beyond what f32 tells from 1
    np.testing.assert_allclose(high[:, 1:], head.centres[40], atol=0.4 + 1e-6)


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


@pytest.mark.parametrize(
    ("part", "wrong"),
    [("transformer", {"patch_size": []}), ("transformer", {"num_attention_heads": 0}), ("text", {"width": 0})],
)
def test_sizes_that_no_model_has_are_refused(part, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(getattr(preset(), part), **wrong)
    with pytest.raises(InputError, match="fps=nan must be positive and finite"):
        replace(preset(), fps=float("nan"))


def test_unknown_head_is_refused():
    with pytest.raises(InputError, match="flow, hl_gaussian, regression"):
        replace(preset().value, head="histogram")
