"""Training arrays: normalisation, and chunks that stop at the episode's end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import chunks
from tests.agents_toy import episodes
from wvm_rl.errors import InputError


def test_samples_are_the_steps_that_have_pictures():
    toy = episodes((5, 8))
    plain, statistics = chunks.build(toy, ("a",))
    steps = [np.array([0, 2, 4]), np.array([1, 6])]
    shown = [np.full((len(step), 2, 4, 4, 3), 10 * index, np.uint8) for index, step in enumerate(steps)]
    data, same = chunks.build(toy, ("a",), lambda index: (shown[index], steps[index]))
    np.testing.assert_array_equal(data.step, [0, 2, 4, 6, 11])
    assert data.samples == 5 and data.spec == (2, 3, 0, 2) and plain.spec == (2, 3, 0, 0) and plain.samples == 13
    obs, step = data.sample(np.array([4, 0]))
    np.testing.assert_array_equal(step, [11, 0])
    np.testing.assert_array_equal(obs.state, plain.obs[step])
    np.testing.assert_array_equal(obs.pictures[:, 0, 0, 0, 0], [10, 0])
    np.testing.assert_array_equal(same.obs_mean, statistics.obs_mean)


def test_chunks_repeat_the_last_action_and_mark_it():
    toy = episodes((3, 4))
    data, statistics = chunks.build(toy, ("a", "b"))
    actions, valid = jax.jit(chunks.gather, static_argnums=2)(data, jnp.array([0, 1, 2, 3, 6]), 4)
    np.testing.assert_array_equal(valid, [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    steps = [[0, 1, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2], [3, 4, 5, 6], [6, 6, 6, 6]]
    raw = np.concatenate([episode.actions for episode in toy])
    np.testing.assert_allclose(statistics.action(actions), raw[np.array(steps)], atol=1e-6)


def test_normalisation():
    toy = episodes((50, 60))
    for episode in toy:
        episode.obs["b"][:] = 4.0
        episode.actions[:, 0] = 0.25
        episode.actions[:, -1] = np.sign(episode.actions[:, -1])
    data, statistics = chunks.build(toy, ("b", "a"))
    assert data.obs.shape == (110, 3) and data.obs.dtype == jnp.float32
    np.testing.assert_allclose(data.obs[:, 0], 0)  # a constant is centred, not blown up
    np.testing.assert_allclose(np.mean(data.obs[:, 1:], 0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(data.obs[:, 1:], 0), 1, atol=1e-5)
    np.testing.assert_allclose(data.actions[:, 0], 0)
    assert set(np.unique(data.actions[:, -1])) == {-1.0, 1.0}  # the gripper stays a switch
    raw = chunks.observation(toy[0].obs, ("b", "a"))
    np.testing.assert_allclose(statistics.observation(raw), data.obs[:50], atol=1e-5)
    assert np.abs(statistics.observation(raw + 1e9)).max() == chunks.CLIP


def test_misfits_are_named():
    toy = episodes((3, 4))
    with pytest.raises(InputError, match="episode 0 has no key c: choose among a, b"):
        chunks.build(toy, ("a", "c"))
    with pytest.raises(InputError, match="no episodes"):
        chunks.build([], ("a",))
    with pytest.raises(InputError, match="no observation keys"):
        chunks.build(toy, ())
    toy[1].obs["b"] = toy[1].obs["b"][:2]
    with pytest.raises(InputError, match=r"episode 1: key b has shape \(2,\), expected \[4, D\]"):
        chunks.build(toy, ("a", "b"))
    for broken in ("width", "length", "observation"):
        toy = episodes((3, 4))
        if broken == "width":
            toy[1].actions = toy[1].actions[:, :2]
        elif broken == "length":
            toy[1].actions = toy[1].actions[:2]
        else:
            toy[1].obs["a"] = toy[1].obs["a"][:, :1]
        with pytest.raises(InputError, match=r"episode 1: actions .* do not fit"):
            chunks.build(toy, ("a",))
