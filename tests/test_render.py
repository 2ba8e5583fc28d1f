"""Pictures: what they show, that they repeat, and what happens without OpenGL."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest

from envs import camera as camera_module
from envs.camera import Camera
from envs.meshes import coarse, merged
from envs.modelfile import compiled, local, portable
from envs.render import RenderConfig, _job, render
from envs.video import film, write_video
from tests import synthetic
from tests.conftest import needs_egl
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError

SCENE = """<mujoco><worldbody>
  <light pos="1 0 3"/>
  <geom type="plane" size="0.1 0.1 0.1" pos="0 0 -5" rgba="1 1 1 1" group="1"/>
  <geom type="sphere" size="0.05" pos="0 0 1.1" rgba="1 0 0 1" group="1"/>
  <geom type="sphere" size="0.05" pos="0 0.12 0.8" rgba="0 1 0 1" group="1"/>
  <geom type="sphere" size="0.3" pos="0 0 0.9" rgba="0 0 1 1" group="0"/>
  <body pos="0 0 -9"><freejoint/><geom size="0.1"/></body>
</worldbody></mujoco>"""


def state_of(model: mujoco.MjModel) -> np.ndarray:
    return np.concatenate([[0.0], model.qpos0, np.zeros(model.nv)])


def place_of(picture: np.ndarray, channel: int) -> tuple[float, float]:
    """Mean row and column, from 0 to 1, of the pixels dominated by a colour channel."""
    strength = picture[..., channel].astype(int) - np.delete(picture, channel, axis=-1).max(axis=-1)
    rows, columns = np.nonzero(strength > 40)
    return rows.mean() / len(picture), columns.mean() / len(picture)


@needs_egl
def test_pictures_stand_upright_and_are_not_mirrored():
    model = mujoco.MjModel.from_xml_string(SCENE)
    picture = Camera("workspace", 64)(model, state_of(model))
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    red, green = place_of(picture, 0), place_of(picture, 1)
    assert red[0] < 0.35, "the higher ball is above"
    assert green[1] > 0.6, "looking at the robot from the front, its left hand (+y) is on the right"


@needs_egl
def test_collision_geoms_are_not_drawn():
    model = mujoco.MjModel.from_xml_string(SCENE)
    picture = Camera("workspace", 64)(model, state_of(model)).astype(int)
    assert not ((picture[..., 2] - picture[..., :2].max(axis=-1)) > 40).any()


@needs_egl
def test_reused_uploads_give_the_pixels_of_fresh_ones(lift_dataset, monkeypatch):
    episodes = list(Dataset(lift_dataset))
    assert episodes[0].model_file != episodes[1].model_file, "Lift samples its cube with the model"
    small, large = Camera("workspace", 64), Camera("agentview", 96)
    pictures, contexts = [], set()
    for episode in episodes:
        model = compiled(episode.model_file)
        pictures.append([camera(model, episode.states[-1]) for camera in (small, large)])
        contexts.add(id(camera_module._GRAPHICS.context))
    assert len(contexts) == 1
    for episode, (expected_small, expected_large) in zip(reversed(episodes), reversed(pictures)):
        monkeypatch.setattr(camera_module._GRAPHICS, "digest", b"")
        model = compiled(episode.model_file)
        assert np.array_equal(Camera("workspace", 64)(model, episode.states[-1]), expected_small)
        assert np.array_equal(Camera("agentview", 96)(model, episode.states[-1]), expected_large)


@needs_egl
def test_uploads_of_simulations_in_turn_are_hashed_once(monkeypatch):
    hashed, digest = [], camera_module._digest
    monkeypatch.setattr(camera_module, "_digest", lambda model: hashed.append(model) or digest(model))
    models = [mujoco.MjModel.from_xml_string(SCENE) for _ in range(2)]
    cameras = [Camera("workspace", 64) for _ in models]
    for camera, model in [*zip(cameras, models)] * 3:
        camera(model, state_of(model))
    assert hashed == models


@needs_egl
def test_the_workspace_camera_sees_the_cube_rise(lift_dataset):
    dataset = Dataset(lift_dataset)
    frames, step = dataset.frames(0, "workspace")
    assert frames.shape[1:] == (64, 64, 3) and step[1] - step[0] == 5
    start, end = place_of(frames[0], 0), place_of(frames[-1], 0)
    assert start[0] - end[0] > 0.05, "the red cube is higher in the last picture"


@needs_egl
def test_rendering_adds_cameras_and_repeats_the_collected_frames(lift_dataset, tmp_path):
    copies = [Path(shutil.copy(lift_dataset, tmp_path / name)) for name in ("a.hdf5", "b.hdf5")]
    for path, workers in zip(copies, (1, 2)):
        assert render(RenderConfig(str(path), cameras=["agentview"], fps=4, size=32, workers=workers)) == path
    assert copies[0].read_bytes() == copies[1].read_bytes()
    before, after = Dataset(lift_dataset), Dataset(copies[0])
    assert after.cameras == ["agentview", "workspace"]
    assert after.frames(1, "agentview")[0].shape[1:] == (32, 32, 3)
    for index in range(len(before)):
        for ours, theirs in zip(before.frames(index, "workspace"), after.frames(index, "workspace")):
            assert np.array_equal(ours, theirs)
        assert np.array_equal(before[index].states, after[index].states)
        assert before[index].instruction == after[index].instruction


@needs_egl
def test_cameras_that_two_processes_add_are_both_kept(lift_dataset, tmp_path):
    path = shutil.copy(lift_dataset, tmp_path)
    command = [sys.executable, "-m", "envs.render", str(path), "size=32", "workers=1"]
    started = [subprocess.Popen([*command, f"cameras=[{name}]"]) for name in ("agentview", "frontview")]
    assert [process.wait() for process in started] == [0, 0]
    assert Dataset(path).cameras == ["agentview", "frontview", "workspace"]


def test_frames_follow_the_rate_of_the_file(tmp_path):
    """Ten control steps a second, as others' files may have."""
    slow = synthetic.dataset(
        tmp_path / "d.hdf5", [synthetic.episode(0, 20)], {**synthetic.ENV_ARGS, "env_kwargs": {"control_freq": 10}}
    )
    assert _job(slow, 0, RenderConfig(str(slow.path), fps=5)).steps.tolist() == list(range(0, 20, 2))
    with pytest.raises(InputError, match=r"fps=4 must divide .*d\.hdf5's 10 steps a second"):
        render(RenderConfig(str(slow.path), fps=4))


