"""The benchmark: rows, pooling and table, on synthetic episodes whose frames show their own progress."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.synthetic import Brightness, dataset, episode
from wvm_rl import bench
from wvm_rl.bench import BenchConfig, scored
from wvm_rl.errors import InputError
from wvm_rl.metrics import bench_truth
from wvm_rl.scores import pooled, report, table, trajectories
from wvm_rl.values.base import Values
from wvm_rl.values.clock import Clock
from wvm_rl.values.frame import Frame, FrameConfig
from wvm_rl.values.wvm import Wvm, WvmConfig

RETRY, HESITATION = ("retry", 60, 89), ("hesitation", 60, 99)


class Constant:
    """0.5 everywhere."""

    name, fingerprint = "constant", "constant"

    def values(self, dataset, start=0):
        for _ in dataset.lengths[start:]:
            yield Values(np.array([0]), np.array([0.5]))


@pytest.fixture
def lapses(tmp_path):
    return dataset(
        tmp_path / "lapses.hdf5",
        [
            episode(0, 200, [HESITATION], quality="hesitation"),
            episode(1, 200, [RETRY], quality="retry"),
            episode(2, 50, [("retry", 10, 45)], quality="retry"),  # T <= 2x
            episode(3, 200, [RETRY, ("hesitation", 120, 160)], quality="mixed"),
            episode(4, 200, [("failure", 150, 199)], success=False, quality="failure"),
        ],
    )


@pytest.fixture
def experts(tmp_path):
    return dataset(tmp_path / "experts.hdf5", [episode(9, 120)])


def test_only_frames_of_the_one_lapse_count(lapses):
    truths = [bench_truth(200, 60, 99, "hesitation"), bench_truth(200, 60, 89, "retry")]
    values = [*truths, *(np.zeros(length) for length in lapses.lengths[2:])]
    values[0] = np.where((np.arange(200) >= 60) & (np.arange(200) <= 99), truths[0] + 0.1, 7.0)
    rows = trajectories("lift", "mine", lapses, values, "workspace")
    assert [(row["kind"], row["episode"], row["points"]) for row in rows] == [("hesitation", 0, 8), ("retry", 1, 6)]
    assert rows[0]["score"] == pytest.approx(0.1) and np.isnan(rows[0]["pearson"])
    assert rows[1]["score"] == pytest.approx(1) and rows[1]["pearson"] == pytest.approx(1)


def test_clock_and_constant(lapses, experts):
    rows, rejected = scored("lift", [lapses, experts], [Clock(), Constant()], "workspace")
    assert rejected == 3
    content = report(rows, rejected, 4.0)
    clock, constant = content["models"]["clock"], content["models"]["constant"]
    assert (clock["expert_voc"], clock["retry_voc"], clock["retry_voc_defined"]) == pytest.approx((1, -1, 1))
    assert (constant["expert_voc"], constant["retry_voc"], constant["retry_voc_defined"]) == (0, 0, 0)
    assert np.isnan(constant["retry_voc_where_defined"]) and constant["expert_points"] == 24
    # clock: t/199 against 60/(199-39) at frames 60, 65 .. 95
    assert clock["hesitation_rmse"] == pytest.approx(np.sqrt(np.mean((np.arange(60, 100, 5) / 199 - 0.375) ** 2)))
    assert content["model"] == "clock" and content["tasks"]["lift"]["retry_voc"] == pytest.approx(-1)


def test_pooling_goes_from_trajectories_over_tasks():
    def row(task, score):
        return {"task": task, "model": "m", "episode": 0, "kind": "retry", "points": 5, "score": score, "pearson": 1.0}

    rows = [row("lift", 1.0), row("lift", float("nan")), row("lift", 1.0), row("lift", 1.0)]
    rows += [row("can", -1.0), row("can", -0.5)]
    scores = pooled(rows)
    assert scores["retry_voc"] == pytest.approx((0.75 - 0.75) / 2)
    assert scores["retry_voc_where_defined"] == pytest.approx((1 - 0.75) / 2)
    assert scores["retry_voc_defined"] == pytest.approx((0.75 + 1) / 2)
    low, high = scores["retry_voc_ci95"]
    assert low < 0 < high and np.isnan(scores["hesitation_rmse"])


def test_the_table_says_all_that_is_needed_to_read_it(lapses, experts):
    rows, rejected = scored("lift", [lapses, experts], [Clock(), Constant()], "workspace")
    console = Console(file=io.StringIO(), width=180)
    console.print(table(report(rows, rejected, 4.0)))
    text = console.file.getvalue()
    for part in ("Hesitation-RMSE", "Retry-VOC", "Expert-VOC", "clock", "constant", "undefined", "4 fps", "3 rejected"):
        assert part in text
    assert "1 hesitation (8.0 points each), 1 retry (6.0 points each), 1 expert (24.0 points each)" in text


def test_the_report_is_json(lapses, experts):
    rows, rejected = scored("lift", [lapses, experts], [Clock()], "workspace")
    assert json.loads(json.dumps(report(rows, rejected, 4.0)))["retry_voc"] == pytest.approx(-1)


def test_the_frame_regressor_reads_progress_off_single_frames(tmp_path, lapses):
    experts = dataset(tmp_path / "known.hdf5", [episode(index, 100 + index) for index in range(4)])
    source = Frame(FrameConfig(steps=80, batch=16, learning_rate=3e-3), [experts], "workspace")
    fresh = dataset(tmp_path / "fresh.hdf5", [episode(20, 110)])
    found = next(source.values(fresh))
    np.testing.assert_allclose(found.value, found.step / 109, atol=0.15)
    assert (
        source.fingerprint
        == Frame(FrameConfig(steps=80, batch=16, learning_rate=3e-3), [experts], "workspace").fingerprint
    )
    assert (
        source.fingerprint
        != Frame(FrameConfig(steps=81, batch=16, learning_rate=3e-3), [experts], "workspace").fingerprint
    )
    other = episode(21, 60)
    other.instruction = "juggle"
    with pytest.raises(InputError, match="not trained on `juggle`"):
        next(source.values(dataset(tmp_path / "other.hdf5", [other])))
    with pytest.raises(InputError, match="episode 0 is no expert's success"):
        Frame(FrameConfig(), [lapses], "workspace").fit()


@pytest.mark.parametrize(
    "wrong", [{"models": ["gvl"]}, {"models": []}, {"episodes": 1}, {"experts": 0}, {"seed": 5, "training_seed": 5}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BenchConfig(**wrong)


def test_the_command_leaves_a_run_folder(tmp_path, monkeypatch, capsys, lapses, experts):
    files = {"bench": [lapses], "expert": [experts]}
    monkeypatch.setattr(bench, "collect", lambda plan: files[plan.recipe.name][0].path)
    monkeypatch.setattr(WvmConfig, "source", lambda self: Wvm(Brightness()))
    bench.main(BenchConfig(models=["wvm", "clock"], tasks=["lift"]), tmp_path / "run")
    content = json.loads((tmp_path / "run" / "bench.json").read_text())
    # the synthetic frames show time, not progress: as good as a clock
    assert content["model"] == "wvm" and content["retry_voc"] == pytest.approx(-1)
    assert content["expert_voc"] == pytest.approx(1) and content["critic"] == "brightness"
    assert content["tasks"]["lift"]["hesitation_rmse"] == content["hesitation_rmse"] > 0.01
    assert set(content["models"]) == {"wvm", "clock"} and content["models"]["clock"]["retry_voc"] == pytest.approx(-1)
    assert len(pd.read_parquet(tmp_path / "run" / "trajectories.parquet")) == 6
    assert "Suboptimal-Value-Bench" in capsys.readouterr().out
