"""Windows: edges, rewinding and its labels, computed by hand; purity."""

import numpy as np
import pytest

from tests.model_toy import film
from wvm_rl.data.windows import Film, Windows, WindowsConfig, arrange, motion, progress, rising
from wvm_rl.errors import InputError

UP, STILL, DOWN = 1, 0, -1


def test_rising_window_shows_four_frames_before_and_after():
    np.testing.assert_array_equal(arrange(10, np.full(8, UP), 30), np.arange(6, 15))


def test_edges_repeat_the_first_and_last_frame():
    np.testing.assert_array_equal(arrange(0, np.full(8, UP), 30), [0, 0, 0, 0, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(arrange(29, np.full(8, UP), 30), [25, 26, 27, 28, 29, 29, 29, 29, 29])
    np.testing.assert_array_equal(rising(np.arange(3), 30), [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 2]])


def test_rewound_windows_relabel_their_frames():
    episode = progress(np.arange(0, 21, 2), 21)  # 11 frames: 0, 0.1, ... 1
    falling = arrange(5, np.full(8, DOWN), 11)
    np.testing.assert_allclose(episode[falling], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], atol=1e-6)
    plateau = arrange(5, np.full(8, STILL), 11)
    np.testing.assert_allclose(episode[plateau], np.full(9, 0.5), atol=1e-6)
    turning = arrange(5, np.array([UP] * 3 + [DOWN] * 5), 11)  # peak at place 3, one frame after the anchor's
    np.testing.assert_allclose(episode[turning], [0.3, 0.4, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], atol=1e-6)
    begins = arrange(5, np.array([UP] * 6 + [STILL] * 2), 11)
    np.testing.assert_allclose(episode[begins], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.7, 0.7], atol=1e-6)


def test_progress_is_step_over_last_step():
    np.testing.assert_allclose(progress(np.array([0, 5, 10]), 11), [0, 0.5, 1])


def test_kinds_have_their_shares():
    rng = np.random.default_rng(0)
    drawn = np.stack([motion(rng, WindowsConfig()) for _ in range(4000)])
    changed = (drawn != UP).any(1)
    still = (drawn[changed] == STILL).any(1)
    turned = (drawn[changed] == UP).any(1)
    assert abs(changed.mean() - 0.5) < 0.03
    assert abs(still.mean() - 0.1) < 0.03
    assert abs(turned.mean() - 0.5) < 0.03


def test_no_rewinding_only_rises():
    rng = np.random.default_rng(0)
    assert all((motion(rng, WindowsConfig(rewind=0.0)) == UP).all() for _ in range(100))


def test_labels_follow_frames_and_windows_are_pure():
    """Frames that spell their own progress agree with the labels, whatever the rearrangement."""
    values = np.linspace(0, 1, 20, dtype=np.float32)
    frames = np.round(values * 255).astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    windows = Windows([Film(frames, values, 3)], WindowsConfig(), seed=1)
    clips, labels, instructions = windows.batch(0, 64)
    np.testing.assert_array_equal(clips[:, :, 0, 0, 0], np.round(labels * 255).astype(np.uint8))
    assert set(instructions) == {3}
    again = Windows([Film(frames, values, 3)], WindowsConfig(), seed=1).batch(10, 5)
    np.testing.assert_array_equal(again[1], labels[10:15])
    assert {0, 19} <= set(np.argmin(np.abs(values - labels[:, 4:5]), 1))  # windows at both edges occur


def test_tasks_are_drawn_alike():
    films = [film(seed, instruction=0) for seed in range(5)] + [film(9, instruction=1)]
    _, _, instructions = Windows(films, WindowsConfig(), seed=0).batch(0, 400)
    assert abs(instructions.mean() - 0.5) < 0.08


def test_jitter_changes_a_whole_clip_alike():
    films = [Film(np.full((9, 4, 4, 3), 100, np.uint8), np.linspace(0, 1, 9, dtype=np.float32), 0)]
    clips, _, _ = Windows(films, WindowsConfig(jitter=0.2), seed=0).batch(0, 8)
    assert len(set(clips[:, 0, 0, 0, 0].tolist())) > 1
    assert (clips == clips[:, :1, :1, :1]).all()


def test_a_shift_moves_a_whole_clip_alike_and_repeats_the_border():
    column = np.arange(10, 110, 10, dtype=np.uint8)
    films = [Film(np.tile(column[None, None, :, None], (9, 10, 1, 3)), np.linspace(0, 1, 9, dtype=np.float32), 0)]
    windows = Windows(films, WindowsConfig(shift=0.2), seed=0)
    shifts = set()
    for index in range(40):
        row = windows.draw(index)[0][:, :, :, 0]
        assert (row == row[0, 0]).all()
        shift = (int(row[0, 0, 5]) - 60) // 10
        np.testing.assert_array_equal(row[0, 0], column[np.clip(np.arange(10) + shift, 0, 9)])
        shifts.add(shift)
    assert shifts == {-2, -1, 0, 1, 2}


def test_stills_are_first_frames_changed_as_their_windows_are():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1, 20, 20, 3), dtype=np.uint8)
    windows = Windows([Film(np.repeat(picture, 12, 0), np.zeros(12), 0)], WindowsConfig(jitter=0.2, shift=0.2), seed=0)
    frames = windows.batch(3, 4)[0]
    np.testing.assert_array_equal(windows.stills(3, 4), frames[:, :5])  # of a film that stands still
    moving = Film(rng.integers(0, 256, (12, 20, 20, 3), dtype=np.uint8), np.zeros(12), 0)
    stills = Windows([moving], WindowsConfig(), seed=0).stills(0, 2)
    assert stills.shape == (2, 5, 20, 20, 3) and (stills == moving.frames[0]).all()


def test_a_background_is_changed_as_its_window_is():
    frames = np.random.default_rng(0).integers(0, 256, (1, 10, 10, 3), np.uint8).repeat(9, 0)
    windows = Windows(
        [Film(frames, np.linspace(0, 1, 9, dtype=np.float32), 0)], WindowsConfig(0.5, 0.1, 0.5, 0.2, 0.2), 0
    )
    for index in range(5):
        np.testing.assert_array_equal(windows.background(index), windows.draw(index)[0][4])


def test_shares_outside_the_unit_interval_are_refused():
    with pytest.raises(InputError, match=r"plateau=1\.5"):
        WindowsConfig(plateau=1.5)