@needs_egl
def test_a_failed_rendering_changes_nothing(lift_dataset, tmp_path):
    path = Path(shutil.copy(lift_dataset, tmp_path / "a.hdf5"))
    with pytest.raises(InputError, match="camera nowhere is unknown: choose from workspace, frontview"):
        render(RenderConfig(str(path), cameras=["nowhere"], workers=1))
    assert path.read_bytes() == lift_dataset.read_bytes()
    assert [each for each in tmp_path.iterdir() if not each.name.endswith(".lock")] == [path]


@needs_egl
@pytest.mark.filterwarnings("ignore:.*os.fork")  # JAX warns of it; ffmpeg's child starts another program
def test_films_become_videos_with_a_value_curve(lift_dataset, tmp_path):
    episode = Dataset(lift_dataset)[0]
    frames = film(episode.model_file, episode.states[:60], fps=4, camera=Camera("workspace", 33))
    assert frames.shape == (12, 33, 33, 3)
    write_video(tmp_path / "film.mp4", frames, fps=4, value=np.linspace(0, 1, 12))
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    about = next(reader)
    assert about["size"] == (264, 264 + 64) and about["pix_fmt"].startswith("yuv420p")
    assert sum(1 for _ in reader) == 12
    with pytest.raises(InputError, match="12 video frames need 12 values"):
        write_video(tmp_path / "other.mp4", frames, fps=4, value=np.zeros(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


@needs_egl
def test_garbage_pixels_are_noticed(monkeypatch):
    model = mujoco.MjModel.from_xml_string(SCENE)
    monkeypatch.setattr(camera_module, "_GRAPHICS", camera_module._Graphics())
    monkeypatch.setattr(mujoco, "mjr_readPixels", lambda pixels, *_: pixels.fill(77))
    with pytest.raises(InputError, match="OpenGL draws garbage"):
        Camera()(model, state_of(model))


def test_without_opengl_the_error_names_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    monkeypatch.setattr(camera_module, "_GRAPHICS", camera_module._Graphics())
    model = mujoco.MjModel.from_xml_string(SCENE)
    with pytest.raises(InputError, match="apt-get install libegl1"):
        Camera()(model, state_of(model))


def test_simulation_needs_neither_opengl_nor_jax():
    code = (
        "import sys, envs.simulation, envs.recording, envs.collect, envs.bank, envs.rollout\n"
        "print([name for name in ('OpenGL', 'jax', 'cv2', 'mujoco.egl') if name in sys.modules])"
    )
    environment = os.environ | {"MUJOCO_GL": "egl"}
    root = Path(__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, env=environment).decode().strip() == "[]"


def test_merging_keeps_triangles_that_span_cells():
    # Corners 0 and 1 share a grid cell, so triangle 0 collapses; 1 and 2 become the same triangle, the first stays.
    vertices = np.array([[0.001, 0, 0], [0.002, 0, 0], [1, 0, 0], [0, 1, 0]])
    faces, kept = merged(vertices, np.array([[0, 1, 2], [0, 2, 3], [1, 2, 3]]))
    assert kept.tolist() == [1]
    assert faces.tolist() == [[0, 2, 3]]


def test_small_meshes_stay_and_the_model_is_not_changed(lift_dataset):
    model = compiled(Dataset(lift_dataset)[0].model_file)
    faces = model.mesh_face.copy()
    drawn = coarse(model)
    finger = model.mesh("gripper0_right_finger_vis").id
    assert drawn.mesh_facenum[finger] == model.mesh_facenum[finger]
    assert drawn.mesh_facenum.sum() < 0.2 * model.mesh_facenum.sum()
    assert np.array_equal(model.mesh_face, faces)


def test_asset_paths_of_any_machine_are_completed():
    foreign = '<mesh file="/home/me/robosuite/robosuite/models/assets/a.stl"/><mesh file="/data/other.stl"/>'
    assert portable(foreign) == '<mesh file="robosuite/models/assets/a.stl"/><mesh file="/data/other.stl"/>'
    assert Path(local(portable(foreign)).split('"')[1]).is_absolute()
    assert local(foreign) == local(portable(foreign))
    with pytest.raises(InputError, match="model_file does not compile"):
        compiled("<mujoco><nonsense/></mujoco>")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fps": 0}, "fps=0 must be at least 1"),
        ({"size": 2}, "size=2"),
        ({"cameras": []}, "names no camera"),
        ({"cameras": ["agentview", "agentview"]}, "must differ"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_values_out_of_range_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        RenderConfig("a.hdf5", **setting)
