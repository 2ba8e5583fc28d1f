"""Extraction methods: weights computed by hand, identities between methods, and refusals."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from agents import AGENTS
from agents.awr import AWRConfig
from agents.base import checked, effective_fraction
from agents.bc import BCConfig
from agents.cfg import CFGConfig
from agents.filtered_bc import FilteredBCBinaryConfig, FilteredBCPercentileConfig
from agents.matching import matched
from agents.rabc import RABCConfig
from agents.rcp import RCPConfig, quantiles_by_value, returns
from tests.agents_toy import episodes, values
from wvm_rl.advantage import ranked
from wvm_rl.errors import InputError

TOY = episodes((4, 6))
VALUES = values(TOY)
ADVANTAGE = np.array([0.0, 0.05, -0.1, 0.3, 0.02, -0.05, 0.1, 0.0, -0.2, 1e4])


def weights(config, advantage=ADVANTAGE):
    columns = config.columns(advantage, VALUES, TOY)
    assert columns.weight.dtype == np.float32 and columns.weight.shape == (10,)
    return columns.weight


def test_awr_by_hand():
    expected = [1, np.exp(0.5), np.exp(-1), 2, np.exp(0.2), np.exp(-0.5), 2, 1, np.exp(-2), 2]
    np.testing.assert_allclose(weights(AWRConfig(tau=10, clip=2)), expected, rtol=1e-6)


def test_filters_by_hand():
    np.testing.assert_array_equal(weights(FilteredBCBinaryConfig()), [1, 1, 0, 1, 1, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(weights(FilteredBCPercentileConfig(keep=0.4)), [0, 1, 0, 1, 0, 0, 1, 0, 0, 1])
    kept_with_ties = weights(FilteredBCPercentileConfig(keep=0.6))
    np.testing.assert_array_equal(kept_with_ties, [1, 1, 0, 1, 1, 0, 1, 1, 0, 1])
    assert weights(FilteredBCPercentileConfig(keep=1e-6)).sum() == 1


@pytest.mark.parametrize(
    ("config", "advantage"),
    [
        (AWRConfig(tau=0.0), ADVANTAGE),
        (FilteredBCPercentileConfig(keep=1.0), ADVANTAGE),
        (FilteredBCBinaryConfig(), np.abs(ADVANTAGE)),
        (AWRConfig(), np.full(10, 0.0)),
    ],
)
def test_limits_are_bc_bit_for_bit(config, advantage):
    np.testing.assert_array_equal(weights(config, advantage), weights(BCConfig(), advantage))


def test_rabc_by_hand():
    """mean 0.1 and deviation 0.1 of the advantages: the soft weight runs from 0 at -0.1 to 1 at 0.3."""
    advantage = np.array([0.2, 0.0, 0.2, 0.0, 0.2, 0.0, 0.2, 0.0, 0.2, 0.0])
    np.testing.assert_allclose(weights(RABCConfig(kappa=0.1), advantage), [1, 0.25] * 5, atol=1e-5)
    np.testing.assert_allclose(weights(RABCConfig(kappa=0.2), advantage), [0.75, 0.25] * 5, atol=1e-5)
    assert weights(RABCConfig(), advantage - 0.1)[1] == 0
    moving = np.where(ADVANTAGE == 0, 0.01, ADVANTAGE)
    np.testing.assert_array_equal(
        weights(RABCConfig(kappa=0.0), moving), weights(FilteredBCBinaryConfig(), moving)
    )  # without ties a filter


def test_cfg_marks_the_optimal_and_hides_some():
    columns = CFGConfig().columns(ADVANTAGE, VALUES, TOY)
    np.testing.assert_array_equal(columns.cond[:, 0] > 0, ADVANTAGE >= 0)
    np.testing.assert_array_equal(columns.weight, 1)
    share = CFGConfig(optimal=0.4).columns(ADVANTAGE, VALUES, TOY).cond[:, 0]
    np.testing.assert_array_equal(share > 0, weights(FilteredBCPercentileConfig(keep=0.4)))
    assert columns.hidden == 0.1 and CFGConfig(guidance=3.0).strength == 3.0 and AWRConfig().strength == 1


@pytest.mark.parametrize(
    ("config", "ess"),
    [
        (AWRConfig(), 0.8),
        (AWRConfig(), 0.5),  # which it could not have with its clip of 2
        (AWRConfig(clip=3.0), 0.8),
        (FilteredBCPercentileConfig(), 0.5),
        (CFGConfig(), 0.5),
        (RABCConfig(), 0.7),
    ],
)
def test_knobs_are_solved_for_one_effective_sample_size(config, ess):
    toy = episodes((300, 200))
    advantage = np.random.default_rng(0).normal(0.05, 0.1, 500)
    found = matched(config, ess, advantage, values(toy), toy)
    columns = found.columns(advantage, values(toy), toy)
    share = effective_fraction(columns.weight) if columns.cond is None else (columns.cond == 1).mean()
    assert share == pytest.approx(ess, abs=0.02)
    if isinstance(config, AWRConfig):
        assert found.clip == (3 if config.clip == 3 else 1e6)  # one that is given stays
    with pytest.raises(InputError, match=r"match_ess=1.5 must be"):
        matched(config, 1.5, advantage, values(toy), toy)


def test_sizes_between_a_knobs_ends_are_found():
    """The sizes of these knobs are not monotone: both ends lie above what is asked for."""
    toy = episodes((500,))
    advantage = np.concatenate([np.random.default_rng(0).uniform(0, 0.1, 400), np.full(100, -0.1)])
    for config, ess in ((AWRConfig(clip=1e3), 0.5), (RABCConfig(), 0.75)):
        found = matched(config, ess, advantage, values(toy), toy)
        assert effective_fraction(found.columns(advantage, values(toy), toy).weight) == pytest.approx(ess, abs=0.02)


def test_a_size_that_a_setting_hits_is_taken():
    toy = episodes((1000,))
    advantage = np.random.default_rng(0).normal(size=1000)
    found = matched(FilteredBCPercentileConfig(), 0.005, advantage, values(toy), toy)
    assert found.columns(advantage, values(toy), toy).weight.sum() == 5


def test_of_sizes_out_of_reach_the_nearest_is_taken():
    """awr's size falls to that of the given clip, and not below: not the mildest tau within the tolerance is taken."""
    toy = episodes((24000,))
    advantage = np.random.default_rng(0).normal(0.05, 0.1, 24000)
    clipped = [AWRConfig(tau=tau, clip=2.1) for tau in range(1, 600)]
    sizes = [effective_fraction(each.columns(advantage, values(toy), toy).weight) for each in clipped]
    ess = min(sizes) - 0.005
    found = matched(AWRConfig(clip=2.1), ess, advantage, values(toy), toy)
    assert effective_fraction(found.columns(advantage, values(toy), toy).weight) < min(sizes) + 2e-3


