"""Intervals: known values, coverage, and what is resampled."""

import numpy as np
import pytest

from wvm_rl.stats import clustered_mean, stratified_mean, wilson


def test_wilson_known_values():
    # Newcombe 1998, table I: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    low, high = wilson(0, 20)
    assert low == 0 and high == pytest.approx(0.1611, abs=1e-4)
    assert wilson(20, 20)[1] == 1


def test_clusters_widen_an_interval():
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 1, 6)
    values = np.concatenate([offset + rng.normal(0, 0.1, 50) for offset in offsets])
    clusters = np.repeat(np.arange(6), 50)
    mean, low, high = clustered_mean(values, clusters)
    assert mean == pytest.approx(values.mean())
    _, narrow_low, narrow_high = clustered_mean(values, np.zeros(300))
    assert high - low > 3 * (narrow_high - narrow_low)


def test_clustered_differences_of_paired_rollouts():
    ours, theirs = np.array([1, 1, 0, 1, 1, 1.0]), np.array([0, 1, 0, 1, 0, 1.0])
    mean, low, high = clustered_mean(ours - theirs, [("lift", 0)] * 3 + [("can", 0)] * 3)
    assert mean == low == high == pytest.approx(1 / 3)  # both clusters say the same


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
    assert clustered_mean(values, np.arange(30)) == clustered_mean(values, np.arange(30))
