"""Metrics of the benchmark against values computed by hand, and the cases where public definitions disagree."""

import numpy as np
import pytest

from wvm_rl.metrics import (
    advantage_labels,
    bench_truth,
    calibration_bins,
    calibration_error,
    correlation,
    cycle_voc,
    hesitation_rmse,
    in_bench,
    memory_voc,
    wins,
)


def test_true_value_of_a_hesitation():
    # T = 11, [4, 6]: x = 2, v_m = v_n = 4 / (10 - 2)
    truth = bench_truth(11, 4, 6, "hesitation")
    np.testing.assert_allclose(truth[[0, 2, 4, 5, 6, 8, 10]], [0, 0.25, 0.5, 0.5, 0.5, 0.75, 1])


def test_true_value_of_a_retry():
    # T = 12, [4, 6]: x = 2, v_m = 4 / 8, v_n = 2 / 8, then straight to 1 at 11
    truth = bench_truth(12, 4, 6, "retry")
    np.testing.assert_allclose(truth[[0, 2, 4, 5, 6, 11]], [0, 0.25, 0.5, 0.375, 0.25, 1])
    # T = 14, [2, 6]: x = 4 is more than was gained, v_n is cut off at 0
    np.testing.assert_allclose(bench_truth(14, 2, 6, "retry")[[2, 4, 6]], [1 / 3, 1 / 6, 0])


@pytest.mark.parametrize(
    ("length", "first", "last", "kind", "inside"),
    [
        (12, 4, 6, "retry", True),
        (12, 4, 10, "retry", False),  # T <= 2x
        (13, 4, 10, "retry", True),
        (12, 4, 10, "hesitation", True),
        (12, 0, 6, "hesitation", False),
        (12, 4, 11, "hesitation", False),
        (12, 4, 4, "retry", False),
        (30, 4, 6, "failure", False),
    ],
)
def test_which_episodes_have_a_true_value(length, first, last, kind, inside):
    assert in_bench(length, first, last, kind) is inside
    if not inside:
        with pytest.raises(ValueError, match="no true value"):
            bench_truth(length, first, last, kind)


def test_hesitation_rmse():
    assert hesitation_rmse(np.array([0.5, 0.7, 0.3]), np.full(3, 0.5)) == pytest.approx(np.sqrt(0.08 / 3))
    assert np.isnan(hesitation_rmse(np.zeros(0), np.zeros(0)))


def test_rank_correlation_without_and_with_ties():
    assert correlation(np.array([3.0, 2.0, 1.0]), np.array([0.9, 0.5, 0.4])) == pytest.approx(1)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([0.9, 0.5, 0.4])) == pytest.approx(-1)
    # ranks 1.5 1.5 3 against 1 2 3: covariance 1.5, variances 1.5 and 2
    assert correlation(np.array([0.2, 0.2, 0.8]), np.arange(3)) == pytest.approx(1.5 / np.sqrt(3))


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_a_constant_prediction_has_no_correlation(method):
    # public code gives NaN, 0 or, by ranking ties in order, 1.0
    assert np.isnan(correlation(np.full(5, 0.4), np.arange(5), method))
    assert np.isnan(correlation(np.array([0.4]), np.array([0.4]), method))


def test_pearson_sees_what_ranks_do_not():
    bent = np.array([0.0, 0.0001, 0.0002, 1.0])
    assert correlation(bent, np.arange(4)) == pytest.approx(1)
    assert correlation(bent, np.arange(4), "pearson") == pytest.approx(0.7747, abs=1e-4)


def test_a_clock_is_perfect_on_experts_and_perfectly_wrong_on_retries():
    clock = np.linspace(0, 1, 40)
    assert correlation(clock, np.arange(40)) == pytest.approx(1)
    assert correlation(clock[10:15], bench_truth(40, 10, 14, "retry")[10:15]) == pytest.approx(-1)


def test_cycle_voc_wants_the_backward_half_to_fall():
    up = np.array([0.1, 0.4, 0.8])
    assert cycle_voc(np.concatenate([up, up[::-1]])) == pytest.approx(1)
    assert cycle_voc(np.linspace(0, 1, 6)) == pytest.approx(0)  # a clock: right on the way there, wrong on the way back
    assert cycle_voc(np.concatenate([up[::-1], up])) == pytest.approx(-1)
    # ranks 1 3 2 against 1 2 3 give 0.5, and so does the way back
    assert cycle_voc(np.array([0.1, 0.8, 0.4, 0.4, 0.8, 0.1])) == pytest.approx(0.5)
    assert np.isnan(cycle_voc(np.full(6, 0.5)))


def test_memory_voc_of_values_that_stay():
    # noise below 0.01 is no trend: unrounded, other definitions call this rise perfect
    drift = np.linspace(0.501, 0.504, 10)
    assert correlation(drift, np.arange(10)) == pytest.approx(1) and memory_voc(drift) == 0
    assert memory_voc(np.linspace(0.5, 0.7, 10)) == pytest.approx(1)


def test_a_chunk_is_in_a_lapse_wholly_or_not_at_all():
    lapses = np.array([[0, 4, 7]])
    # chunks of 3 steps from 0, 1, 2 .. of an episode of 12; the last ones are cut off at its end
    labels = advantage_labels(12, lapses, np.arange(12), 3)
    nan = np.nan
    np.testing.assert_array_equal(labels, [0, 0, nan, nan, 1, 1, nan, nan, 0, 0, 0, 0])


def test_calibration_error_by_hand():
    value, truth = np.array([0.05, 0.07, 0.55, 1.0]), np.array([0.0, 0.1, 0.75, 0.9])
    # bins [0,.1): errors .05 and -.03 sum to .02; [.5,.6): -.2; [.9,1]: .1
    assert calibration_error(*calibration_bins(value, truth)) == pytest.approx((0.02 + 0.2 + 0.1) / 4)
    assert np.isnan(calibration_error(*calibration_bins(np.zeros(0), np.zeros(0))))


def test_wins_count_pairs_with_ties_half():
    table = wins([np.array([0.5, 0.9]), np.zeros(0), np.array([2.0])], [np.array([0.5, 0.1]), np.array([1.0])])
    np.testing.assert_array_equal(table, [[3.5, 0], [0, 0], [2, 1]])  # .5 ties .5 and exceeds .1; .9 exceeds both
