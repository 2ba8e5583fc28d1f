"""Policies that learn from the episodes of a file."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from envs.tasks import EVERY, POLICY_KEYS
from tests.conftest import needs_egl
from tests.synthetic import ENV_ARGS, Brightness, dataset, episode
from tests.test_train import job
from wvm_rl.config import EvaluationConfig, FileData
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.films import as_episodes
from wvm_rl.samples import origin
from wvm_rl.train import main
from wvm_rl.values import VALUES
from wvm_rl.values.wvm import Wvm

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def file(lift_dataset, tmp_path):
    return shutil.copy(lift_dataset, tmp_path / "mine.hdf5")


def given(file, value="oracle", **settings):
    config = job(file.parent, data=FileData(str(file)), value=VALUES[value](), **settings)
    return origin(config, config.value.source())


def test_a_file_gives_what_its_recipe_gives(shared, tmp_path):
    """And what its policy did can teach the next one."""
    keeping = EvaluationConfig(rollouts=2, workers=1, keep=2)
    scripted = job(shared, evaluation=keeping)
    main(scripted, tmp_path / "scripted")
    collected = origin(scripted, scripted.value.source()).dataset().path
    data = FileData(shutil.copy(collected, tmp_path / "mine.hdf5"), root=str(shared))
    main(job(shared, evaluation=keeping, data=data), tmp_path / "given")
    kept = [tmp_path / name / "rollouts.hdf5" for name in ("scripted", "given")]
    assert kept[0].read_bytes() == kept[1].read_bytes()
    summary = json.loads((tmp_path / "given" / "summary.json").read_text())
    assert (summary["recipe"], summary["episodes"]) == ("file", 4)

    settings = {"data": FileData(str(kept[0]), root=str(shared)), "value": VALUES["clock"]()}
    main(job(shared, agent="bc", **settings), tmp_path / "next")
    summary = json.loads((tmp_path / "next" / "summary.json").read_text())
    assert summary["samples"] == sum(Dataset(kept[0]).lengths)
    shutil.copy(collected, kept[0])
    with pytest.raises(InputError, match="holds a run with input episodes"):
        main(job(shared, agent="bc", **settings), tmp_path / "next")


def test_what_a_policy_did_is_no_experts(tmp_path):
    did = [SimpleNamespace(actions=np.zeros((5, 7)), states=np.zeros((6, 3)), obs={}, model_file="") for _ in range(2)]
    did[0].success, did[1].success = True, False
    as_episodes(tmp_path / "kept.hdf5", EVERY["lift"](), ENV_ARGS, dict(enumerate(did)))
    assert [each.quality for each in Dataset(tmp_path / "kept.hdf5")] == ["mixed", "failure"]


@needs_egl
def test_frames_that_the_critic_cannot_read_are_rendered_into_a_copy(file):
    with h5py.File(file, "r+") as opened:  # nor are they at one rate
        opened["data/demo_0/frames/step"][1] += 1
    before = file.read_bytes()
    seen = given(file, "wvm").dataset()
    assert (seen.fps, seen.frames_shape(0, "workspace")[1:], len(seen)) == (5, (96, 96), 2)
    assert seen.path.parent == file.parent and file.read_bytes() == before
    assert given(seen.path, "wvm").dataset().path == seen.path  # nothing to render
    assert given(file).dataset().path == file  # a source that sees nothing


def test_an_episode_too_short_for_the_critic_is_refused_before_it_is_rendered(tmp_path):
    obs = {key: np.zeros((30, 3), np.float32) for key in POLICY_KEYS}
    scene = {"obs": obs, "model_file": '<mujoco><joint name="finger_joint1"/></mujoco>'}
    episodes = [replace(episode(index, 30, interval=0), **scene) for index in range(2)]
    for each in episodes:
        each.actions[:, -1] = 1
    env_args = ENV_ARGS | {"env_kwargs": {"control_freq": 20, "robots": "Panda"}}
    data = dataset(tmp_path / "short.hdf5", episodes, env_args)
    assert given(data.path).dataset().path == data.path
    with pytest.raises(InputError, match=r"short\.hdf5: demo_0 is shorter than a clip of the critic, 9 frames at 5 a"):
        given(data.path, "wvm")


def test_critics_that_see_more_than_the_simulator_shows_are_refused(file):
    source = Wvm(Brightness())
    source.critic.fps = 30.0
    with pytest.raises(InputError, match="30 frames a second are wanted, of 20 control steps"):
        origin(job(file.parent, data=FileData(str(file))), source)


def test_files_that_do_not_fit_are_refused(file):
    with pytest.raises(InputError, match=r"mine\.hdf5: its env_args have env_name=Lift, env=can PickPlaceCan"):
        given(file, env=EVERY["can"]())
    with pytest.raises(InputError, match="robots=Panda, env=lift Sawyer"):
        given(file, env=replace(EVERY["lift"](), robot="Sawyer"))
    with pytest.raises(InputError, match="its env_args lack use_latch: add it, False if env=lift fits"):
        given(file, env=replace(EVERY["lift"](), options={"use_latch": False}))
    with pytest.raises(InputError, match="no such dataset"):
        given(file.with_name("absent.hdf5"))
    with h5py.File(file, "r+") as opened:
        opened["data"].attrs["env_args"] = json.dumps({"control_freq": 20})
    with pytest.raises(InputError, match="its env_args lack env_name: add it, Lift if env=lift fits the episodes"):
        given(file)


@pytest.mark.parametrize(
    ("controller", "message"),
    [
        ({"type": "OSC_POSE", "control_delta": False}, "control_delta=False"),  # robosuite 1.4
        ({"body_parts": {"right": {"type": "OSC_POSE", "input_type": "absolute"}}}, "input_type=absolute"),
        ({"body_parts": {"right": {"type": "JOINT_POSITION", "input_type": "delta"}}}, "type=JOINT_POSITION"),
        ({"type": "OSC_POSE", "output_max": [0.2] * 6}, r"output_max=\[0.2, .*\]"),
        ({"type": "OSC_POSE", "input_max": 1, "output_min": "low"}, "output_min=low"),
    ],
)
def test_actions_of_another_kind_are_refused(file, controller, message):
    with h5py.File(file, "r+") as opened:
        env_args = json.loads(opened["data"].attrs["env_args"])
        env_args["env_kwargs"]["controller_configs"] = controller
        opened["data"].attrs["env_args"] = json.dumps(env_args)
    with pytest.raises(InputError, match=f"its controller has {message}, policies here act by changes"):
        given(file)


def test_what_moves_other_parts_does_not_matter(file):
    """As robosuite's own file of the controller BASIC."""
    reach = [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]
    arm = {"type": "OSC_POSE", "input_type": "delta", "input_max": 1, "output_max": reach, "input_ref_frame": "world"}
    parts = {"torso": {"type": "JOINT_POSITION"}, "right": arm}
    with h5py.File(file, "r+") as opened:
        env_args = json.loads(opened["data"].attrs["env_args"])
        env_args["env_kwargs"]["controller_configs"] = {"type": "BASIC", "body_parts": {"arms": parts}}
        opened["data"].attrs["env_args"] = json.dumps(env_args)
        for name in ("quality", "instruction", "model_file"):  # which some writers store as bytes
            opened["data/demo_1"].attrs[name] = np.bytes_(opened["data/demo_1"].attrs[name])
    found = given(file).dataset()[1]
    assert (found.quality, found.instruction[:4]) == ("expert", "lift") and found.model_file.startswith("<mujoco")


