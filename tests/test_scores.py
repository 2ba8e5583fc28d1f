"""Scores: what counts of a clip, pooling, comparison, bars and tables, on synthetic episodes."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tests.synthetic import dataset, episode
from wvm_rl.bench_sources import rows_of
from wvm_rl.metrics import bench_truth
from wvm_rl.report import met, report
from wvm_rl.scoreboard import caption, latex, markdown, tables
from wvm_rl.scores import compared, pooled, trajectories
from wvm_rl.values.clock import Blind
from wvm_rl.values.oracle import Oracle

RETRY, HESITATION = ("retry", 60, 89), ("hesitation", 60, 99)
CONDITIONS = {"fps": 4, "horizon_k": 20}


@pytest.fixture
def clips(tmp_path):
    """One episode of each kind, and two that have no true value; with an expert's clips."""
    episodes = [
        episode(0, 200, [HESITATION], quality="hesitation"),
        episode(1, 200, [RETRY], quality="retry"),
        episode(2, 50, [("retry", 10, 45)], quality="retry"),  # T <= 2x
        episode(3, 200, [RETRY, ("hesitation", 120, 160)], quality="mixed"),
        episode(4, 200, [("failure", 150, 199)], success=False, quality="failure"),
        episode(5, 120),
    ]
    plain = dataset(tmp_path / "plain.hdf5", episodes)
    made = dataset(tmp_path / "made.hdf5", [episode(0, 120)])
    return {("lift", "bench"): plain, ("lift", "cycle"): made, ("lift", "frozen"): made}


def rows(clips, *sources):
    return rows_of({source.name: lambda task, clip, source=source: source for source in sources}, clips, 20)


def test_only_frames_of_the_one_lapse_count(clips):
    plain = clips["lift", "bench"]
    truths = [bench_truth(200, 60, 99, "hesitation"), bench_truth(200, 60, 89, "retry")]
    values = [*truths, *(np.zeros(length) for length in plain.lengths[2:])]
    values[0] = np.where((np.arange(200) >= 60) & (np.arange(200) <= 99), truths[0] + 0.1, 7.0)
    found = trajectories("lift", "mine", "bench", plain, values, 20)
    assert [row["kind"] for row in found] == ["hesitation", "retry", "rejected", "rejected", "failure", "expert"]
    scores = pooled(found)
    assert scores["hesitation_rmse"] == pytest.approx(0.1) and scores["hesitation_points"] == 8
    assert (scores["retry_voc"], scores["retry_pearson"], scores["retry_points"]) == pytest.approx((1, 1, 6))
    assert scores["expert_voc"] == 0 and scores["expert_voc_defined"] == 0 and np.isnan(scores["cycle_voc"])


def test_clock_and_constant(clips):
    content = report(rows(clips, Blind("clock"), Blind("constant")), None, CONDITIONS, {})
    clock, constant = content["models"]["clock"], content["models"]["constant"]
    assert (clock["expert_voc"], clock["retry_voc"], clock["retry_voc_defined"]) == pytest.approx((1, -1, 1))
    assert (clock["cycle_voc"], clock["memory_voc"]) == pytest.approx((0, 1)) and clock["frozen_range"] > 0.9
    assert (clock["failure_auroc"], constant["failure_auroc"], constant["lapse_auroc"]) == (0.5, 0.5, 0.5)
    assert (constant["expert_voc"], constant["retry_voc"], constant["retry_voc_defined"]) == (0, 0, 0)
    assert np.isnan(constant["retry_voc_where_defined"]) and constant["expert_points"] == 24
    # clock: t/199 against 60/(199-39) at frames 60, 65 .. 95
    assert clock["hesitation_rmse"] == pytest.approx(np.sqrt(np.mean((np.arange(60, 100, 5) / 199 - 0.375) ** 2)))
    assert content["model"] == "clock" and content["tasks"]["lift"]["retry_voc"] == pytest.approx(-1)
    assert content["rejected"] == 2


def test_speed_stands_beside_the_scores_of_its_model(clips):
    found, speed = rows(clips, Blind("clock"), Blind("walk")), {"windows_per_second": 9.0}
    content = {
        name: report(found, None, CONDITIONS, {name: speed | {"windows_per_second_by": {"lift": 7.0}}})
        for name in ("clock", "walk")
    }
    for name, each in content.items():
        assert each["models"][name]["windows_per_second"] == 9
        assert each["models"][name]["tasks"]["lift"]["windows_per_second"] == 7
    assert content["clock"]["windows_per_second"] == 9 and "windows_per_second" not in content["walk"]


def test_the_oracle_tells_lapses_from_progress(clips):
    plain = {("lift", "bench"): clips["lift", "bench"]}
    scores = pooled(rows(plain, Oracle()))
    assert scores["lapse_auroc"] == scores["failure_auroc"] == 1 and scores["calibration_error"] < 0.02
    difference = compared(rows(plain, Oracle()), rows(plain, Blind("constant")))
    assert difference["lapse_auroc"] == 0.5 and difference["retry_voc"] == pytest.approx(1)
    assert difference["hesitation_rmse"] < 0


