"""Policies that learn from the episodes of a file."""

import json
import shutil
from dataclasses import replace

import h5py
import pytest

from envs.tasks import EVERY
from tests.conftest import needs_egl
from tests.test_train import job
from wvm_rl.config import EvaluationConfig, FileData
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.samples import origin
from wvm_rl.train import main
from wvm_rl.values import VALUES

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def file(lift_dataset, tmp_path):
    return shutil.copy(lift_dataset, tmp_path / "mine.hdf5")


def given(file, value="oracle", **settings):
    config = job(file.parent, data=FileData(str(file)), value=VALUES[value](), **settings)
    return origin(config, config.value.source())


def test_a_file_gives_what_its_recipe_gives(file, tmp_path):
    """And what it gave is kept: rollouts of one policy can teach the next."""
    keeping = EvaluationConfig(rollouts=2, workers=1, keep=2)
    settings = {"data": FileData(str(file), root=str(tmp_path)), "evaluation": keeping}
    main(job(tmp_path, **settings), tmp_path / "first")
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert (summary["recipe"], summary["episodes"]) == ("file", 2)
    assert summary["samples"] == sum(Dataset(file).lengths)
    settings["data"] = FileData(str(tmp_path / "first" / "rollouts.hdf5"), root=str(tmp_path))
    main(job(tmp_path, agent="bc", **settings | {"value": VALUES["clock"]()}), tmp_path / "second")
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["samples"] == 2 * 50
    shutil.copy(tmp_path / "second" / "rollouts.hdf5", tmp_path / "first" / "rollouts.hdf5")
    with pytest.raises(InputError, match="episodes"):
        main(job(tmp_path, agent="bc", **settings | {"value": VALUES["clock"]()}), tmp_path / "second")


@needs_egl
def test_frames_that_the_critic_cannot_read_are_rendered_into_a_copy(file):
    before = file.read_bytes()
    seen = given(file, "wvm").dataset()
    assert (seen.fps, seen.frames_shape(0, "workspace")[1:], len(seen)) == (5, (96, 96), 2)
    assert seen.path.parent == file.parent and file.read_bytes() == before
    assert given(seen.path, "wvm").dataset().path == seen.path  # nothing to render
    assert given(file).dataset().path == file  # a source that sees nothing


def test_files_that_do_not_fit_are_refused(file):
    with pytest.raises(InputError, match=r"has episodes of Lift of Panda at 20 .*, env=can is PickPlaceCan"):
        given(file, env=EVERY["can"]())
    with pytest.raises(InputError, match=r"Lift of Panda .* is Lift of Sawyer"):
        given(file, env=replace(EVERY["lift"](), robot="Sawyer"))
    with pytest.raises(InputError, match="no such dataset"):
        given(file.with_name("absent.hdf5"))
    with h5py.File(file, "r+") as opened:
        del opened["data/demo_1"].attrs["instruction"]
    given(file)
    with pytest.raises(InputError, match="value=wvm reads instructions: give every data/demo_i the attribute"):
        given(file, "wvm")
