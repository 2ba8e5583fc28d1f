"""Intervals: known values, coverage, and what is resampled."""

import numpy as np
import pytest
from scipy.stats import bootstrap, trim_mean

from wvm_rl.metrics import wins
from wvm_rl.stats import (
    auroc,
    crossed_mean,
    improvement,
    interval,
    iqm,
    iqm_difference,
    recovered,
    stratified_mean,
    success_interval,
    wilson,
)


def test_wilson_known_values():
    # Newcombe 1998, table I: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    low, high = wilson(0, 20)
    assert low == 0 and high == pytest.approx(0.1611, abs=1e-4)
    assert wilson(20, 20)[1] == 1


def test_seeds_and_initial_states_both_widen_an_interval():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (6, 50))
    widths = []
    for seeds, states in ((0, 0), (1, 0), (0, 1)):
        values = noise + seeds * rng.normal(0, 1, (6, 1)) + states * rng.normal(0, 1, (1, 50))
        mean, low, high = crossed_mean(values)
        assert mean == pytest.approx(values.mean()) and low < mean < high
        widths.append(high - low)
    assert widths[1] > 5 * widths[0] and widths[2] > 5 * widths[0]


def test_crossed_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        chance = 0.5 + rng.normal(0, 0.05, (8, 1)) + rng.normal(0, 0.2, (1, 50))
        _, low, high = crossed_mean(rng.random((8, 50)) < chance)
        covered += low <= 0.5 <= high
    assert covered >= 54


def test_interval_of_a_success_rate():
    assert success_interval(np.ones((1, 20))) == wilson(20, 20)
    low, high = success_interval(np.ones((3, 50)))  # where the bootstrap would say 1 for sure
    assert (low, high) == wilson(150, 150)
    apart = np.repeat([[1.0], [0.0], [1.0], [0.0]], 50, axis=1)
    assert np.ptp(success_interval(apart)) > 5 * np.ptp(wilson(100, 200))


def test_differences_of_paired_rollouts_without_variance():
    ours, theirs = np.array([[1, 1, 0], [1, 1, 0.0]]), np.array([[0, 0, -1], [0, 0, -1.0]])
    assert crossed_mean(ours - theirs) == (1, 1, 1)


def test_stratified_mean_weighs_tasks_alike():
    mean, low, high = stratified_mean([np.zeros(100), np.array([1.0, 1.0])])
    assert (mean, low, high) == (0.5, 0.5, 0.5)
    mean, low, high = stratified_mean([np.array([0.0, 1.0] * 50), np.array([0.0, 1.0] * 50)])
    # standard error of the mean of two means of 100 coin tosses: 0.5 / sqrt(200)
    assert mean == 0.5 and high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(200), rel=0.1)


def test_stratified_mean_of_little():
    assert np.isnan(stratified_mean([np.zeros(0), np.zeros(0)])).all()
    mean, low, high = stratified_mean([np.array([0.2]), np.zeros(0)])
    assert mean == 0.2 and np.isnan([low, high]).all()


def test_intervals_are_reproducible():
    values = np.random.default_rng(1).random(30)
    assert stratified_mean([values]) == stratified_mean([values])
    assert crossed_mean(values.reshape(3, 10)) == crossed_mean(values.reshape(3, 10))


def pool(positive, negative):
    return wins(positive, negative), *(np.array([len(each) for each in side]) for side in (positive, negative))


def test_area_under_the_curve_is_the_mean_over_tasks():
    easy = pool([np.array([0.9, 0.8])], [np.array([0.1])])
    hard = pool([np.array([0.2]), np.array([0.6])], [np.array([0.2]), np.array([0.4])])  # 0.5 + 0 + 1 + 1 of 4
    empty = pool([np.zeros(0)], [np.array([0.1])])
    mean, samples = auroc([easy, hard, empty], joint=False)
    assert mean == pytest.approx((1 + 2.5 / 4) / 2)
    low, high = interval(samples)
    assert low < mean < high <= 1
    assert np.isnan(auroc([empty], joint=True)[0]) and np.isnan(interval(auroc([empty], joint=True)[1])).all()


