"""Clips made from experts' episodes, and frames at another rate."""

import numpy as np
import pytest

from tests.synthetic import dataset, episode
from wvm_rl.data.clips import derived
from wvm_rl.errors import InputError


@pytest.fixture
def source(tmp_path):
    lapse = episode(0, 100, [("hesitation", 40, 60)], quality="hesitation")
    return dataset(tmp_path / "source.hdf5", [lapse, episode(1, 100), episode(2, 60)])


def test_an_expert_is_played_back(source):
    made = derived(source, "cycle", "workspace")
    assert len(made) == 2 and made.lengths == [200, 120] and made.fps == source.fps
    frames, expert = made.frames(0, "workspace")[0], source.frames(1, "workspace")[0]
    np.testing.assert_array_equal(frames, np.concatenate([expert, expert[::-1]]))
    assert derived(source, "cycle", "workspace").fingerprint == made.fingerprint
    assert not list(source.path.parent.glob("tmp*"))


def test_a_frame_stands_still_for_five_seconds(source):
    made = derived(source, "frozen", "workspace")
    for index, expert in enumerate((1, 2)):
        frames = made.frames(index, "workspace")[0]
        assert len(frames) == 20 and (frames == frames[0]).all()  # 4 fps
        assert (source.frames(expert, "workspace")[0] == frames[0]).all((1, 2, 3)).any()


def test_the_moment_that_stands_still_is_each_episodes_own(tmp_path, source):
    """Not that of its number, which episodes of all tasks and collections share."""
    other = dataset(tmp_path / "other.hdf5", [episode(index, 100) for index in range(5, 15)])
    brightness = [
        derived(data, "frozen", "workspace").frames(0, "workspace")[0][0, 0, 0, 0] for data in (source, other)
    ]
    assert brightness[0] != brightness[1]


def test_frames_at_another_rate_are_the_nearest_stored(source):
    assert source.fps == 4
    stored = source.frames(1, "workspace")
    for fps, expected in ((4.0, np.arange(0, 100, 5)), (2.0, np.arange(0, 100, 10)), (3.0, [0, 5, 15, 20, 25, 35])):
        frames, step = source.frames(1, "workspace", fps)
        np.testing.assert_array_equal(step[:6], expected[:6])
        np.testing.assert_array_equal(frames, stored[0][np.searchsorted(stored[1], step)])
    with pytest.raises(InputError, match="has 4 frames a second, 5 are wanted"):
        source.frames(1, "workspace", 5.0)
