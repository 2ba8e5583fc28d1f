"""Episodes on disk: what is written is read, byte for byte the same, and damage is named."""

import json
import shutil
import time

import h5py
import numpy as np
import pytest

from tests.synthetic import ENV_ARGS, dataset, episode
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.writing import write, write_part
from wvm_rl.errors import InputError


@pytest.fixture
def whole(tmp_path):
    return dataset(
        tmp_path / "whole.hdf5",
        [episode(0), episode(1, 40, [("hesitation", 5, 9), ("retry", 20, 30)], quality="mixed")],
    )


def test_what_is_written_is_read(whole):
    original, read = episode(1, 40, [("hesitation", 5, 9), ("retry", 20, 30)], quality="mixed"), whole[1]
    for name in ("instruction", "success", "quality", "model_file", "seed", "index"):
        assert getattr(read, name) == getattr(original, name)
    for name in ("actions", "rewards", "states", "lapses"):
        np.testing.assert_array_equal(getattr(read, name), getattr(original, name))
        assert getattr(read, name).dtype == getattr(original, name).dtype
    np.testing.assert_array_equal(read.obs["object"], original.obs["object"])
    assert read.obs["object"] is read.obs["object"] and sorted(read.obs) == sorted(original.obs)  # read once
    frames, step = whole.frames(1, "workspace")
    np.testing.assert_array_equal(frames, original.frames["workspace"])
    np.testing.assert_array_equal(step, np.arange(0, 40, 5))
    assert len(whole) == 2 and [len(each) for each in whole] == whole.lengths == [60, 40]
    assert whole.fps == 4 and whole.control_freq == 20 and whole.cameras == ["workspace"]
    assert whole[0].lapses.shape == (0, 3)


def test_frames_that_begin_late_are_read_from_the_first_on(tmp_path):
    path = dataset(tmp_path / "d.hdf5", [episode(0, 100)]).path
    with h5py.File(path, "r+") as file:
        frames = file["data/demo_0/frames"]
        for name in ("workspace", "step"):
            kept = frames[name][6:]
            del frames[name]
            frames[name] = kept
    np.testing.assert_array_equal(Dataset(path).frames(0, "workspace", 2.0)[1], np.arange(30, 100, 10))


def test_layout_is_robomimics(whole):
    with h5py.File(whole.path) as file:
        assert json.loads(file["data"].attrs["env_args"]) == ENV_ARGS
        assert file["data"].attrs["total"] == 100
        demo = file["data/demo_1"]
        assert demo.attrs["num_samples"] == 40 and demo.attrs["model_file"] == "<mujoco/>"
        assert {"actions", "states", "obs", "rewards", "dones"} <= set(demo)
        assert demo["dones"][()].tolist() == [0] * 39 + [1]
        assert demo["frames/workspace"].dtype == np.uint8
        np.testing.assert_array_equal(demo.attrs["lapses"], [[0, 5, 9], [1, 20, 30]])


def test_equal_episodes_give_equal_bytes_at_any_time(tmp_path):
    first = dataset(tmp_path / "a" / "d.hdf5", [episode(0), episode(1)])
    time.sleep(1.1)  # HDF5's times have seconds
    second = dataset(tmp_path / "b" / "d.hdf5", [episode(0), episode(1)])
    assert first.path.read_bytes() == second.path.read_bytes() and first.fingerprint == second.fingerprint
    other = dataset(tmp_path / "c" / "d.hdf5", [episode(0), episode(2)])
    opened = Dataset(first.path)
    other.path.replace(first.path)
    assert opened.fingerprint == first.fingerprint != other.fingerprint  # of what is read


def test_shaped_rewards_do_not_tell_success(tmp_path):
    args = {"env_name": "Lift", "control_freq": 20, "env_kwargs": {"reward_shaping": True}}
    path = dataset(tmp_path / "d.hdf5", [episode(0)], args).path
    assert len(Dataset(path)) == 1
    with h5py.File(path, "a") as file:
        del file["data/demo_0"].attrs["success"]
    with pytest.raises(InputError, match=r"demo_0 has shaped rewards .*add the attribute `success`"):
        Dataset(path)


def test_long_models_fit(tmp_path):
    long = episode()
    long.model_file = "<mujoco>" + "x" * 200_000 + "</mujoco>"
    assert dataset(tmp_path / "long.hdf5", [long])[0].model_file == long.model_file


def test_files_of_robomimic_open(tmp_path):
    path = tmp_path / "robomimic.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})
        data.attrs["total"] = 12 * 5
        for index in range(12):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = 5, "<mujoco/>"
            demo["actions"], demo["states"] = np.full((5, 7), index / 12), np.zeros((5, 32))
            demo["obs/object"], demo["next_obs/object"] = np.zeros((5, 10)), np.zeros((5, 10))
            demo["obs/agentview_image"] = np.zeros((5, 8, 8, 3), np.uint8)
            demo["rewards"], demo["dones"] = np.eye(5)[4] * (index != 3), np.eye(5, dtype=int)[4]
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
    read = Dataset(path)
    assert len(read) == 12 and read.cameras == []
    assert read[10].actions[0, 0] == np.float32(10 / 12)  # by number, not by name
    assert (read[0].success, read[0].quality) == (True, "expert") and (read[3].success, read[3].quality) == (
        False,
        "failure",
    )
    assert read[0].instruction == "" and len(read[0].lapses) == 0
    assert read[0].actions.dtype == np.float32 and read[0].obs["agentview_image"].dtype == np.uint8
    with pytest.raises(InputError, match=r"demo_0 has no frames.*envs\.render"):
        _ = read.fps


