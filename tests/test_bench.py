"""The benchmark's command, its exported videos, and predictions made elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.model_toy import random_critic
from tests.synthetic import Brightness, dataset, episode
from wvm_rl import bench, bench_clips, bench_sources
from wvm_rl.bench import BenchConfig
from wvm_rl.data.windows import WindowsConfig
from wvm_rl.errors import InputError
from wvm_rl.footage import ScriptedFilms
from wvm_rl.scores import pooled
from wvm_rl.values.file import Predictions
from wvm_rl.values.learned import RELEASED
from wvm_rl.values.regressors import State
from wvm_rl.values.wvm import Wvm, WvmConfig

SPEED = {"windows_per_second": 100.0, "vae_share": 0.5, "cores": 2, "windows_per_second_by": {"lift": 100.0}}


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A benchmark of one episode of each kind, and a critic that reads brightness."""
    data = dataset(
        tmp_path / "fresh.hdf5",
        [
            episode(0, 200, [("hesitation", 60, 99)], quality="hesitation"),
            episode(1, 200, [("retry", 60, 89)], quality="retry"),
            episode(2, 200, [("failure", 150, 199)], success=False, quality="failure"),
            episode(3, 120),
        ],
    )
    monkeypatch.setattr(bench_clips, "collect", lambda plan: data.path)
    monkeypatch.setattr(WvmConfig, "source", lambda self: Wvm(Brightness()))
    monkeypatch.setattr(bench, "labelling_speed", lambda *_: SPEED)
    return data


def predictions(path, data, change=lambda table: table):
    rows = [
        {"task": "lift", "clip": clip, "episode": index, "frame": frame, "value": frame / 100}
        for clip, count in (("bench", 4), ("cycle", 1), ("frozen", 1))
        for index in range(count)
        for frame in range(0, 20, 2)
    ]
    change(pd.DataFrame(rows)).to_parquet(path)
    return str(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ["gvl"]},
        {"models": []},
        {"episodes": 1},
        {"draws": 0},
        {"horizon_k": 1},
        {"tasks": ["fly"]},
        {"windows": WindowsConfig()},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BenchConfig(**wrong)


def test_frames_that_the_critic_cannot_read_are_refused_before_any_is_made():
    plain = BenchConfig(models=["wvm"])
    assert (plan := bench.plans(plain, Brightness())["lift"]).size == 16 and plan.camera == "workspace"
    assert bench.plans(replace(plain, size=48), Brightness())["lift"].size == 48
    for wrong, message in (
        ({"fps": 2}, "fps=2: the critic reads 4 frames a second"),
        ({"size": 40}, "size=40 must be a multiple of the 16 pixels"),
        ({"size": 0}, "size=0 must be a multiple"),
    ):
        with pytest.raises(InputError, match=message):
            bench.plans(replace(plain, **wrong), Brightness())
    slow, odd = Brightness(), Brightness()
    slow.fps, odd.fps = 1.0, 7.5
    with pytest.raises(InputError, match="reads 1 frames a second: 5 s of a frozen frame are fewer than the 9"):
        bench.plans(plain, slow)
    with pytest.raises(InputError, match=r"models: video, floor learn from films of a whole .* reads 7\.5: leave"):
        bench.plans(replace(plain, models=["wvm", "video", "floor"]), odd)
    assert bench.plans(plain, odd)
    with pytest.raises(InputError, match="head, regression, gives no distribution: leave `draws` out"):
        bench.plans(replace(plain, models=["wvm", "draws"]), random_critic("regression"))
    for free in ({"models": ["clock"]}, {"export": "videos"}):  # nobody reads frames, or somebody elsewhere
        assert bench.plans(replace(plain, fps=2, **free), Brightness())["lift"].fps == 2
    elsewhere = Brightness()
    elsewhere.camera = "robot0_eye_in_hand"
    assert bench.plans(plain, elsewhere)["lift"].camera == "robot0_eye_in_hand"
    with pytest.raises(InputError, match="models: video learn from the camera workspace, the critic sees robot0_eye"):
        bench.plans(replace(plain, models=["wvm", "video"]), elsewhere)


def test_no_workers_are_not_any_number_of_them():
    assert BenchConfig(workers=0, data=ScriptedFilms(workers=2)).workers == 0  # which collecting refuses
    assert BenchConfig(data=ScriptedFilms(workers=2)).workers == 2


