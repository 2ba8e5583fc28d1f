"""The trainer: exact resume, identities between methods, weights that act as weights, and refusals."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import chunks, trainer
from agents.awr import AWRConfig
from agents.base import Columns
from agents.bc import BCConfig
from agents.filtered_bc import FilteredBCPercentileConfig
from agents.policies.base import Batch, Constant, Spec, weighted_mean
from agents.policies.flow import FlowConfig
from agents.policies.gaussian import GaussianConfig
from agents.trainer import TrainerConfig, train
from tests.agents_toy import episodes, values
from wvm_rl.errors import InputError

pytestmark = pytest.mark.usefixtures("compile_quickly")

TOY = episodes((20, 30, 25))
DATA, STATISTICS = chunks.build(TOY, ("a", "b"))
ADVANTAGE = np.random.default_rng(1).normal(size=75)
POLICY = FlowConfig(horizon=4, execute=2, width=16, layers=1)
CONFIG = TrainerConfig(updates=25, batch=16, interval=5, save_every=10, warmup=5)
ONES = Columns(np.ones(75, np.float32))


def fit(columns=ONES, config=CONFIG, seeds=(0,), policy=POLICY, **more):
    return train(policy, DATA, STATISTICS, [columns] * len(seeds), config, seeds, progress=False, **more)


# One after the other: the same bits where XLA's fusion emitters compile, else 4e-7 apart at most (two methods: 3e-2).
ROUNDED = {"rtol": 1e-5, "atol": 2e-6}


def assert_same(one, other, **tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 0, "atol": 0} | tolerance))


@pytest.mark.parametrize("agent", [AWRConfig(tau=0.0), FilteredBCPercentileConfig(keep=1.0)])
def test_limits_of_weighting_train_the_same_policy_as_bc(agent):
    rising = values(TOY)
    bc = fit(BCConfig().columns(ADVANTAGE, rising, TOY))
    assert_same(fit(agent.columns(ADVANTAGE, rising, TOY)).params, bc.params)
    different = fit(AWRConfig().columns(ADVANTAGE, rising, TOY)).params
    assert not np.array_equal(different["inner"]["kernel"], bc.params["inner"]["kernel"])


def test_the_averaged_weights_act():
    """decay = min(ema, (1 + step) / (10 + step)): 1/10 after the first update, 2/11 after the second."""
    config = dataclasses.replace(CONFIG, updates=2, interval=1, warmup=0)
    made = trainer._trainer(Constant(POLICY), Constant(config), DATA.spec)
    state = jax.tree.map(lambda leaf: leaf[0], made.init(jnp.asarray([0], jnp.uint32)))
    columns = Columns(jnp.ones(75), hidden=jnp.float32(0))
    mean = state["params"]
    for decay in (1 / 10, 2 / 11):
        with jax.threefry_partitionable(False):  # as `compiled` draws
            state, _ = jax.jit(partial(made.update, 0, DATA, columns))(state, None)
        mean = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, mean, state["params"])
    assert_same(state["ema"], mean, rtol=1e-5, atol=1e-7)
    apart = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(state["params"]))]
    assert max(apart) > 1e-4
    assert_same(fit(config=config).seed(0), mean, rtol=1e-4, atol=1e-5)


def test_pictures_stand_beside_their_own_step():
    """Weight, condition and action chunk of a sample with a picture are those of the picture's control step."""
    toy = episodes((20, 30))
    for each in toy:
        each.obs["b"] = each.actions[:, 0]
    steps = [np.arange(0, 20, 4), np.arange(2, 30, 7)]

    def frames(index):
        return np.zeros((len(steps[index]), 1, 8, 8, 3), np.uint8), steps[index]

    data, _ = chunks.build(toy, ("b",), frames)
    seen = np.zeros(50, np.float32)
    seen[np.concatenate([steps[0], 20 + steps[1]])] = 1

    def loss(params, batch, rng):
        beside = jnp.stack([batch.actions[:, 0, 0], batch.cond[:, 0]], 1)
        return params * 0 + jnp.abs(beside - batch.obs.state).sum(1)

    policy = SimpleNamespace(horizon=2, init=lambda key, spec: jnp.float32(1), loss=loss)
    made = trainer._Trainer(policy, CONFIG, data.spec)
    state = jax.tree.map(lambda leaf: leaf[0], made.init(jnp.asarray([0], jnp.uint32)))
    _, trace = made.update(0, data, Columns(jnp.asarray(seen), data.actions[:, :1], jnp.float32(0)), state, None)
    assert trace["loss"] < 1e-5 and trace["ess_fraction"] == pytest.approx(1)
    shifted_by_one = Columns(jnp.asarray(seen), jnp.roll(data.actions[:, :1], 1, 0), jnp.float32(0))
    assert made.update(0, data, shifted_by_one, state, None)[1]["loss"] > 0.1