def test_resampled_areas_are_those_of_resampled_trajectories():
    rng = np.random.default_rng(0)
    positive = [rng.normal(0.5, 1, 4) for _ in range(30)]
    negative = [rng.normal(0, 1, 5) for _ in range(30)]
    mean, samples = auroc([pool(positive, negative)], joint=True)
    direct = []
    for _ in range(300):
        rows = rng.integers(30, size=30)
        high, low = (np.concatenate([side[row] for row in rows]) for side in (positive, negative))
        direct.append((high[:, None] > low).mean())
    assert samples.mean() == pytest.approx(mean, abs=0.01)
    assert samples.std() == pytest.approx(np.std(direct), rel=0.15)


def test_interquartile_mean_by_hand():
    scores = [np.array([0.0, 0.2, 0.4, 0.6]), np.array([0.5, 0.7, 0.9, 1.0])]
    value, low, high = iqm([score[:, None] for score in scores])  # the middle four of 0 .2 .4 .5 .6 .7 .9 1
    assert value == pytest.approx((0.4 + 0.5 + 0.6 + 0.7) / 4) and low < value < high


def test_paired_differences_do_not_feel_what_both_share():
    rng = np.random.default_rng(0)
    theirs = [rng.uniform(0, 0.8, (8, 1)) for _ in range(6)]
    ours = [score + 0.1 for score in theirs]
    value, low, high = iqm_difference(ours, theirs)
    assert value == pytest.approx(0.1) and high - low < 1e-6
    assert np.ptp(iqm(theirs)[1:]) > 0.05


def test_runs_are_resampled_as_scipy_does_within_tasks():
    scores = np.random.default_rng(0).uniform(size=(12, 1))
    _, low, high = iqm([scores])
    theirs = bootstrap((scores[:, 0],), lambda runs, axis: trim_mean(runs, 0.25, axis=axis), method="percentile", rng=1)
    assert (low, high) == pytest.approx(theirs.confidence_interval, abs=0.01)
    # runs of a task agree, tasks do not: were they resampled across tasks, the interval would have a width
    assert iqm([np.full((4, 5), 0.2), np.full((4, 5), 0.8)])[1:] == (0.5, 0.5)
    # nor are a policy's rollouts resampled, however they differ
    assert iqm([np.tile([0.0, 1.0], (4, 5))])[1:] == (0.5, 0.5)


def test_one_training_seed_has_no_interval_over_seeds():
    one, other = [np.ones((1, 4)), np.zeros((1, 4))], [np.zeros((1, 4))] * 2
    for value, *ends in (iqm(one), iqm_difference(one, other), improvement(one, other)):
        assert value in (0.5, 0.75) and np.isnan(ends).all()


def test_chance_of_improvement_by_hand():
    ours, theirs = ([np.array(one)[:, None], np.ones((2, 1))] for one in ([0.5, 0.9], [0.5, 0.1]))
    value, low, high = improvement(ours, theirs)
    assert value == pytest.approx(((1 + 2 + 0.5) / 4 + 0.5) / 2) and low <= value <= high


def test_other_initial_states_widen_a_difference():
    """Runs agree on what each initial state gives: seeds say nothing of the spread that others would bring."""
    gains = np.tile(np.arange(20) < 10, (8, 1)).astype(float)
    none = np.zeros((8, 20))
    assert iqm_difference([gains] * 2, [none] * 2) == (0.5, 0.5, 0.5)
    value, low, high = iqm_difference([gains] * 2, [none] * 2, states=True)
    # standard error of the mean of two means of 20 coin tosses: 0.5 / sqrt(40)
    assert value == 0.5 and high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.15)


def test_share_of_the_best_gain_by_hand():
    base, best = np.full((4, 10), 0.2), np.full((4, 10), 0.6)
    ours = best - 0.1 * np.array([[0.0], [1.0], [1.0], [2.0]])  # the middle two runs gain 0.3 of 0.4
    value, low, high = recovered([ours], [best], [base])
    assert value == pytest.approx(0.75) and 0.5 <= low < value < high <= 1