def test_shifts_are_looks_of_the_episodes_or_other_episodes():
    config = BenchConfig(shifts=["all"])
    assert {"moved5", "textured", "sawyer", "detour"} <= set(config.shifts)
    plan = bench.plans(config, Brightness())["lift"]
    assert bench.SHIFTS["ur5e"](plan).env.robot == "UR5e" and plan.env.robot == "Panda"
    drifting = bench.SHIFTS["drift"](plan)
    assert (drifting.recipe.manner, drifting.recipe.shares, drifting.episodes) == ("drift", {"hesitation": 1.0}, 25)
    with pytest.raises(InputError, match="shifts has unknown foggy: choose from all, moved5"):
        BenchConfig(shifts=["foggy"])


def test_regressors_know_their_tasks_only():
    with pytest.raises(InputError, match="models: frame, video, floor learn nothing of door: leave them out"):
        BenchConfig(tasks=["lift", "door"])
    assert BenchConfig(models=["wvm", "clock"], tasks=["door"]).tasks == ["door"]
    assert BenchConfig(tasks=["door"], export="videos").export  # runs no model


def test_the_default_regressors_are_released():
    """A user who runs the benchmark as it is trains none."""
    config = BenchConfig()
    critic = WvmConfig(critic=config.critic).source().critic
    for source in bench_sources.regressors_of(config, critic).values():
        places = source._places.values() if isinstance(source, State) else [(source._path, "")]
        assert all(path.parent == RELEASED for path, _ in places), source.name
    raised = replace(config, data=replace(config.data, raised=0.1))  # of which none was released
    for source in bench_sources.regressors_of(raised, critic).values():
        places = source._places.values() if isinstance(source, State) else [(source._path, "")]
        assert all(path.parent != RELEASED for path, _ in places), source.name


def test_released_regressors_read_as_when_they_were_released(tmp_path, monkeypatch):
    """Pinned: whoever changes how they read must raise their `version`, and release others."""
    monkeypatch.setattr(bench_sources, "collect", lambda _: pytest.fail("nothing is to be collected"))
    config = BenchConfig()
    critic = WvmConfig(critic=config.critic).source().critic
    sources = bench_sources.regressors_of(config, critic)
    seen = replace(episode(0, 80, interval=4, size=96), instruction=critic.instructions[0])
    data = dataset(tmp_path / "lift.hdf5", [seen])
    for name, pinned in (("frame", [0.4753, 0.3640, 0.3597]), ("video", [0.2862, 0.0909, 0.6688])):
        value = next(sources[name].values(data)).value
        np.testing.assert_allclose(value[[0, 10, 19]], pinned, atol=5e-3)
    obs = {"robot0_eef_pos": [0, 0, 0.9], "robot0_eef_quat": [1, 0, 0, 0], "robot0_gripper_qpos": [0.02, -0.02]}
    obs["object"] = [0, 0, 0.82, 0, 0, 0, 1, 0, 0, 0.08]  # the cube's pose, and the hand's distance
    states = {key: np.tile(np.array(row, np.float32), (80, 1)) for key, row in obs.items()}
    scripted = replace(seen, obs=states, phase=np.repeat(np.arange(4, dtype=np.int32), 20))
    value = next(sources["floor"].values(dataset(tmp_path / "states.hdf5", [scripted]))).value
    np.testing.assert_allclose(value[[0, 30, 79]], [0.6234, 0.6962, 0.7534], atol=1e-3)


def test_places_and_names_are_checked():
    with pytest.raises(InputError, match=r"predictions\.clock has the name of a model"):
        BenchConfig(predictions={"clock": "a.parquet"})
    assert BenchConfig(data=ScriptedFilms(root="elsewhere")).root == "elsewhere"
    with pytest.raises(InputError, match=r"predictions\.theirs=a\.parquet is no file"):
        BenchConfig(predictions={"theirs": "a.parquet"})


