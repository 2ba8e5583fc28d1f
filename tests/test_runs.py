"""Run folders and figures: whole files, exact continuation, an offline mirror."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.synthetic import dataset, episode
from wvm_rl import figures
from wvm_rl.errors import InputError
from wvm_rl.mirror import WandbConfig
from wvm_rl.runs import Run, finished_at, read_summary
from wvm_rl.summary import show
from wvm_rl.values.oracle import truth

SUMMARY = {
    "env": "lift",
    "agent": "awr",
    "policy": "flow",
    "value": "wvm",
    "seed": 0,
    "success_rate": 0.5,
    "success_ci95": (0.2, 0.8),
    "success_in_budget": 0.25,
    "success_in_budget_ci95": (0.1, 0.6),
    "median_seconds_to_success": 7.25,
    "episodes": 100,
    "ess_fraction": 0.875,
    "asked_fraction": 0.125,
    "knob": {"tau": 29.0, "clip": 1e6},
    "seeds": 1,
    "rollouts": 4,
    "samples": 1000,
    "kept_fraction": 1.0,
    "wall_seconds": {"policy": 3.0},
}


SETTINGS = {"seed": 3, "choices": {"agent": "bc"}, "agent": {}, "data": {"root": None, "episodes": 5}}


def test_a_run_folder_holds_config_versions_metrics_rows_and_summary(tmp_path):
    run = Run.open(tmp_path / "run", SETTINGS, WandbConfig(), {})
    with run.stage("policy"):
        run.log("policy", {"step": 10, "loss": 0.5})
        run.log("policy", {"step": 20, "loss": float("nan")})
    run.write_rows("episodes.parquet", [{"seed": 0, "rollout": 0, "success": True}])
    run.finish(SUMMARY)
    folder = run.folder
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 3
    versions = json.loads((folder / "versions.json").read_text())
    assert {"command", "commit", "python", "jax", "mujoco", "robosuite"} <= set(versions)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (folder / "metrics.jsonl").open()]
    assert lines == [{"stage": "policy", "step": 10, "loss": 0.5}, {"stage": "policy", "step": 20, "loss": None}]
    assert pd.read_parquet(folder / "episodes.parquet")["success"].tolist() == [True]
    assert read_summary(folder)["success_ci95"] == [0.2, 0.8] and run.seconds["policy"] > 0
    assert not [path for path in folder.iterdir() if path.name.startswith(".partial")]


def test_a_resumed_run_repeats_no_line(tmp_path):
    first = Run.open(tmp_path, SETTINGS, WandbConfig(), {})
    for step in (10, 20, 30):
        first.log("policy", {"step": step, "loss": float(step)})
    first.log("other", {"step": 25})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "policy", "st')  # killed while writing
    second = Run.open(tmp_path, SETTINGS, WandbConfig(), {})
    second.log("policy", {"step": 20, "loss": 2.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("policy", 10), ("other", 25), ("policy", 20)]
    (tmp_path / "metrics.jsonl").write_text('{"stage": "policy", 10}\n{"stage": "policy", "step": 20}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged: delete it and run again"):
        Run.open(tmp_path, SETTINGS, WandbConfig(), {}).log("policy", {"step": 20})


def test_a_run_is_finished_where_it_went_on_last(tmp_path, monkeypatch):
    for commit in "ABBA":
        monkeypatch.setattr("wvm_rl.runs.provenance", lambda commit=commit: {"commit": commit})
        Run.open(tmp_path, SETTINGS, WandbConfig(), {})
    assert finished_at(tmp_path) == "A"
    assert json.loads((tmp_path / "versions.json").read_text())["continued"] == [{"commit": "B"}, {"commit": "A"}]


def test_a_folder_is_of_one_run_only(tmp_path):
    (tmp_path / "versions.json").write_text("{}")  # as a kill in between leaves it
    run = Run.open(tmp_path, SETTINGS, WandbConfig(), {"values": "one"})
    with pytest.raises(InputError, match=r"holds a run with choices\.agent=bc, now it is filtered_bc_binary"):
        Run.open(tmp_path, SETTINGS | {"choices": {"agent": "filtered_bc_binary"}}, WandbConfig(), {"values": "one"})
    with pytest.raises(InputError, match="holds a run with input values=one, now it is two"):
        Run.open(tmp_path, SETTINGS, WandbConfig(), {"values": "two"})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "summary.json").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=r"summary\.json is damaged: delete"):
        read_summary(tmp_path / "damaged")
    (tmp_path / "damaged" / "config.yaml").write_text("")
    with pytest.raises(InputError, match=r"config\.yaml is damaged: delete"):
        Run.open(tmp_path / "damaged", SETTINGS, WandbConfig(), {})
    elsewhere = SETTINGS | {"data": {"root": "elsewhere", "episodes": 5}}  # not the same place, but the same result
    with pytest.raises(KeyboardInterrupt), run.stage("policy"):
        raise KeyboardInterrupt
    again = Run.open(tmp_path, elsewhere, WandbConfig(), {"values": "one"})
    assert again.seconds == run.seconds and again.seconds["policy"] > 0


def test_an_unfinished_run_has_no_summary(tmp_path):
    assert read_summary(tmp_path) is None


def test_the_final_table_names_what_matters(tmp_path, capsys):
    show(SUMMARY, tmp_path / "here")
    text = capsys.readouterr().out
    for part in ("lift", "awr", "0.50", "0.20 to 0.80", "7.2 s", "88%", "12%", "tau=29, clip=1e+06", "policy", "here"):
        assert part in text


def test_wandb_mirrors_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    runs = [Run.open(tmp_path / name, SETTINGS, WandbConfig(mode="offline"), {}) for name in ("one", "two")]
    for run in runs:  # of one program
        run.log("policy", {"step": 1, "loss": 0.5})
        run.write_rows("episodes.parquet", [{"seed": 0, "rollout": 0, "success": True}])
        run.write_rows("trajectories.parquet", [{"task": "lift", "value": np.zeros(count)} for count in (3, 4)])
        run.finish(SUMMARY)
        again = Run.open(run.folder, SETTINGS, WandbConfig(mode="offline"), {})
        assert again._mirror.identity == run._mirror.identity  # an interrupted run goes on there, too
        again.finish(SUMMARY)
        written = list(run.folder.rglob("run-*.wandb"))
        assert written and all(file.stat().st_size > 0 for file in written)


def test_unknown_wandb_modes_are_refused():
    with pytest.raises(InputError, match=r"wandb\.mode=on is unknown: choose one of disabled, offline, online"):
        WandbConfig(mode="on")


@pytest.fixture
def labelled(tmp_path):
    data = dataset(
        tmp_path / "d.hdf5",
        [
            episode(0, 200, size=32),
            episode(1, 300, [("retry", 100, 150)], quality="retry", size=32),
            episode(2, 200, [("hesitation", 20, 80), ("failure", 150, 199)], False, "failure", size=32),
        ],
        {"env_kwargs": {"control_freq": 20}, "expert_steps": 180},
    )
    return data, [truth(each, 180) for each in data]


def test_figures_have_the_width_of_a_column(labelled, tmp_path):
    data, values = labelled
    figures.summary(tmp_path / "figures", data, values)
    with Image.open(tmp_path / "figures" / "value_curves.png") as image:
        assert image.width == pytest.approx(figures.COLUMN * 200, abs=2)
    with Image.open(tmp_path / "figures" / "film_strip.png") as image:
        assert image.width == pytest.approx(2.1 * figures.COLUMN * 200, abs=2)


def test_lapses_are_shaded_where_they_are(labelled):
    data, values = labelled
    figure, axis = figures.plt.subplots()
    figures.curve(axis, data, data[1], values[1])
    (shade,) = axis.patches
    left, right = shade.get_x(), shade.get_x() + shade.get_width()
    assert left == pytest.approx(100 / 20) and right == pytest.approx(151 / 20)  # to the end of its last step
    assert {tuple(np.round(line.get_ydata()[[0, -1]], 3)) for line in axis.lines} == {(0.0, 1.0)}
    figures.plt.close(figure)