@pytest.mark.parametrize("seeds", [(3, 4), (0,)])
def test_resume_equals_an_uninterrupted_run_bit_for_bit(tmp_path, seeds):
    whole = []
    expected = fit(seeds=seeds, on_metrics=whole.append)

    def kill(metrics):
        if metrics[0]["step"] == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(seeds=seeds, folder=tmp_path / "c", on_metrics=kill)
    rest = []
    resumed = fit(seeds=seeds, folder=tmp_path / "c", on_metrics=rest.append)
    assert_same(resumed.params, expected.params)
    assert [metrics[-1]["step"] for metrics in rest] == [15, 20, 25]
    losses = [[[each["loss"] for each in metrics] for metrics in found] for found in (rest, whole[2:])]
    assert losses[0] == losses[1] and len(losses[0][0]) == len(seeds)
    again = []
    assert_same(fit(seeds=seeds, folder=tmp_path / "c", on_metrics=again.append).params, expected.params)
    assert again == []


@pytest.mark.parametrize("knobs", [{"batching": "map"}, {"batching": "vmap", "interval": 20}])
def test_many_seeds_equal_each_alone(knobs):
    many_at_once = knobs["batching"] == "vmap"
    many = fit(config=dataclasses.replace(CONFIG, **knobs), seeds=(0, 4))  # 20 leaves a shorter last interval
    assert many.seeds == (0, 4)
    for index, seed in enumerate(many.seeds):
        tolerance = {"rtol": 1e-3, "atol": 1e-5} if many_at_once else ROUNDED
        assert_same(many.seed(index), fit(seeds=(seed,)).seed(0), **tolerance)
    assert not np.array_equal(many.params["inner"]["kernel"][0], many.params["inner"]["kernel"][1])


def test_methods_train_in_one_program_as_each_alone():
    rising = values(TOY)
    both = [AWRConfig().columns(ADVANTAGE, rising, TOY), BCConfig().columns(ADVANTAGE, rising, TOY)]
    many = train(POLICY, DATA, STATISTICS, both, CONFIG, (3, 3), progress=False)
    for index, columns in enumerate(both):
        assert_same(many.seed(index), fit(columns, seeds=(3,)).seed(0), **ROUNDED)
    compiled = trainer._trainer(Constant(POLICY), Constant(CONFIG), DATA.spec)._programs
    before = len(compiled)
    train(POLICY, DATA, STATISTICS, both[::-1], CONFIG, (5, 6), progress=False)
    assert 0 < len(compiled) == before  # other seeds and methods are other data, not another program
    conditioned = Columns(both[0].weight, np.ones((75, 1), np.float32))
    wider = Columns(both[0].weight, np.ones((75, 2), np.float32))
    with pytest.raises(InputError, match="conditions differ in size"):
        train(POLICY, DATA, STATISTICS, [conditioned, wider], CONFIG, (3, 3), progress=False)
    with pytest.raises(InputError, match="conditions differ in size"):
        train(POLICY, DATA, STATISTICS, [both[0], conditioned], CONFIG, (3, 3), progress=False)


def test_hidden_conditions_train_the_stand_in():
    conditioned = Columns(ONES.weight, np.ones((75, 1), np.float32))
    np.testing.assert_array_equal(fit(conditioned).seed(0)["cond"], 0)
    assert np.abs(fit(conditioned._replace(hidden=0.5)).seed(0)["cond"]).max() > 0


def test_weights_must_leave_a_sample_that_has_a_picture():
    weight = np.zeros(75, np.float32)
    weight[1] = 1.0
    seen = DATA._replace(obs=DATA.obs[::4], step=jnp.arange(0, 75, 4))
    with pytest.raises(InputError, match="keeps no sample that has a picture"):
        train(POLICY, seen, STATISTICS, [Columns(weight)], CONFIG, (0,), progress=False)


def test_a_policy_must_tell_that_it_is_conditioned():
    class Forgetful(FlowConfig):
        def init(self, rng, spec):
            return {name: leaf for name, leaf in super().init(rng, spec).items() if name != "cond"}

    told = Columns(np.ones(75, np.float32), np.zeros((75, 1), np.float32))
    with pytest.raises(InputError, match=r"Forgetful\.init must return `cond` of spec\.cond=1"):
        fit(told, policy=Forgetful(horizon=4, execute=2, width=16, layers=1))


def test_weighted_loss_by_hand():
    weight, loss = jnp.array([1.0, 0.0, 2.0]), jnp.array([3.0, 100.0, 6.0])
    assert weighted_mean(weight, loss) == pytest.approx(15 / 3.000001)
    assert weighted_mean(jnp.zeros(3), loss) == 0
    with pytest.raises(InputError, match=r"the policy's loss has shape \(\): must be \(3,\), one number a sample"):
        weighted_mean(weight, loss.mean())
    halved = weighted_mean(weight / weight.mean(), loss)  # E.7's renormalisation changes epsilon only
    assert halved == pytest.approx(float(weighted_mean(weight, loss)), rel=1e-6)