def test_hesitation_rmse_is_the_mean_of_each_trajectory_not_of_all_frames(tmp_path):
    # pooled over frames the longer one would count more: sqrt((4 * 0.1^2 + 12 * 0.3^2) / 16) = 0.26
    bounds, errors = [(60, 79), (60, 119)], [0.1, 0.3]
    episodes = [episode(index, 200, [("hesitation", *each)]) for index, each in enumerate(bounds)]
    films = dataset(tmp_path / "films.hdf5", episodes)
    values = [bench_truth(200, *each, "hesitation") + error for each, error in zip(bounds, errors)]
    assert pooled(trajectories("lift", "mine", "bench", films, values, 20))["hesitation_rmse"] == pytest.approx(0.2)


def test_frozen_range_is_the_highest_minus_the_lowest_value(tmp_path):
    # not the last minus the first, and not rounded as for Memory-VOC
    films = dataset(tmp_path / "films.hdf5", [episode(0, 15)])
    value = np.interp(np.arange(15), [0, 5, 10, 14], [0.2, 0.503, 0.3, 0.3])
    assert pooled(trajectories("lift", "mine", "frozen", films, [value], 20))["frozen_range"] == pytest.approx(0.303)


def test_pooling_goes_from_trajectories_over_tasks():
    truth = np.linspace(1, 0, 5)

    def row(task, value):
        shared = {"model": "m", "clip": "bench", "kind": "retry", "success": True, "first": 0, "last": 4, "final": 1.0}
        lists = {"step": np.arange(5), "value": value, "truth": truth, "delta": np.zeros(0), "lapse": np.zeros(0)}
        return {"task": task, **shared, **lists}

    found = [row("lift", truth), row("lift", np.ones(5)), row("lift", truth), row("lift", truth)]
    found += [row("can", -truth), row("can", np.array([0, 0.5, 0.25, 0.75, 1]))]
    scores = pooled(found)
    assert scores["retry_voc"] == pytest.approx((0.75 - 0.95) / 2)  # the last one swaps two of five: -0.9
    assert scores["retry_voc_where_defined"] == pytest.approx((1 - 0.95) / 2)
    assert scores["retry_voc_defined"] == pytest.approx((0.75 + 1) / 2)
    low, high = scores["retry_voc_ci95"]
    assert low < scores["retry_voc"] < high and np.isnan(scores["hesitation_rmse"])


def test_bars_are_ceilings_and_thresholds():
    scores = {"hesitation_rmse": 0.035, "hesitation_floor": 0.03, "retry_voc": 0.96, "expert_voc": 0.9}
    scores |= {"cycle_voc": 0.9, "frozen_range": 0.06, "failure_auroc": 0.5, "lapse_auroc": float("nan")}
    assert met(scores) == ["hesitation_rmse", "retry_voc", "cycle_voc"]
    for floor in (0.02, None):  # too high above it, and unknown
        assert "hesitation_rmse" not in met(scores | {"hesitation_floor": floor})


def test_tables_say_all_that_is_needed_to_read_them(clips):
    content = report(rows(clips, Blind("clock"), Blind("constant")), "constant", CONDITIONS, {})
    assert json.loads(json.dumps(content))["hesitation_floor"] == content["models"]["constant"]["hesitation_rmse"]
    console = Console(file=io.StringIO(), width=250)
    console.print(*tables(content), caption(content), sep="\n")
    counts = "1 hesitation (8.0 points each), 1 retry (6.0 points each), 1 expert (24.0 points each)"
    for text in (console.file.getvalue(), markdown(content), latex(content)):
        for part in (
            "Hesitation-RMSE",
            "Expert, Pearson",
            "bars met of 7",
            "clock",
            "constant",
            "4 fps",
            "2 rejected",
            "20 control",
            counts,
        ):
            assert part in text
    assert latex(content).rstrip().endswith(caption(content).replace("%", r"\%"))  # typeset, not a comment
    assert r"100\%" in latex(content) and "100% |" in markdown(content)
    details = markdown(content).split("| Retry, where defined |")[1]
    assert "| all | clock | -1.000 |" in details and "-100%" not in details  # a correlation, not a fraction


def test_shifts_are_scored_apart(clips):
    shifted = {**clips, ("lift", "lit"): clips["lift", "bench"]}
    content = report(rows(shifted, Blind("clock"), Blind("constant")), None, CONDITIONS, {})
    assert content["shifts"].keys() == {"lit"} and content["retry_trajectories"] == 1
    assert content["shifts"]["lit"]["clock"]["hesitation_rmse"] == content["hesitation_rmse"]
    assert np.isnan(content["shifts"]["lit"]["clock"]["cycle_voc"])
    assert "| lit | constant |" in markdown(content)
    assert content["shifts"]["lit"]["constant"]["bars_met"] == []