def test_sizes_out_of_reach_are_refused():
    for config in (BCConfig(), FilteredBCBinaryConfig(), RCPConfig()):
        with pytest.raises(InputError, match=f"{type(config).__name__} has no knob"):
            matched(config, 0.5, ADVANTAGE, VALUES, TOY)
    with pytest.raises(InputError, match=r"match_ess=0.3 is out of reach: agent.kappa gives 0.\d+ to 0.\d+ on"):
        matched(RABCConfig(), 0.3, ADVANTAGE, VALUES, TOY)
    with pytest.raises(InputError, match=r"match_ess=0.3 is out of reach: agent.tau"):  # with the clip that is given
        matched(AWRConfig(clip=1.5), 0.3, ADVANTAGE, VALUES, TOY)
    with pytest.raises(InputError, match=r"match_ess=0.5 solves for agent.tau, which is given as 3: give one of them"):
        matched(AWRConfig(tau=3), 0.5, ADVANTAGE, VALUES, TOY)
    with pytest.raises(InputError, match=r"match_ess=0.05 is out of reach: agent.tau gives 0.\d+ to 1.00"):
        matched(AWRConfig(), 0.05, ADVANTAGE, VALUES, TOY)
    tied = np.array([1.0] * 5 + [0.0] * 5)
    with pytest.raises(InputError, match=r"match_ess=0.7 falls between ties: the nearest of agent.keep gives"):
        matched(FilteredBCPercentileConfig(), 0.7, tied, VALUES, TOY)
    few = np.where(np.arange(1000) < 20, 2.0, np.linspace(0, 1, 1000))  # the best 2 % are tied
    with pytest.raises(InputError, match=r"match_ess=0.002 .* 0.02"):
        matched(FilteredBCPercentileConfig(), 0.002, few, values(episodes((1000,))), episodes((1000,)))


def test_methods_say_whether_they_condition():
    for name, config in AGENTS.items():
        columns = config().columns(ADVANTAGE, VALUES, TOY)
        asked = config().act_cond(columns)
        assert (columns.cond is not None) == (asked is not None) == config().conditions, name


