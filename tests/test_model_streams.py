"""The joint attention's mask, bitwise; the flow's boundary; one Euler step; the loss."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_toy import preset
from wvm_rl.errors import InputError
from wvm_rl.model import flow
from wvm_rl.model.wan.rope import grid, table
from wvm_rl.model.wvm import LossConfig, WorldValueModel

pytestmark = pytest.mark.usefixtures("compile_quickly")

SIZE = 3


@pytest.fixture(scope="module")
def world():
    """A model whose output layers are not zero, and inputs of its streams."""
    model = WorldValueModel(preset())
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.normal(size=shape, scale=0.2), jnp.float32) for name, shape in model.graph.shapes.items()
    }
    latent = model.config.latent
    inputs = {
        "current": rng.normal(size=(SIZE, 1, *latent)),
        "future": rng.normal(size=(SIZE, 1, *latent)),
        "value": rng.normal(size=(SIZE, 4)),
        "text": rng.normal(size=(SIZE, 2, model.config.transformer.text_dim)),
    }
    return model, params, {name: jnp.asarray(array, jnp.float32) for name, array in inputs.items()}


@pytest.fixture(scope="module")
def outputs(world):
    """Compiled once: everything the three streams say, of a first frame, too, if there is one."""
    model, params, _ = world

    @jax.jit
    def run(current, future, value, text, first=None):
        streams = model.graph.merge(params)
        context = streams.context(current, text, None if first is None else streams.memory(first, text))
        tau = jnp.full((SIZE, 1), 0.3)
        return {
            "current": context,
            "future": streams.future_velocity(future, tau, text, context),
            "value": streams.value_outputs(value, jnp.full((SIZE, 4), 0.3), text, context),
        }

    return run


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_future_touches_neither_current_nor_value(world, outputs):
    _, _, inputs = world
    before, after = outputs(**inputs), outputs(**{**inputs, "future": inputs["future"].at[:, 0, 0, 0, 0].add(1.0)})
    assert same(before["current"], after["current"]) and same(before["value"], after["value"])
    assert not same(before["future"], after["future"])


def test_value_touches_no_video(world, outputs):
    _, _, inputs = world
    before, after = outputs(**inputs), outputs(**{**inputs, "value": inputs["value"].at[:, 1].add(1.0)})
    assert same(before["current"], after["current"]) and same(before["future"], after["future"])
    assert not same(before["value"], after["value"])


def test_current_reaches_both(world, outputs):
    _, _, inputs = world
    before, after = outputs(**inputs), outputs(**{**inputs, "current": inputs["current"] + 1.0})
    assert not same(before["future"], after["future"]) and not same(before["value"], after["value"])


def test_dropping_the_future_leaves_the_value(world, outputs):
    model, params, inputs = world

    @jax.jit
    def without_future(current, value, text):
        streams = model.graph.merge(params)
        return streams.value_outputs(value, jnp.full((SIZE, 4), 0.3), text, streams.context(current, text))

    alone = without_future(inputs["current"], inputs["value"], inputs["text"])
    np.testing.assert_allclose(outputs(**inputs)["value"], alone, atol=1e-5)  # two programs round differently


def test_first_frame_reaches_all_and_nothing_reaches_it(world, outputs):
    _, _, inputs = world
    first = -inputs["current"]
    before, without = outputs(**inputs, first=first), outputs(**inputs)
    cells = without["current"][0].shape[2]
    assert before["current"][0].shape[2] == 2 * cells
    after = outputs(**inputs, first=first + 1.0)
    own = jax.tree.map(lambda x: x[:, :, cells:], (before["current"], after["current"]))
    assert not same(*own) and not same(before["future"], after["future"]) and not same(before["value"], after["value"])
    other = outputs(**{**inputs, "current": inputs["current"] + 1.0}, first=first)
    memory = jax.tree.map(lambda x: x[:, :, :cells], (before["current"], other["current"]))
    assert same(*memory)


def test_the_first_frame_is_one_latent_before_the_current(world):
    model, params, inputs = world

    @jax.jit
    def run(first, text):
        streams = model.graph.merge(params)
        place = table(grid([-1.0], *streams.cells), streams.head_dim)
        return streams.memory(first, text), streams.video(first, jnp.zeros((SIZE, 1)), text, place)[1]

    assert same(*run(inputs["current"], inputs["text"]))


def test_windows_of_an_episode_share_its_first_frame(world):
    """Keys and values of windows together are those of each alone."""
    _, params, inputs = world
    model = WorldValueModel(dataclasses.replace(preset(), first_frame=True))
    current, text, first = inputs["current"][:, 0], inputs["text"], inputs["future"][:, 0]
    streams = model.graph.merge(params)
    both = model.context(streams, jnp.concatenate([current, 2 * current]), text, first)
    for number, alone in enumerate((current, 2 * current)):
        part = jax.tree.map(lambda x, at=number * SIZE: x[:, at : at + SIZE], both)
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), part, model.context(streams, alone, text, first)
        )


def test_first_frame_is_in_loss_and_values(world):
    _, params, inputs = world
    model = WorldValueModel(dataclasses.replace(preset(), first_frame=True))
    batch = {**batch_of(model, inputs), "first": inputs["future"][:, 0]}
    loss = jax.jit(lambda batch: model.loss(params, batch, jax.random.key(0), LossConfig())[1])
    before, after = loss(batch), loss({**batch, "first": 2 * batch["first"]})
    assert before["value"] != after["value"] and before["video"] != after["video"]
    predict = jax.jit(model.predict)
    tokens, prefix = batch["text"][batch["instruction"]], batch["value"][:, 0]
    values = [predict(params, batch["current"], prefix, tokens, first) for first in (batch["first"], batch["current"])]
    assert not np.allclose(*values)


def test_tokens_of_one_stream_see_each_other(world, outputs):
    _, _, inputs = world
    before, after = outputs(**inputs), outputs(**{**inputs, "value": inputs["value"].at[:, 3].add(1.0)})
    assert (np.asarray(before["value"] != after["value"])).all()


def test_rope_splits_and_rotates_as_wan():
    cosine, sine = table(grid([2.0], 2, 3), 128)
    assert cosine.shape == (6, 64)
    # The last token is at time 2, row 1, column 2; pairs: 22 of time, 21 of height, 21 of width.
    angles = np.concatenate(
        [at * 1e4 ** -(np.arange(dims // 2) / (dims // 2)) for at, dims in ((2.0, 44), (1.0, 42), (2.0, 42))]
    )
    np.testing.assert_allclose(cosine[5], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sine[5], np.sin(angles), atol=1e-6)


def test_boundary_to_wan_mirrors_time_and_negates():
    data, noise, tau = jnp.asarray([[2.0, -1.0]]), jnp.asarray([[0.5, 0.25]]), jnp.asarray([[0.75]])
    seen = {}

    def wan(x, timestep):
        """A perfect network of Wan's convention: estimates noise - data from x_s."""
        seen["x"], seen["timestep"] = x, timestep
        return noise - data

    s = 1.0 - tau
    velocity = flow.through_wan(wan, flow.noised(data, noise, tau), tau)
    np.testing.assert_allclose(seen["x"], (1 - s) * data + s * noise)  # Wan's own interpolation
    np.testing.assert_allclose(seen["timestep"], [[250.0]])
    np.testing.assert_allclose(velocity, flow.velocity(data, noise))


