"""What the policies learn on data whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.base import Columns
from agents.cfg import CFGConfig
from agents.chunks import Seen
from agents.policies.base import Spec
from agents.policies.flow import FlowConfig
from agents.policies.gaussian import GaussianConfig
from agents.policies.seeing import Seeing, convolved, shifted
from agents.rcp import RCPConfig
from agents.trainer import TrainerConfig, train
from tests.agents_toy import single_steps
from wvm_rl.errors import InputError

pytestmark = pytest.mark.usefixtures("compile_quickly")

SMALL = {"horizon": 1, "execute": 1, "width": 64, "layers": 1}
CONFIG = TrainerConfig(updates=400, batch=128, interval=400, learning_rate=3e-3, warmup=50, ema=0.99)
RNG = np.random.default_rng(0)
MODES = np.where(RNG.random(2000) < 0.5, -1.0, 1.0)
NOISE = 0.1 * RNG.normal(size=(2000, 2))


def fit(policy, obs, actions, columns=None):
    data, statistics = single_steps(obs, actions)
    columns = columns or Columns(np.ones(len(obs), np.float32))
    return train(policy, data, statistics, [columns], CONFIG, (0,), progress=False).seed(0)


def bimodal():
    """Actions near (-1, -obs) or (+1, obs), half each."""
    obs = RNG.uniform(-1, 1, (2000, 1))
    return obs, np.stack([MODES, MODES * obs[:, 0]], 1) + NOISE


def test_flow_keeps_both_modes():
    obs, actions = bimodal()
    policy = FlowConfig(**SMALL)
    asked = jnp.full((500, 1), 0.7)
    samples = np.asarray(policy.sample(fit(policy, obs, actions), asked, jax.random.key(1)))[:, 0]
    share = (samples[:, 0] > 0).mean()
    assert 0.35 < share < 0.65
    for mode in (-1, 1):
        near = samples[np.sign(samples[:, 0]) == mode]
        np.testing.assert_allclose(near.mean(0), [mode, 0.7 * mode], atol=0.12)
        assert near.std(0).max() < 0.35


def pictured(places):
    """Pictures [N,1,32,32,3] u8 of a bright square at `places` [N,2] in [-1,1]."""
    line = np.arange(32)
    centre = np.round(16 + 10 * places).astype(int)
    down, across = (np.abs(line - centre[:, axis, None]) <= 2 for axis in (0, 1))
    square = (down[:, :, None] & across[:, None]).astype(np.uint8)
    return np.repeat(square[:, None, ..., None] * 200, 3, -1)


def test_a_seeing_policy_reads_pictures():
    places = RNG.uniform(-1, 1, (600, 2))
    data, statistics = single_steps(np.zeros((600, 1)), np.concatenate([places, np.ones((600, 1))], 1))
    data = data._replace(obs=Seen(data.obs, jnp.asarray(pictured(places))))
    policy = Seeing(GaussianConfig(**SMALL, min_std=0.02))
    config = TrainerConfig(updates=100, batch=32, interval=100, learning_rate=5e-3, warmup=10, ema=0.9)
    columns = Columns(np.ones(600, np.float32))
    params = train(policy, data, statistics, [columns], config, (0,), progress=False).seed(0)
    asked = RNG.uniform(-0.8, 0.8, (100, 2))
    seen = Seen(jnp.zeros((100, 1)), jnp.asarray(pictured(asked)))
    found = np.asarray(policy.sample(params, seen, jax.random.key(0)))[:, 0, :2]
    assert np.sqrt(np.mean((found - asked) ** 2)) < 0.25 < asked.std()


def test_pictures_are_shifted_alike_on_all_cameras():
    pictures = jnp.asarray(RNG.integers(0, 256, (6, 2, 32, 32, 3)), jnp.uint8)
    moved = np.asarray(shifted(jax.random.key(0), pictures))
    moves = set()
    for before, after in zip(np.asarray(pictures), moved):
        inner = after[:, 4:-4, 4:-4]
        (move,) = [
            (down, across)
            for down in range(-2, 3)
            for across in range(-2, 3)
            if np.array_equal(inner, before[:, 4 + down : 28 + down, 4 + across : 28 + across])
        ]
        moves.add(move)
    assert len(moves) > 1


def test_gaussian_fits_a_linear_map_and_its_noise():
    obs = RNG.normal(size=(2000, 3))
    matrix = np.array([[1.0, 0.5], [-0.5, 0.2], [0.0, 1.0]])
    policy = GaussianConfig(**SMALL, min_std=0.02)
    params = fit(policy, obs, obs @ matrix + 2 * NOISE)
    asked = 0.5 * RNG.normal(size=(400, 3))
    mean = np.asarray(policy.sample(params, jnp.asarray(asked, jnp.float32), jax.random.key(0)))[:, 0]
    assert np.sqrt(np.mean((mean - asked @ matrix) ** 2)) < 0.1
    noisy = GaussianConfig(**SMALL, min_std=0.02, temperature=1.0)
    drawn = np.asarray(noisy.sample(params, jnp.asarray(asked, jnp.float32), jax.random.key(0)))[:, 0]
    assert 0.15 < (drawn - mean).std() < 0.25


def test_rcp_acts_like_the_better_mode():
    policy = FlowConfig(**SMALL)
    obs, actions = bimodal()
    config = RCPConfig(groups=1, bins=2)
    cond = (2 * (MODES > 0) - 1.0).astype(np.float32)[:, None]
    columns = Columns(np.ones(2000, np.float32), cond)
    params = fit(policy, obs, actions, columns)
    best = jnp.broadcast_to(config.act_cond(columns), (300, 1))
    asked = jnp.full((300, 1), -0.5)
    good = np.asarray(policy.sample(params, asked, jax.random.key(0), best))[:, 0]
    bad = np.asarray(policy.sample(params, asked, jax.random.key(0), -best))[:, 0]
    np.testing.assert_allclose(good.mean(0), [1, -0.5], atol=0.15)
    np.testing.assert_allclose(bad.mean(0), [-1, 0.5], atol=0.15)
    assert (good[:, 0] > 0).mean() > 0.97


def test_hidden_optimality_leaves_both_modes_and_guidance_finds_the_better():
    """Actions of the better mode are optimal; asked without knowing, both come; guided, the better one alone."""
    policy, config = FlowConfig(**SMALL), CFGConfig(drop=0.3)
    obs, actions = bimodal()
    optimal = np.where(MODES > 0, 1.0, -1.0).astype(np.float32)[:, None]
    columns = Columns(np.ones(2000, np.float32), optimal, config.drop)
    params = fit(policy, obs, actions, columns)
    asked = jnp.full((500, 1), 0.7)
    cond = jnp.broadcast_to(config.act_cond(columns), (500, 1))
    rng = jax.random.key(1)
    both = np.asarray(policy.sample(params, asked, rng))[:, 0, 0] > 0
    better = np.asarray(policy.sample(params, asked, rng, cond, config.strength))[:, 0, 0] > 0
    assert 0.3 < both.mean() < 0.7 and better.mean() > 0.97


def test_guidance_mixes_with_the_unconditioned_velocity():
    policy = FlowConfig(**SMALL, steps=1)
    params = policy.init(jax.random.key(0), Spec(2, 2, cond=1))
    params["outer"]["kernel"] = jax.random.normal(jax.random.key(1), (64, 2))
    obs, cond, rng = jnp.ones((3, 2)), jnp.ones((3, 1)), jax.random.key(2)
    known, unknown = policy.sample(params, obs, rng, cond), policy.sample(params, obs, rng)
    guided = policy.sample(params, obs, rng, cond, guidance=3.0)
    np.testing.assert_allclose(guided, unknown + 3 * (known - unknown), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"guidance=3\.0 needs policy=flow"):
        GaussianConfig(**SMALL).sample(params, obs, rng, cond, 3.0)


@pytest.mark.parametrize(
    "policy", [FlowConfig(horizon=5, execute=5, width=16), GaussianConfig(horizon=5, execute=5, width=16)]
)
@pytest.mark.parametrize("cond", [0, 2])
def test_shapes(policy, cond):
    params = policy.init(jax.random.key(0), Spec(obs=3, action=7, cond=cond))
    asked = jnp.ones((4, cond)) if cond else None
    assert policy.sample(params, jnp.ones((4, 3)), jax.random.key(1), asked).shape == (4, 5, 7)


@pytest.mark.parametrize(
    ("config", "knobs"),
    [
        (FlowConfig, {"execute": 21}),
        (FlowConfig, {"horizon": 0}),
        (FlowConfig, {"steps": 0}),
        (GaussianConfig, {"width": 0}),
        (GaussianConfig, {"min_std": 0.0}),
        (GaussianConfig, {"temperature": -1.0}),
    ],
)
def test_knobs_are_checked(config, knobs):
    with pytest.raises(InputError, match=f"policy.{next(iter(knobs))}="):
        config(**knobs)


@pytest.mark.parametrize(("size", "stride"), [(4, 4), (3, 2), (3, 1)])
def test_layers_are_convolutions(size, stride):
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 3)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(size, size, 3, 4)), jnp.float32)
    strides, names = (stride, stride), ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=names)
    np.testing.assert_allclose(convolved(x, kernel, stride), expected, atol=2e-5)