def test_the_command_leaves_a_run_folder(tmp_path, capsys, fresh, monkeypatch):
    theirs = {"theirs": predictions(tmp_path / "theirs.parquet", fresh)}
    config = BenchConfig(models=["wvm", "clock"], predictions=theirs, tasks=["lift"], fps=4, episodes=4)
    bench.main(config, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "bench.json").read_text())
    # the synthetic frames show time, not progress: as good as a clock
    assert content["model"] == "wvm" and content["retry_voc"] == pytest.approx(-1)
    assert content["expert_voc"] == pytest.approx(1) and content["critic"] == "brightness"
    assert content["cycle_voc"] == pytest.approx(1) and content["frozen_range"] == 0
    assert content["tasks"]["lift"]["hesitation_rmse"] == content["hesitation_rmse"] > 0.01
    assert set(content["models"]) == {"wvm", "clock", "theirs"} and content["windows_per_second"] == 100
    assert content["tasks"]["lift"]["windows_per_second"] == 100
    assert content["caption"] in (tmp_path / "run" / "bench.md").read_text()
    assert content["models"]["theirs"]["expert_voc"] > 0.9 and "difference" in content["models"]["clock"]
    found = pd.read_parquet(tmp_path / "run" / "trajectories.parquet")
    assert len(found) == 3 * 6 and len(found["value"][0]) == 40
    assert "Suboptimal-Value-Bench" in capsys.readouterr().out
    assert all((tmp_path / "run" / "figures" / f"{name}.png").exists() for name in ("curves", "calibration"))
    assert (tmp_path / "run" / "bench.md").exists() and (tmp_path / "run" / "bench.tex").exists()
    predictions(Path(theirs["theirs"]), fresh, lambda table: table.assign(value=table["value"] / 2))
    with pytest.raises(InputError, match="holds a run with input predictions=theirs"):
        bench.main(config, tmp_path / "run")
    with pytest.raises(InputError, match=r"fresh\.hdf5 has 4 frames a second now, not 10"):
        bench.main(replace(config, fps=10), tmp_path / "other")
    predictions(Path(theirs["theirs"]), fresh, lambda table: table[table["clip"] != "frozen"])
    monkeypatch.setattr(bench_clips, "collect", lambda plan: pytest.fail("collected"))
    for incomplete, lack in (
        (config, "clip frozen, episode 0"),
        (replace(config, episodes=5), "clip bench, episode 4"),
    ):
        with pytest.raises(InputError, match=rf"theirs\.parquet has no rows of lift, .*{lack}"):
            bench.main(incomplete, tmp_path / "incomplete")
    assert not (tmp_path / "incomplete").exists()


def test_sources_that_read_the_record_value_episodes_alone(fresh):
    config = BenchConfig(models=["oracle", "noisy", "success"], tasks=["lift"], fps=4)
    sources = bench_sources.sources_of(config, Wvm(Brightness()), {})
    datasets = bench.clips(bench.plans(config, Brightness()), "workspace", [])
    rows = bench_sources.rows_of(sources, datasets, config.horizon_k)
    assert {(row["model"], row["clip"]) for row in rows} == {(model, "bench") for model in config.models}
    assert pooled([row for row in rows if row["model"] == "oracle"])["retry_voc"] == pytest.approx(1)
    assert pooled([row for row in rows if row["model"] == "success"])["retry_voc"] == pytest.approx(-1)


def test_videos_are_exported_with_what_was_asked_for(tmp_path, fresh):
    config = BenchConfig(models=["wvm"], tasks=["lift"], fps=4, export=str(tmp_path / "videos"))
    bench.main(config, tmp_path / "run")
    table = pd.read_csv(tmp_path / "videos" / "episodes.csv")
    assert list(table["clip"]) == ["bench"] * 4 + ["cycle", "frozen"] and not (tmp_path / "run").exists()
    assert all((tmp_path / "videos" / video).stat().st_size > 500 for video in table["video"])
    assert set(table["instruction"]) == {"lift the red cube"} and list(table["frames"][:4]) == [40, 40, 40, 24]


def test_predictions_that_do_not_fit_are_refused(tmp_path, fresh):
    def values(change, episodes=slice(None)):
        part = Predictions("theirs", predictions(tmp_path / "p.parquet", fresh, change)).part("lift", "bench")
        return list(part.values(fresh))[episodes]

    found = values(lambda table: table)[0]
    np.testing.assert_array_equal(found.step, np.arange(0, 100, 10))
    np.testing.assert_allclose(found.value, np.arange(0, 20, 2) / 100)
    for change, message in (
        (lambda table: table.drop(columns="frame"), "lacks column frame: it needs task, clip"),
        (lambda table: table.assign(frame=table["frame"] + 0.5), "column frame must hold whole numbers"),
        (lambda table: table.assign(episode=table["episode"].astype(str)), "column episode must hold whole numbers"),
        (lambda table: table[table["episode"] != 2], "has no rows of lift, clip bench, episode 2"),
        (lambda table: table.assign(frame=table["frame"] + 30), r"must differ and lie in 0\.\.39"),
        (lambda table: table.assign(value=np.nan), "not finite"),
        (lambda table: table.assign(value="high"), "not finite numbers"),
        (lambda table: table.assign(value=True), "not finite numbers"),
        (lambda table: table.assign(episode=-1), "column episode must hold whole numbers, counted from 0"),
    ):
        with pytest.raises(InputError, match=message):
            values(change)
    with pytest.raises(InputError, match="is no file"):
        Predictions("theirs", tmp_path)
    (tmp_path / "junk.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        Predictions("theirs", tmp_path / "junk.parquet")