def test_one_euler_step_of_a_straight_flow_is_exact():
    data = jnp.asarray([0.3, 0.9])
    field = lambda y, tau: (data - y) / (1.0 - tau)  # noqa: E731, the straight path's velocity
    np.testing.assert_allclose(flow.euler(field, jnp.zeros(2)), data)
    np.testing.assert_allclose(flow.euler(field, jnp.zeros(2), steps=4), data, rtol=1e-6)


def test_euler_through_the_boundary_is_wans_scheduler():
    """Wan's own loop: sigma falls from 1 to 0, x += (next - sigma) * network(x, 1000 * sigma)."""

    def wan(x, timestep):
        return jnp.sin(3 * x) + timestep / 700.0

    x = start = jnp.asarray([0.3, -1.2, 0.8])
    sigmas = np.linspace(1.0, 0.0, 5)
    for sigma, following in itertools.pairwise(sigmas):
        x = x + (following - sigma) * wan(x, 1000.0 * sigma)
    ours = flow.euler(lambda y, tau: flow.through_wan(wan, y, tau), start, steps=4)
    np.testing.assert_allclose(ours, x, rtol=1e-6)


def test_shift_favours_noise_as_wan():
    tau = np.asarray(flow.draw_tau(jax.random.key(0), (4000,), 5.0))
    uniform = np.asarray(flow.draw_tau(jax.random.key(0), (4000,), 1.0))
    np.testing.assert_allclose(1 - tau, 5 * (1 - uniform) / (1 + 4 * (1 - uniform)), rtol=1e-4, atol=1e-6)
    assert tau.min() >= 0 and tau.max() <= 1 and abs(uniform.mean() - 0.5) < 0.02 and tau.mean() < 0.3


