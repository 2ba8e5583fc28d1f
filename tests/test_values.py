"""Value sources and advantages: hand-computed cases."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from envs.tasks import TASKS
from tests.synthetic import ENV_ARGS, Brightness, dataset, episode
from wvm_rl import films
from wvm_rl.advantage import advantage, ranked, shuffled, uncertainty
from wvm_rl.data.sidecar import Track
from wvm_rl.errors import InputError
from wvm_rl.label import LabelConfig, command, label
from wvm_rl.metrics import bench_truth
from wvm_rl.values import VALUES
from wvm_rl.values.base import ValueConfig, Values
from wvm_rl.values.clock import ClockConfig
from wvm_rl.values.file import FileConfig
from wvm_rl.values.iql import IQLConfig
from wvm_rl.values.noisy import NoisyConfig
from wvm_rl.values.oracle import OracleConfig, truth
from wvm_rl.values.success import SuccessConfig
from wvm_rl.values.wvm import Wvm, WvmConfig


def test_oracle_stands_still_and_goes_back():
    # before step:  0 1 2 3 4 5 6 7 8; still in 2..3, back in 6
    progress = truth(episode(0, 9, [("hesitation", 2, 3), ("retry", 6, 6)]), expert_steps=5)
    np.testing.assert_allclose(progress, np.array([0, 1, 2, 2, 2, 3, 4, 3, 4]) / 4)


def test_oracle_does_not_fall_below_zero():
    progress = truth(episode(0, 8, [("retry", 1, 3)]), expert_steps=5)
    np.testing.assert_allclose(progress, np.array([0, 1, 0, 0, 0, 1, 2, 3]) / 3)


def test_oracle_of_a_failure_counts_the_way_an_expert_would_still_have():
    progress = truth(episode(0, 6, [("failure", 4, 5)], success=False, quality="failure"), expert_steps=10)
    np.testing.assert_allclose(progress, np.array([0, 1, 2, 3, 4, 3]) / 10)
    long = truth(episode(0, 31, success=False, quality="failure"), expert_steps=10)
    np.testing.assert_allclose(long[-1], 30 / 31)  # slower than the expert, but still not there


def test_oracle_is_close_to_the_benchmarks_truth_but_not_the_same():
    # hesitation: both give 4/7 during the pause (T = 12, m = 4, n = 8) in their own counts of the pause's length
    ours, bench = truth(episode(0, 12, [("hesitation", 4, 7)]), 12), bench_truth(12, 4, 8, "hesitation")
    np.testing.assert_allclose(ours, bench, atol=1e-6)
    # retry: inclusive bounds and T-1 in the oracle, T in B.3: near, not equal
    ours, bench = truth(episode(0, 40, [("retry", 15, 19)]), 40), bench_truth(40, 15, 19, "retry")
    assert 0 < np.abs(ours - bench).max() < 0.06
    # a retraction longer than what was gained: the oracle stays at 0 for a while, B.3 falls all the way to n
    ours, bench = truth(episode(0, 40, [("retry", 4, 15)]), 40), bench_truth(40, 4, 15, "retry")
    assert (ours[8:17] == 0).all() and bench[8] > 0.09


def test_oracle_refuses_data_without_a_record(tmp_path):
    foreign = dataset(tmp_path / "f.hdf5", [episode()], {"env_kwargs": {"control_freq": 20}})
    with pytest.raises(InputError, match=r"f\.hdf5.*value=oracle.*expert_steps"):
        list(OracleConfig().source().values(foreign))


def test_noise_bias_and_lag_spoil_the_oracle(tmp_path):
    data = dataset(tmp_path / "d.hdf5", [episode(index, 4000, [("retry", 1000, 1199)]) for index in range(2)])

    def values(**settings):
        return [each.value for each in NoisyConfig(**settings).source().values(data)]

    true = next(iter(OracleConfig().source().values(data))).value
    np.testing.assert_array_equal(values(noise=0.0)[0], true)
    late = values(noise=0.0, lag=0.5)[0]
    np.testing.assert_array_equal(late[10:], true[:-10])
    np.testing.assert_allclose(values(noise=0.0, bias=1.0)[0], np.linspace(0, 1, 4000), atol=1e-6)
    noisy, other = values(noise=0.02, memory=0.5)
    error = (noisy - true)[500:3500]
    assert np.std(error) == pytest.approx(0.02, rel=0.2) and not np.allclose(noisy, other)
    assert np.corrcoef(error[10:], error[:-10])[0, 1] == pytest.approx(np.exp(-1), abs=0.15)
    np.testing.assert_array_equal(next(iter(NoisyConfig(noise=0.02).source().values(data, 1))).value, other)
    prints = {NoisyConfig(**each).source().fingerprint for each in ({}, {"lag": 1.0}, {"seed": 1}, {"horizon_k": 9})}
    assert len(prints) == 3
    with pytest.raises(InputError, match=r"value\.bias=2"):
        NoisyConfig(bias=2)


def test_progress_of_others_is_read_as_lerobot_writes_it(tmp_path):
    data = dataset(tmp_path / "d.hdf5", [episode(0, 41), episode(1, 21)])
    rows = [(0, 0, 0.0), (0, 1, None), (0, 2, 0.4), (1, 0, 0.5), (1, 1, 1.05)]
    table = pd.DataFrame(rows, columns=["episode_index", "frame_index", "progress_sparse"])
    path = tmp_path / "theirs.parquet"
    table.to_parquet(path)
    first, second = FileConfig(path=str(path), fps=1.0).source().values(data)
    np.testing.assert_array_equal(first.step, [0, 40])  # twenty control steps a second, no value at the second frame
    np.testing.assert_allclose([*first.value, *second.value], [0, 0.4, 0.5, 1])
    assert label(data, FileConfig(path=str(path), fps=1.0).source(), progress=False)[0][20] == pytest.approx(0.2)
    for settings, message in (
        (
            {"fps": 30.0},
            r"episode 0 has no values from control step 1\.33333 to 40 of 41: give some there, or set value",
        ),
        ({"fps": 0.5}, "must differ and lie within its 41 control steps"),
        ({"column": "progress_dense"}, "lacks column progress_dense"),
    ):
        with pytest.raises(InputError, match=message):
            list(FileConfig(path=str(path), **settings).source().values(data))
    more = dataset(tmp_path / "more.hdf5", [episode(0, 41)])
    with pytest.raises(InputError, match=r"has rows of episode 1, .*more\.hdf5 1 episodes"):
        list(FileConfig(path=str(path), fps=1.0).source().values(more))
    table.assign(progress_sparse=100 * table["progress_sparse"]).to_parquet(path)
    with pytest.raises(InputError, match=r"progress_sparse lies in \[0, 40\]: scale it"):
        list(FileConfig(path=str(path), fps=1.0).source().values(data))
    table[:3].assign(frame_index=[0, 1, 60], progress_std=[0.1, None, 0.2]).to_parquet(path)
    found = next(FileConfig(path=str(path), fps=30.0).source().values(more))
    np.testing.assert_allclose(found.step, [0, 40])
    np.testing.assert_allclose(found.std, [0.1, 0.2])
    for wrong in (["0.1"] * 3, [0.1, None, -0.2], [0.1, None, np.inf]):
        table[:3].assign(progress_std=wrong).to_parquet(path)
        with pytest.raises(InputError, match="column progress_std must hold finite numbers from 0 on"):
            FileConfig(path=str(path)).source()
    table[:3].to_parquet(path)
    with pytest.raises(InputError, match=r"no rows of episode 1 of .*d\.hdf5"):
        list(FileConfig(path=str(path), fps=1.0).source().values(data))


@pytest.mark.parametrize(
    ("steps", "hole"),
    [
        (range(0, 100, 10), None),
        ([*range(30), *range(49, 100)], None),
        ([0, 40, 80], None),  # as sparse as they are elsewhere
        ([0, 34], "34 to 99"),
        ([*range(10), 50, *range(90, 100)], "9 to 50"),
        (range(85, 100), "0 to 85"),
        (range(60), "59 to 99"),
    ],
)
def test_values_of_others_cover_an_episode(tmp_path, steps, hole):
    data = dataset(tmp_path / "d.hdf5", [episode(0, 100)])
    path = tmp_path / "theirs.parquet"
    pd.DataFrame({"episode_index": 0, "frame_index": [*steps], "progress_sparse": 0.5}).to_parquet(path)
    source = FileConfig(path=str(path)).source()
    if hole is None:
        np.testing.assert_array_equal(next(source.values(data)).step, [*steps])
    else:
        with pytest.raises(InputError, match=f"episode 0 has no values from control step {hole} of 100"):
            list(source.values(data))


def test_clock_and_success(tmp_path):
    data = dataset(
        tmp_path / "d.hdf5", [episode(0, 5, interval=0), episode(1, 4, success=False, quality="failure", interval=0)]
    )
    clock = label(data, ClockConfig().source(), progress=False)
    np.testing.assert_allclose(clock[0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(clock[1], [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    success = label(data, SuccessConfig(discount=0.5).source(), progress=False)
    np.testing.assert_allclose(success[0], [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    np.testing.assert_array_equal(success[1], np.zeros(4))
    assert (advantage(success, 2)[:4] > 0).all() and (advantage(success, 2)[5:] == 0).all()


def test_advantage_looks_k_minus_one_steps_ahead_and_no_further_than_the_end():
    values = [np.array([0.0, 0.1, 0.3, 0.6, 1.0]), np.array([0.5, 0.4])]
    np.testing.assert_allclose(advantage(values, 3), [0.3, 0.5, 0.7, 0.4, 0, -0.1, 0], atol=1e-6)
    np.testing.assert_allclose(advantage(values, 100), [1, 0.9, 0.7, 0.4, 0, -0.1, 0], atol=1e-6)


def test_ranked_advantages_keep_sign_and_order():
    delta = np.array([-0.2, 0.0, 0.1, 0.1, 0.7, -0.1], np.float32)
    np.testing.assert_allclose(ranked(delta) * 7, [-2.5, 0, 2, 2, 3.5, -1.5], atol=1e-6)
    tracks = [Track(np.array([0.1, 0.3], np.float32), np.full(2, np.nan)), Track(np.array([0.4, 0.0]), np.zeros(2))]
    np.testing.assert_allclose(ValueConfig(horizon_k=2, scale="rank").advantages(tracks) * 5, [2, 0, -2, 0], atol=1e-6)


def test_a_lower_bound_subtracts_the_deviations_of_both_values():
    std = [np.array([0.3, 0.0, 0.4]), np.array([0.1, 0.2])]
    np.testing.assert_allclose(uncertainty(std, 3), [0.5, 0.4, 0, 0.05**0.5, 0], rtol=1e-6)
    tracks = [Track(np.array([0.0, 0.2, 1.0]), std[0]), Track(np.array([0.5, 0.5]), std[1])]
    found = ValueConfig(horizon_k=3, lower=2.0).advantages(tracks)
    np.testing.assert_allclose(found[:2], [1.0 - 2 * 0.5, 0.8 - 2 * 0.4], atol=1e-6)
    with pytest.raises(InputError, match=r"value\.lower: not all values have a standard deviation"):
        ValueConfig(lower=1.0).advantages([Track(np.zeros(3), np.full(3, np.nan))])


def test_shuffled_advantages_keep_their_histogram():
    delta = np.random.default_rng(0).normal(size=500)
    mixed = shuffled(delta, 1)
    np.testing.assert_array_equal(np.sort(mixed), np.sort(delta))
    assert abs(np.corrcoef(mixed, delta)[0, 1]) < 0.2
    np.testing.assert_array_equal(mixed, shuffled(delta, 1))
    assert not np.array_equal(mixed, shuffled(delta, 2))


def test_values_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"value\.horizon_k=1"):
        ValueConfig(horizon_k=1)
    with pytest.raises(InputError, match=r"value\.scale=log: choose raw or rank"):
        ValueConfig(scale="log")
    with pytest.raises(InputError, match=r"value\.lower=-1"):
        ValueConfig(lower=-1)
    with pytest.raises(InputError, match=r"value\.draws=-1"):
        WvmConfig(draws=-1)
    with pytest.raises(InputError, match=r"value\.lower=1 needs deviations of several draws"):
        WvmConfig(lower=1.0)
    with pytest.raises(InputError, match=r"value\.discount=1"):
        SuccessConfig(discount=1.0)


def test_what_is_made_of_values_does_not_change_them():
    for kind in (NoisyConfig, IQLConfig):
        other = kind(horizon_k=40, scale="rank", lower=1.0, shuffle=True)
        assert other.source().fingerprint == kind().source().fingerprint


def test_every_source_has_a_line_of_help():
    assert not [config for config in VALUES.values() if config.__doc__.startswith(config.__name__)]  # made by dataclass


def test_the_critic_sees_frames_and_instruction_of_each_episode(tmp_path):
    data = dataset(tmp_path / "d.hdf5", [episode(0, 60), episode(1, 45)])
    values = label(data, Wvm(Brightness()), progress=False)
    np.testing.assert_allclose(values[0][::5], np.arange(0, 60, 5) / 60, atol=1 / 255)
    assert [len(value) for value in values] == [60, 45]
    part = list(Wvm(Brightness()).values(data, start=1))
    np.testing.assert_array_equal(part[0].step, np.arange(0, 45, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 5.0}, r"16x16 at 4 fps.*at 5 or more; render them with `python -m envs.render .*fps=5 size=16`"),
        ({"size": 12}, r"needs 12x12.*python -m envs.render"),
        ({"camera": "side"}, r"frames of camera side.*cameras=\[side\] fps=4 size=16"),
    ],
)
def test_frames_that_the_critic_was_not_made_for_are_refused(tmp_path, change, message):
    data = dataset(tmp_path / "d.hdf5", [episode(0, 60)])
    critic = Brightness()
    for name, value in change.items():
        setattr(critic, name, value)
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        label(data, Wvm(critic), progress=False)
    assert {path for path in tmp_path.iterdir() if not path.name.startswith(".")} == before


def test_instructions_that_the_critic_never_saw_are_said(tmp_path, capsys):
    other = episode(0, 60)
    other.instruction = "juggle"
    critic = Brightness()
    next(Wvm(critic).values(dataset(tmp_path / "known.hdf5", [episode(0, 60)])))
    assert not capsys.readouterr().err
    with pytest.raises(AssertionError):  # this critic knows no other instruction at all
        next(Wvm(critic).values(dataset(tmp_path / "other.hdf5", [other])))
    assert "warning: the critic was not trained on `juggle`" in capsys.readouterr().err


def test_an_episode_shorter_than_a_clip_is_refused(tmp_path):
    data = dataset(tmp_path / "d.hdf5", [episode(0, 60), episode(1, 40)])
    with pytest.raises(InputError, match=r"d\.hdf5: episode 1 has 8 frames at 4 fps, fewer than the 9 at 4 of a clip"):
        label(data, Wvm(Brightness()), progress=False)
    critic = Brightness()
    critic.fps = 2.0
    just = dataset(tmp_path / "just.hdf5", [episode(0, 85)])  # 17 frames at 4 a second: every other one makes 9
    assert len(label(just, Wvm(critic), progress=False)[0]) == 85


def test_only_draws_deviate(tmp_path):
    """Without, a critic's deviations are those of windows that overlap."""
    data = dataset(tmp_path / "d.hdf5", [episode(0, 60)])

    class Deviating(Brightness):
        def values(self, clips):
            for frames, _ in clips:
                yield frames[:, 0, 0, 0] / 255, np.ones(len(frames))

        def inference(self, draws):
            return self

    for draws, deviates in ((0, False), (1, False), (2, True)):
        assert (next(Wvm(Deviating(), draws).values(data)).std is not None) == deviates


