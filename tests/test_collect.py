"""Collection: reproducible to the byte, resumable, replayable."""

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs import recorder
from envs.cache import key
from envs.collect import CollectConfig, collect, dataset_path, table
from envs.observations import Images
from envs.recipes import RECIPES, Expert
from envs.render import DRAWN_BY
from envs.simulation import Simulation
from envs.tasks import TASKS
from experiments.check_experts import CheckConfig
from tests.conftest import lift_config
from tests.synthetic import episode
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError


def test_a_killed_collection_resumes_to_the_same_bytes_with_any_number_of_workers(lift_dataset, tmp_path, monkeypatch):
    config = lift_config(tmp_path, workers=2)
    path = dataset_path(config)
    first = path.with_suffix(".parts") / "000000.hdf5"
    fps = f"fps={config.fps}"
    command = [sys.executable, "-m", "envs.collect", "env=lift", "recipe=expert", "episodes=2", "workers=1", fps]
    repository = Path(__file__).parents[1]
    with subprocess.Popen([*command, f"root={tmp_path}"], cwd=repository, stderr=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + 120
        while not first.exists():
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
    assert not path.exists()
    (first.parent / "000001.hdf5").write_bytes(b"cut short")
    written = first.stat().st_mtime_ns
    seen = []
    original = os.replace

    def watch(source, target):
        if Path(target) == path:  # the parts are still there when the dataset is put in its place
            seen.append(first.stat().st_mtime_ns)
        original(source, target)

    monkeypatch.setattr(os, "replace", watch)
    assert collect(config) == path
    assert seen == [written], "the finished episode was recorded again"
    assert path.read_bytes() == lift_dataset.read_bytes()
    assert [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")] == [path.name]


def test_a_finished_dataset_is_returned_at_once(lift_dataset, monkeypatch):
    monkeypatch.setattr("envs.collect.Workers", None)
    root = lift_dataset.parents[1]
    assert collect(lift_config(root, workers=2)) == lift_dataset


def test_an_episode_replays_bit_for_bit(lift_dataset):
    episode = Dataset(lift_dataset)[0]
    simulation = Simulation(TASKS["lift"]())
    simulation.restore(episode.model_file, episode.states[0])
    for step in range(len(episode)):
        assert np.array_equal(simulation.state, episode.states[step])
        for name, values in episode.obs.items():
            assert np.array_equal(simulation.observations[name], values[step]), (name, step)
        simulation.step(episode.actions[step])
        assert float(simulation.success) == episode.rewards[step]


def test_a_dataset_holds_no_path_of_this_machine(lift_dataset):
    model_file = Dataset(lift_dataset)[0].model_file
    assert 'file="robosuite/models/assets/' in model_file
    assert str(Path(sys.prefix)) not in model_file


def test_every_setting_but_root_and_workers_names_another_dataset(tmp_path):
    path = dataset_path(lift_config(tmp_path))
    assert path.name.startswith("lift-expert-2-seed0-")
    assert dataset_path(lift_config(tmp_path, workers=5)) == path
    for other in ({"seed": 1}, {"episodes": 3}, {"fps": 5}, {"size": 32}, {"camera": "agentview"}):
        assert dataset_path(lift_config(tmp_path, **other)).name != path.name
    config = lift_config(tmp_path)
    config.recipe.hesitation_seconds = [1.0, 5.0]
    assert dataset_path(config).name != path.name
    shares = {"expert": 0.5, "failure": 0.25, "retry": 0.25}  # two are equally far behind: their order decides
    turned = {name: shares[name] for name in ("expert", "retry", "failure")}
    names = [dataset_path(lift_config(tmp_path, recipe=Expert(shares=each))).name for each in (shares, turned)]
    assert names[0] != names[1]


def test_the_hash_sees_code_but_not_comments(tmp_path, monkeypatch):
    source = tmp_path / "cache.py"
    keys = []
    monkeypatch.setattr("envs.cache.__file__", str(source))
    for text in ("x = 1", '"""About x."""\nx = 1  # one\n', "x = 2"):
        (tmp_path / "physics.py").write_text(text)
        keys.append(key({}))
    assert keys[0] == keys[1] != keys[2]
    codes = [hashlib.sha256(ast.dump(ast.parse(text)).encode()).hexdigest() for text in ("x = 1", "x = 2")]
    monkeypatch.setattr("envs.cache.SAME", {f"physics {codes[1][:16]}": codes[0]})
    assert key({}) == keys[0]


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="keys hash syntax trees, which Python versions write otherwise"
)
def test_the_studys_episodes_keep_their_name():
    """Or else `python -m experiments.study` takes its committed runs for those of other episodes."""
    [run] = (Path(__file__).parents[1] / "experiments" / "results" / "study").glob("lift-suboptimal-awr-wvm-tiny-2*")
    settings = {"episodes": 100, "seed": 0, "fps": 5, "size": 96}
    config = CollectConfig(env=TASKS["lift"](), recipe=RECIPES["suboptimal"](), **settings)
    assert dataset_path(config).name == json.loads((run / "versions.json").read_text())["inputs"]["episodes"]
    assert key("drawn", DRAWN_BY) == "9a117e50"  # and pictures of them, or else all are drawn again


def test_the_table_counts_qualities(lift_dataset):
    lines = table(Dataset(lift_dataset)).splitlines()
    assert lines[0].split() == ["quality", "episodes", "success", "seconds", "lapses"]
    assert lines[1].split()[:3] == ["expert", "2", "1.00"]
    assert lines[-1].split()[:3] == ["all", "2", "1.00"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"episodes": 0}, "episodes=0"),
        ({"seed": -1}, "seed=-1"),
        ({"workers": 0}, "workers=0"),
        ({"size": 4}, "size=4"),
        ({"fps": 3}, "fps=3 must divide"),
        ({"fps": -4}, "fps=-4 must divide"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, setting, message):
    with pytest.raises(InputError, match=message):
        lift_config(tmp_path, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"name": "mylift"}, r"env\.name=mylift is no task: choose one by env=lift, can"),
        ({"options": {"control_freq": 10}}, r"env\.options\.control_freq is the same for all tasks here"),
        ({"robot": "Jaco"}, r"env\.robot=Jaco is unknown"),
    ],
)
def test_other_tasks_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        TASKS["lift"](**setting)


def test_looks_that_are_none_are_refused_before_anything_is_collected():
    with pytest.raises(InputError, match=r"camera workspace\.foggy: look foggy is unknown"):
        Images(cameras=["workspace.foggy"])


def test_a_task_that_is_solved_before_it_begins_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "Simulation", lambda task: None)
    monkeypatch.setattr(recorder, "record", lambda *_: replace(episode(0, 9), rewards=np.ones(9)))
    with pytest.raises(InputError, match="env=lift is solved at the first step of an episode"):
        recorder.recorder(lift_config(tmp_path, fps=0), tmp_path)(0)


def test_experts_of_no_task_are_not_measured():
    for tasks in ([], ["loaf"]):
        with pytest.raises(InputError, match="must name one task or more of lift, can"):
            CheckConfig(tasks=tasks)


def test_recipes_without_shares_are_refused():
    with pytest.raises(InputError, match="must be shares that add up to 1"):
        Expert(shares={})


def test_a_data_folder_that_is_a_file_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match=f"cannot write to {blocked}"):
        collect(lift_config(blocked))
