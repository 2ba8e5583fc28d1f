"""Looks change pictures alone, alike whenever an episode is shown."""

import shutil

import numpy as np
import pytest

from envs.looks import Drawn, split
from tests.conftest import needs_egl
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError


class Aim:
    """What a free camera has."""

    def __init__(self):
        self.type, self.azimuth, self.elevation, self.distance = 0, 155.0, -20.0, 0.6
        self.lookat = np.zeros(3)

    def direction(self):
        up, around = np.radians(self.elevation), np.radians(self.azimuth)
        return np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])


@pytest.mark.parametrize("degrees", [5, 10, 20])
def test_a_moved_camera_is_turned_by_its_angle(degrees):
    before = Aim().direction()
    angles = []
    for seed in range(20):
        camera = Aim()
        Drawn(f"workspace.moved{degrees}", np.full(4, seed, float)).aim(camera)
        assert camera.distance == 0.6 and not camera.lookat.any()
        angles.append(np.degrees(np.arccos(camera.direction() @ before)))
        assert -85 < camera.elevation < -2
    assert np.all(np.abs(np.array(angles) - degrees) < 0.06 * degrees)


def test_random_cameras_stay_within_bounds():
    angles = []
    for seed in range(200):
        camera = Aim()
        Drawn("workspace.random0", np.full(4, seed, float)).aim(camera)
        angles.append(np.degrees(np.arccos(camera.direction() @ Aim().direction())))
        assert abs(camera.distance / 0.6 - 1) <= 0.08 and np.abs(camera.lookat).max() <= 0.008
    assert 11 < max(angles) < 12.7 and min(angles) < 3


def test_unknown_looks_are_refused():
    assert split("agentview")[0] == "agentview" and split("workspace.random12")[0] == "workspace"
    with pytest.raises(InputError, match=r"look foggy is unknown: choose from moved5, .*random0"):
        split("workspace.foggy")


@needs_egl
def test_pictures_of_a_look_come_from_the_episode_alone(lift_dataset):
    from envs.camera import Camera
    from envs.modelfile import compiled

    data = Dataset(lift_dataset)
    model, states = compiled(data[0].model_file), data[0].states
    plain = Camera("workspace")(model, states[20])
    shown = {}
    for name in ("moved5", "lit", "textured", "random0"):
        camera = Camera(f"workspace.{name}")
        with pytest.raises(ValueError, match="begin"):
            camera(model, states[0])
        camera.begin(states[0])
        shown[name] = camera(model, states[20])
        camera.begin(data[1].states[0])
        other = camera(model, states[20])
        camera.begin(states[0])
        np.testing.assert_array_equal(camera(model, states[20]), shown[name])
        assert np.abs(other.astype(int) - shown[name]).mean() > 1
        assert np.abs(shown[name].astype(int) - plain).mean() > 2
    np.testing.assert_array_equal(Camera("workspace")(model, states[20]), plain)  # nothing was left behind
    reddest = [np.subtract(*np.moveaxis(image.astype(int), -1, 0)[:2]).max() for image in shown.values()]
    assert min(reddest) > 20  # the red cube stays red


@needs_egl
def test_collected_and_rendered_looks_are_the_same(lift_dataset, tmp_path, monkeypatch):
    from envs import cache, render
    from envs.collect import collect
    from tests.conftest import lift_config

    live = Dataset(collect(lift_config(tmp_path, looks=["random0"], episodes=1)))
    assert live.cameras == ["workspace", "workspace.random0"] and len(live[0].phase) == len(live[0])
    plain = Dataset(shutil.copy(lift_dataset, tmp_path))
    np.testing.assert_array_equal(live.frames(0, "workspace")[0], plain.frames(0, "workspace")[0])
    other = Dataset(render.in_look(plain, "workspace", "random0", 1))
    assert other.cameras == ["workspace"] and other[0].phase.any()
    np.testing.assert_array_equal(other.frames(0, "workspace")[0], live.frames(0, "workspace.random0")[0])
    named = render._beside(plain, "workspace", "random0")
    monkeypatch.setattr(cache, "_code", lambda path: "other" if path.stem == "looks" else "same")
    assert named == other.path != render._beside(plain, "workspace", "random0")
    assert set(np.diff(live[0].phase)) <= {0, 1} and live[0].phase[-1] == 3  # four phases, one after the other