def batch_of(model, inputs):
    tokens = np.stack([model.config.text.tokenize("lift the cube"), model.config.text.tokenize("stack the cubes")])
    value = jax.nn.sigmoid(inputs["value"])
    return {
        "current": inputs["current"][:, 0],
        "future": inputs["future"][:, 0],
        "value": value,
        "text": tokens,
        "instruction": np.array([0, 1, 0]),
    }


def test_loss_of_a_silent_network_is_that_of_its_targets(world):
    """With zero output layers the loss is the mean square of y - eps, over three of four value tokens."""
    model, _, inputs = world
    batch, key = batch_of(model, inputs), jax.random.key(3)
    silent = model.graph.init(0)
    total, parts = jax.jit(lambda key: model.loss(silent, batch, key, LossConfig(video=0.5)))(key)
    keys = jax.random.split(key, 5)
    target = 2 * batch["value"] - 1 - jax.random.normal(jax.random.split(keys[2])[0], batch["value"].shape)
    video = inputs["future"] - jax.random.normal(keys[3], inputs["future"].shape)
    np.testing.assert_allclose(parts["value"], jnp.square(target[:, 1:]).mean(), rtol=1e-5)
    np.testing.assert_allclose(parts["video"], jnp.square(video).mean(), rtol=1e-5)
    np.testing.assert_allclose(total, parts["value"] + 0.5 * parts["video"], rtol=1e-6)


def test_draws_of_a_window_average_its_noise(world):
    """Nine draws a window: the same loss on average as one draw, a third of its spread; the video's loss stays."""
    model, params, inputs = world
    batch, keys = batch_of(model, inputs), jax.random.split(jax.random.key(0), 64)
    one, nine = (
        jax.jit(jax.vmap(lambda key, draws=draws: model.loss(params, batch, key, LossConfig(draws=draws))[1]))(keys)
        for draws in (1, 9)
    )
    np.testing.assert_allclose(nine["value"].mean(), one["value"].mean(), atol=4 * float(one["value"].std()) / 8)
    assert 0.2 < float(nine["value"].std() / one["value"].std()) < 0.5
    np.testing.assert_allclose(nine["video"], one["video"], rtol=1e-5)
    with pytest.raises(InputError, match=r"loss\.draws=0"):
        LossConfig(draws=0)


def test_random_prefix_hides_the_true_one(world):
    """At p = 1 the loss does not depend on the prefix's own value, at p = 0 it does."""
    model, params, inputs = world
    batch = batch_of(model, inputs)
    other = {**batch, "value": batch["value"].at[:, 0].set(0.123)}
    for share, hidden in ((1.0, True), (0.0, False)):
        config = dataclasses.replace(LossConfig(), random_prefix=share, video=0.0)
        loss = jax.jit(lambda batch, config=config: model.loss(params, batch, jax.random.key(0), config)[0])
        assert (float(loss(batch)) == float(loss(other))) is hidden


def test_instructions_change_values(world):
    model, params, inputs = world
    predict = jax.jit(model.predict)
    prefix = jnp.full(SIZE, 0.5)
    text = [np.stack([model.config.text.tokenize(words)] * SIZE) for words in ("lift the cube", "stack the cubes")]
    values = [predict(params, inputs["current"][:, 0], prefix, tokens) for tokens in text]
    assert values[0].shape == (SIZE, 4)
    np.testing.assert_allclose(values[0][:, 0], 0.5)  # the given prefix
    assert not np.allclose(values[0], values[1])
