"""Acting: raw units, a switched gripper, and rows that depend on nothing but their own keys."""

import jax
import numpy as np
import pytest

from agents.acting import Asked, actor, together
from agents.chunks import Statistics
from agents.policies.base import Spec
from agents.policies.flow import FlowConfig
from agents.policies.gaussian import GaussianConfig
from agents.policies.seeing import Seeing
from envs.observations import packed
from wvm_rl.errors import InputError

STATISTICS = Statistics(
    obs_mean=np.full(9, 2.0, np.float32),
    obs_std=np.full(9, 0.5, np.float32),
    action_mean=np.array([0.1, -0.1, 0.0], np.float32),
    action_std=np.array([0.3, 0.3, 1.0], np.float32),
)

pytestmark = pytest.mark.usefixtures("compile_quickly")
SIZES = {"horizon": 6, "execute": 4, "width": 96, "layers": 2}
POLICIES = [FlowConfig(**SIZES), GaussianConfig(**SIZES, temperature=1.0)]
ROWS = 16
OBS = np.random.default_rng(0).normal(2, 0.5, (ROWS, 9)).astype(np.float32)
ROLLOUT, STEP = np.arange(ROWS) + 40, np.arange(ROWS) * 10


def make(policy, rows=ROWS, cond=1, guidance=1.0, init=0, **more):
    params = policy.init(jax.random.key(init), Spec(9, 3, cond))
    params["outer"]["kernel"] = 0.1 * jax.random.normal(jax.random.key(1), params["outer"]["kernel"].shape)
    return actor(policy, params, STATISTICS, rows, Asked(np.ones(cond, np.float32) if cond else None, guidance), **more)


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_do_not_depend_on_position_or_company(policy):
    act = make(policy)
    expected = act(OBS, ROLLOUT, STEP)
    assert expected.shape == (ROWS, 4, 3) and expected.dtype == np.float32
    rng = np.random.default_rng(1)
    for count in (1, 3, 8, 16):
        order = rng.permutation(ROWS)[:count]
        np.testing.assert_array_equal(act(OBS[order], ROLLOUT[order], STEP[order]), expected[order])


def test_rows_with_pictures_do_not_depend_on_position_or_company():
    policy, rng = Seeing(POLICIES[0]), np.random.default_rng(2)
    params = policy.init(jax.random.key(0), Spec(9, 3, cameras=2))
    params["outer"]["kernel"] = 0.1 * jax.random.normal(jax.random.key(1), params["outer"]["kernel"].shape)
    act = actor(policy, params, STATISTICS, 4, cameras=2, size=16)
    shown = rng.integers(0, 256, (4, 2, 16, 16, 3)).astype(np.uint8)
    obs = np.stack([packed(*each) for each in zip(OBS, map(list, shown))])
    rollout, step = np.arange(4), np.zeros(4, int)
    expected = act(obs, rollout, step)
    order = [2, 0]
    np.testing.assert_array_equal(act(obs[order], rollout[order], step[order]), expected[order])
    alone = together([act, act], 4, 4)(obs[order], rollout[order] + 4, step[order])
    np.testing.assert_array_equal(alone, expected[order])
    blind = obs.copy()
    blind["pictures"] = 0
    assert not np.array_equal(act(blind, rollout, step), expected)
    with pytest.raises(InputError, match=r"trained on \[B, 9\]"):
        act(np.stack([packed(each[:8], list(shown[0])) for each in OBS[:2]]), rollout[:2], step[:2])


@pytest.mark.parametrize("policy", POLICIES)
def test_keys_decide_the_draw(policy):
    same = np.tile(OBS[:1], (4, 1))
    draws = make(policy)(same, np.array([0, 0, 1, 0]), np.array([0, 0, 0, 10]))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2]) and not np.array_equal(draws[0], draws[3])
    other = make(policy, seed=1)(same, np.zeros(4, int), np.zeros(4, int))
    assert not np.array_equal(draws[0], other[0])