def test_actions_of_another_size_are_refused(file):
    with h5py.File(file, "r+") as opened:
        opened["data/demo_1/actions"][4, -1] = 0.5
    with pytest.raises(InputError, match="demo_1 has gripper actions between -1, open, and 1, close: replace each"):
        given(file)
    with h5py.File(file, "r+") as opened:
        opened["data/demo_1/actions"][3, 2] = 1.5
    with pytest.raises(InputError, match=r"demo_1 has actions of 7 numbers up to 1\.5, policies here act by 7 in"):
        given(file)


def test_an_arm_with_a_hand_of_its_own_is_refused(file):
    with h5py.File(file, "r+") as opened:
        env_args = json.loads(opened["data"].attrs["env_args"])
        env_args["env_kwargs"]["robots"] = "Sawyer"
        opened["data"].attrs["env_args"] = json.dumps(env_args)
        for demo in opened["data"].values():
            demo.attrs["model_file"] = demo.attrs["model_file"].replace("finger_joint1", "r_finger_joint")
    with pytest.raises(InputError, match="demo_0 has a Sawyer with another hand than the Panda's"):
        given(file, env=replace(EVERY["lift"](), robot="Sawyer"))


@pytest.mark.parametrize(
    ("missing", "value", "obs", "message"),
    [
        ("instruction", "wvm", "state", r"demo_1 has no instruction.*add the attribute"),
        ("model_file", "wvm", "state", "demo_1 has no states or no model_file"),
        ("states", "oracle", "images", "demo_1 has no states or no model_file"),
        ("obs/robot0_eef_pos", "oracle", "state", "demo_1 has no key robot0_eef_pos"),
    ],
)
def test_what_a_run_reads_is_asked_for_before_it_begins(file, missing, value, obs, message):
    with h5py.File(file, "r+") as opened:
        demo = opened["data/demo_1"]
        del (demo if missing in demo else demo.attrs)[missing]
    with pytest.raises(InputError, match=message):
        given(file, value, obs=obs)