def test_rcp_ranks_within_similar_value():
    score = np.array([5.0, 1, 3, 3, 100, 300, 200, 400])
    value = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])
    expected = [0.875, 0.125, 0.5, 0.5, 0.125, 0.625, 0.375, 0.875]
    np.testing.assert_allclose(quantiles_by_value(score, value, groups=2), expected)
    np.testing.assert_allclose(quantiles_by_value(score, value, groups=1)[4:], [0.5625, 0.8125, 0.6875, 0.9375])


def test_rcp_asks_for_a_level_that_exists():
    config = RCPConfig(groups=1, bins=5, ask=1.0)
    columns = config.columns(ADVANTAGE, VALUES, TOY)
    assert columns.cond.shape == (10, 1) and columns.cond.dtype == np.float32
    assert columns.cond.min() == -1 and columns.cond[9] == 1 and config.act_cond(columns) == [1.0]
    order = np.argsort(ADVANTAGE, kind="stable")
    assert (np.diff(columns.cond[order, 0]) >= 0).all()
    constant = config.columns(np.zeros(10), VALUES, TOY)
    assert config.act_cond(constant) in constant.cond


def test_rcp_return_to_go():
    toy = episodes((3, 4), success=[True, False])
    np.testing.assert_array_equal(returns(toy), [-2, -1, 0, -7, -6, -5, -4])
    columns = RCPConfig(condition="return", groups=1, bins=7).columns(np.zeros(7), values(toy), toy)
    assert columns.cond[:3].min() > columns.cond[3:].max()


def test_effective_fraction():
    assert effective_fraction(np.ones(7)) == pytest.approx(1)
    assert effective_fraction([1, 0, 0, 0]) == pytest.approx(0.25)
    assert effective_fraction([2, 1]) == pytest.approx(0.9)
    assert effective_fraction(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("advantage", "per_episode", "message"),
    [
        (ADVANTAGE[:9], VALUES, r"shape \(9,\), the dataset 10 control steps"),
        (np.where(np.arange(10) == 3, np.nan, ADVANTAGE), VALUES, "sample 3 is not finite"),
        (ADVANTAGE, VALUES[:1], "values of 1 episodes do not fit a dataset of 2"),
        (ADVANTAGE, [VALUES[0], VALUES[1][:5]], "values of episode 1 must be 6 finite numbers"),
        (ADVANTAGE, [VALUES[0], np.full(6, np.inf)], "values of episode 1 must be 6 finite numbers"),
    ],
)
def test_misfits_are_refused(advantage, per_episode, message):
    with pytest.raises(InputError, match=message):
        checked(advantage, per_episode, TOY)


def test_ranks_change_nothing_where_a_method_says_so():
    told = {
        name: [config().columns(each, VALUES, TOY) for each in (ADVANTAGE, ranked(ADVANTAGE))]
        for name, config in AGENTS.items()
    }
    for name, (raw, rank) in told.items():
        alike = np.array_equal(raw.weight, rank.weight) and np.array_equal(raw.cond, rank.cond)
        assert alike == (AGENTS[name]().scale_free or name == "bc"), name


@pytest.mark.parametrize(
    ("config", "knobs"),
    [
        (AWRConfig, {"tau": -1.0}),
        (AWRConfig, {"clip": 0.0}),
        (AWRConfig, {"tau": float("nan")}),
        (FilteredBCPercentileConfig, {"keep": 0.0}),
        (FilteredBCPercentileConfig, {"keep": 1.1}),
        (RABCConfig, {"kappa": -1.0}),
        (CFGConfig, {"drop": 0.0}),
        (CFGConfig, {"optimal": 1.0}),
        (CFGConfig, {"guidance": float("inf")}),
        (RCPConfig, {"condition": "value"}),
        (RCPConfig, {"bins": 1}),
        (RCPConfig, {"ask": 2.0}),
    ],
)
def test_knobs_are_checked(config, knobs):
    with pytest.raises(InputError, match=f"agent.{next(iter(knobs))}="):
        config(**knobs)


def test_the_readmes_example_of_a_method_works(monkeypatch):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    module = types.ModuleType("agents.rank")
    monkeypatch.setitem(sys.modules, "agents.rank", module)  # dataclasses look their module up
    exec(text.split("```python\n")[1].split("```")[0], module.__dict__)
    ranks = np.array([4.5, 7, 2, 9, 6, 3, 8, 4.5, 1, 10])
    np.testing.assert_allclose(weights(module.RankConfig(power=2.0)), (ranks / 10) ** 2, rtol=1e-6)