def test_actions_are_raw_clipped_and_the_gripper_switches():
    policy = GaussianConfig(**SIZES)
    params = policy.init(jax.random.key(0), Spec(9, 3))
    bias = np.zeros((2, 6, 3), np.float32)  # mean and log deviation
    bias[0, :, 0], bias[0, :, 1], bias[0, ::2, 2], bias[0, 1::2, 2] = 1.0, -9.0, 0.2, -0.2
    params["outer"]["bias"] = bias.ravel()
    actions = actor(policy, params, STATISTICS, 2)(OBS[:2], ROLLOUT[:2], STEP[:2])
    np.testing.assert_allclose(actions[..., 0], 0.4, rtol=1e-6)
    np.testing.assert_array_equal(actions[..., 1], -1.0)
    np.testing.assert_array_equal(actions[..., 2], [[1, -1, 1, -1]] * 2)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (OBS[:, :8], r"shape \(16, 8\), the policy was trained on \[B, 9\]"),
        (np.concatenate([OBS, OBS]), "at most 16"),
        (np.where(np.arange(ROWS)[:, None] == 3, np.nan, OBS), "rollout 43 is not finite"),
    ],
)
def test_misfits_are_named(obs, message):
    keys = np.resize(ROLLOUT, len(obs)), np.resize(STEP, len(obs))
    with pytest.raises(InputError, match=message):
        make(POLICIES[0])(obs, *keys)


def test_a_condition_is_demanded_and_refused():
    with pytest.raises(InputError, match="condition of shape \\(0,\\) does not fit a policy trained with 1"):
        params = POLICIES[0].init(jax.random.key(0), Spec(9, 3, 1))
        actor(POLICIES[0], params, STATISTICS, 1)
    with pytest.raises(InputError, match="none to guide to"):
        params = POLICIES[0].init(jax.random.key(0), Spec(9, 3))
        actor(POLICIES[0], params, STATISTICS, 1, Asked(guidance=2.0))
    with pytest.raises(InputError, match="condition"):
        params = POLICIES[0].init(jax.random.key(0), Spec(9, 3, 1))
        actor(POLICIES[0], params, STATISTICS, 1, Asked(np.ones(2, np.float32)))
    with pytest.raises(InputError, match="condition"):
        params = POLICIES[0].init(jax.random.key(0), Spec(9, 3))
        actor(POLICIES[0], params, STATISTICS, 1, Asked(np.ones(1, np.float32)))


def test_policies_together_act_as_each_alone():
    """Three policies, one of them guided, four rollouts each; two rollouts of a policy that share a row go apart."""
    rows, count = 3, 4
    acts = [make(POLICIES[0], rows), make(POLICIES[0], rows, guidance=2.0), make(POLICIES[0], rows, init=5)]
    rollout = np.array([1, 4, 7, 11, 8])  # of policies 0, 1, 1, 2, 2; rollouts 0 and 3 of policy 1 share row 0
    found = together(acts, count, rows)(OBS[:5], rollout, STEP[:5])
    for position, number in enumerate(rollout):
        alone = acts[number // count](OBS[[position]], rollout[[position]] % count, STEP[[position]])
        np.testing.assert_array_equal(found[position], alone[0])
    assert len({each.tobytes() for each in found}) == 5


def test_rows_without_a_rollout_cost_no_call():
    calls = []

    def of(policy):
        def act(obs, rollout, step):
            calls.append(policy)
            return np.full((len(obs), 2, 3), policy, np.float32)

        return act

    rollout = np.array([-1, 9, -1, 7, -1, -1])  # of policies 2 and 1
    found = together([of(0), of(1), of(2)], 4, 6)(OBS[:6], rollout, STEP[:6])
    assert calls == [2, 1] and found[:, 0, 0].tolist() == [0, 2, 0, 1, 0, 0]