DAMAGES = {
    "nan in actions": (lambda demo: demo["actions"].__setitem__((3, 0), np.nan), "demo_1/actions.*not finite"),
    "inf in obs": (lambda demo: demo["obs/object"].__setitem__((3, 0), np.inf), "demo_1/obs/object.*not finite"),
    "nan in states": (lambda demo: demo["states"].__setitem__((3, 0), np.nan), "demo_1/states.*not finite"),
    "nan in rewards": (lambda demo: demo["rewards"].__setitem__(3, np.nan), "demo_1/rewards.*not finite"),
    "lengths": (lambda demo: _replace(demo, "rewards", np.zeros(39)), r"demo_1/rewards.*\(39,\).*40 rows"),
    "no actions": (lambda demo: demo.__delitem__("actions"), "demo_1 has no actions"),
    "empty": (lambda demo: _replace(demo, "actions", np.zeros((0, 7))), "demo_1 has no actions"),
    "quality": (lambda demo: demo.attrs.__setitem__("quality", "fine"), "demo_1 has quality fine.*expert"),
    "lapse beyond the end": (lambda demo: demo.attrs.__setitem__("lapses", [[0, 5, 40]]), "demo_1 has lapses"),
    "lapse backwards": (lambda demo: demo.attrs.__setitem__("lapses", [[0, 6, 5]]), "demo_1 has lapses"),
    "lapse of no kind": (lambda demo: demo.attrs.__setitem__("lapses", [[3, 5, 6]]), "demo_1 has lapses"),
    "lapses misshaped": (lambda demo: demo.attrs.__setitem__("lapses", [0, 5, 6]), "demo_1 has lapses"),
    "frame steps fall": (lambda demo: demo["frames/step"].__setitem__(2, 3), "demo_1/frames/step.*render"),
    "frame steps too far": (lambda demo: demo["frames/step"].__setitem__(-1, 40), "demo_1/frames/step.*render"),
    "frames too few": (
        lambda demo: _replace(demo, "frames/workspace", np.zeros((7, 16, 16, 3), np.uint8)),
        "demo_1/frames/workspace.*render",
    ),
}


def _replace(demo, key, array):
    del demo[key]
    demo[key] = array


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(whole, tmp_path, damage):
    path = tmp_path / "damaged.hdf5"
    shutil.copy(whole.path, path)
    change, message = DAMAGES[damage]
    with h5py.File(path, "a") as file:
        change(file["data/demo_1"])
    with pytest.raises(InputError, match=message) as caught:
        Dataset(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_files_cut_short_are_refused(whole, tmp_path, share):
    path = tmp_path / "short.hdf5"
    content = whole.path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"short\.hdf5: not a whole dataset"):
        Dataset(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such dataset"):
        Dataset(tmp_path / "absent.hdf5")
    for name, content in {"no_data": {}, "no_env": {"data/demo_0/actions": np.zeros((3, 7))}}.items():
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in content.items():
                file[key] = value
        with pytest.raises(InputError, match=f"{name}: not a whole dataset"):
            Dataset(tmp_path / name)


def test_nothing_is_left_of_a_bad_episode(tmp_path):
    bad = episode()
    bad.actions[3, 0] = np.nan
    with pytest.raises(InputError, match="episode 0/actions"):
        write_part(tmp_path / "bad.hdf5", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env_args", [[1], {"env_kwargs": None}])
def test_env_args_that_are_no_object_are_refused(tmp_path, env_args):
    with pytest.raises(InputError, match=r"d\.hdf5: not a whole dataset .*are no JSON object"):
        dataset(tmp_path / "d.hdf5", [episode()], env_args)


@pytest.mark.parametrize("rate", [29.97, 0, True, "20"])
def test_rates_that_are_not_whole_are_refused(tmp_path, rate):
    data = dataset(tmp_path / "d.hdf5", [episode()], ENV_ARGS | {"control_freq": rate})
    with pytest.raises(InputError, match=f"control_freq={rate}, must be a whole number"):
        _ = data.fps


def test_uneven_frame_rates_have_no_fps(tmp_path):
    mixed = dataset(tmp_path / "uneven.hdf5", [episode(0), episode(1, interval=10)])
    with pytest.raises(InputError, match=r"demo_1/frames/step rises by \[5, 10\]"):
        _ = mixed.fps


def test_a_missing_camera_names_the_remedy(whole):
    with pytest.raises(InputError, match=r"demo_0 has no frames of camera side.*workspace.*cameras=\[side\]"):
        whole.frames(0, "side")


def test_a_dataset_of_no_parts_is_refused_when_opened(tmp_path):
    write(tmp_path / "none.hdf5", [], ENV_ARGS)
    with pytest.raises(InputError, match="has no episodes"):
        Dataset(tmp_path / "none.hdf5")