@pytest.mark.parametrize("policy", [POLICY, GaussianConfig(horizon=4, execute=2, width=16, layers=1)])
def test_samples_of_weight_zero_leave_no_gradient(policy):
    rng = np.random.default_rng(0)
    params = policy.init(jax.random.key(0), Spec(3, 2))
    params["outer"]["kernel"] = params["outer"]["kernel"] + 0.1

    @jax.jit
    def gradient(weight, actions):
        batch = Batch(jnp.asarray(obs), actions, jnp.ones((2, 4)))
        return jax.grad(lambda p: weighted_mean(weight, policy.loss(p, batch, jax.random.key(1))))(params)

    obs, actions = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(2, 4, 2)).astype(np.float32)
    changed = actions.copy()
    changed[1] += 50
    assert_same(gradient(jnp.array([1.0, 0.0]), actions), gradient(jnp.array([1.0, 0.0]), changed))
    counted = gradient(jnp.array([1.0, 0.1]), changed)
    assert not np.allclose(counted["outer"]["bias"], gradient(jnp.array([1.0, 0.1]), actions)["outer"]["bias"])


@pytest.mark.parametrize("policy", [POLICY, GaussianConfig(horizon=4, execute=2, width=16, layers=1)])
def test_the_padded_tail_of_a_chunk_is_not_learned(policy):
    """A flow sees it, noised, beside what it learns; no error there counts."""
    params = policy.init(jax.random.key(0), Spec(3, 2))
    params["outer"]["kernel"] = params["outer"]["kernel"] + 0.1
    batch = Batch(jnp.zeros((1, 3)), jnp.ones((1, 4, 2)), jnp.array([[1.0, 1, 0, 0]]), None)
    gradient = jax.grad(lambda params: policy.loss(params, batch, jax.random.key(0)).sum())(params)
    counted = np.abs(np.asarray(gradient["outer"]["bias"])).reshape(-1, 4, 2).max((0, 2)) > 0
    np.testing.assert_array_equal(counted, [True, True, False, False])


def test_metrics():
    seen = []
    columns = FilteredBCPercentileConfig(keep=0.5).columns(ADVANTAGE, values(TOY), TOY)
    fit(columns, on_metrics=seen.append)
    assert [metrics["step"] for (metrics,) in seen] == [5, 10, 15, 20, 25]
    assert all(np.isfinite(list(metrics.values())).all() for (metrics,) in seen)
    assert seen[0][0]["ess_fraction"] == pytest.approx(0.5, abs=0.15)
    assert seen[-1][0]["learning_rate"] < seen[0][0]["learning_rate"] < CONFIG.learning_rate


def test_a_loss_that_is_not_finite_stops_and_names_the_update():
    broken = DATA._replace(actions=DATA.actions.at[:].set(1e30))
    with pytest.raises(InputError, match=r"stopped at update 1 \(seed 5, policy 1 of 1\): the loss is not finite"):
        train(POLICY, broken, STATISTICS, [ONES], CONFIG, (5,), progress=False)


def test_foreign_checkpoints_are_refused(tmp_path):
    fit(folder=tmp_path / "c")
    wide = dataclasses.replace(POLICY, width=32)
    other = Columns(np.linspace(0, 1, 75, dtype=np.float32))
    for change in ({"seeds": (1,)}, {"policy": wide}, {"columns": other}):
        with pytest.raises(InputError, match="belongs to another run"):
            fit(**{"folder": tmp_path / "c"} | change)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(np.ones(74, np.float32)), "the dataset 75 samples"),
        (Columns(np.full(75, np.nan)), "finite and not negative"),
        (Columns(np.full(75, -1.0)), "finite and not negative"),
        (Columns(np.zeros(75)), "keeps no sample"),
        (Columns(np.ones(75), np.zeros(75)), r"expected \[75, C\]"),
        (Columns(np.ones(75), np.full((75, 1), np.nan)), r"expected \[75, C\]"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(columns, folder=tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("seeds", [(), (-1,), (2**32,)])
def test_seeds_are_checked(seeds):
    with pytest.raises(InputError, match="seeds="):
        fit(seeds=seeds)


@pytest.mark.parametrize(
    "knobs",
    [
        {"updates": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"ema": 1.0},
        {"clip": -1.0},
        {"batching": "x"},
        {"warmup": -1},
    ],
)
def test_knobs_are_checked(knobs):
    with pytest.raises(InputError, match=f"{next(iter(knobs))}="):
        TrainerConfig(**knobs)