def test_a_missing_critic_is_said(tmp_path):
    with pytest.raises(InputError, match="absent"):
        WvmConfig(critic=str(tmp_path / "absent")).source()


def test_sources_need_no_jax():
    code = "import sys, wvm_rl.values, wvm_rl.label, wvm_rl.advantage; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_oracles_expert_length_comes_from_the_dataset(tmp_path):
    failure = episode(0, 30, success=False, quality="failure", interval=0)
    data = dataset(tmp_path / "d.hdf5", [failure], {**ENV_ARGS, "expert_steps": 58})
    np.testing.assert_allclose(label(data, OracleConfig().source(), progress=False)[0][-1], 0.5)


def test_a_rollout_is_watched_as_episodes_are(tmp_path, monkeypatch):
    """Eight frames a second are taken from ten, the next rate that control steps allow."""
    seen, written = [], []

    class Watcher(Brightness):
        fps = 8.0

        def values(self, clips):
            for frames, instruction in clips:
                seen.append((frames[:, 0, 0, 0].tolist(), instruction))
                yield frames[:, 0, 0, 0] / 100, None

    def filmed(model_file, states, fps, camera):
        return np.broadcast_to(np.arange(0, len(states), 20 // fps, dtype=np.uint8)[:, None, None, None], (20, 2, 2, 3))

    monkeypatch.setattr(films, "film", filmed)
    monkeypatch.setattr(films, "write_video", lambda path, *given: written.append((path.name, *given)))
    recording = SimpleNamespace(model_file="", states=np.zeros((40, 1)), success=True)
    films.films(tmp_path, TASKS["lift"](), Wvm(Watcher()), {0: recording})
    [(brightness, told)], [(name, frames, fps, curve)] = seen, written
    assert told == TASKS["lift"]().instruction and brightness == [
        0,
        2,
        4,
        8,
        10,
        12,
        14,
        18,
        20,
        22,
        24,
        28,
        30,
        32,
        34,
        38,
    ]
    assert name == "rollout_00_success_2s.mp4" and fps == 10 and len(frames) == 20
    np.testing.assert_allclose(curve, np.arange(0, 40, 2) / 100, atol=1e-6)


@pytest.mark.parametrize("step", [[10, 0, 5], [0, 5, 500], [-1, 5, 9], [0, 5, 5]])
def test_a_source_that_loses_its_place_is_refused(step, tmp_path):
    class Lost:
        name = fingerprint = "lost"

        def values(self, dataset, start=0):
            yield Values(np.array(step), np.zeros(3, np.float32))

    data = dataset(tmp_path / "d.hdf5", [episode(0, 11)])
    with pytest.raises(InputError, match="value=lost gave steps that do not rise within the 11 of episode 0"):
        label(data, Lost(), progress=False)


def test_settings_of_advantages_do_not_belong_to_labels(tmp_path):
    with pytest.raises(InputError, match=r"value\.shuffle is of advantages"):
        command(LabelConfig(value=WvmConfig(shuffle=True), dataset=str(tmp_path / "d.hdf5")))


def test_a_critic_without_instructions_knows_all_of_them(tmp_path, capsys):
    critic = Brightness()
    critic.instructions, critic.reads = ("",), False
    label(dataset(tmp_path / "d.hdf5", [episode(0, 60)]), Wvm(critic), progress=False)
    assert "warning" not in capsys.readouterr().err
