"""The learned baselines read what they are given, on synthetic episodes whose frames show time as brightness."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.synthetic import ENV_ARGS, dataset, episode
from wvm_rl.data.windows import NO_TEXT, Film, WindowsConfig, progress
from wvm_rl.errors import InputError
from wvm_rl.model.reading import mixed
from wvm_rl.values import qlearning, regressors
from wvm_rl.values.iql import IQLConfig
from wvm_rl.values.learned import RegressorConfig, Shelf
from wvm_rl.values.qlearning import transitions
from wvm_rl.values.regressors import CONTEXT, STATE, Films, Frame, State, Video, rewound, so_far

SHORT = RegressorConfig(steps=120, batch=16, learning_rate=3e-3)


def films(tmp_path, count=4):
    data = dataset(tmp_path / "known.hdf5", [episode(index, 100 + index) for index in range(count)])
    found = []
    for each in data:
        frames, step = data.frames(each.index, "workspace")
        found.append(Film(frames, progress(step, len(each)), 0))
    shelf = Shelf({"episodes": count}, [data.path.name], tmp_path / "kept")
    return Films(lambda: found, [data[0].instruction], "workspace", 4.0, 16, WindowsConfig(), shelf)


@pytest.mark.parametrize("kind", [Frame, Video])
def test_pictures_are_read(tmp_path, kind, monkeypatch):
    known = films(tmp_path)
    source = kind(SHORT, known)
    fresh = dataset(tmp_path / "fresh.hdf5", [episode(20, 110)])
    found = next(source.values(fresh))
    np.testing.assert_allclose(found.value, np.linspace(0, 1, len(found.value)), atol=0.15)
    monkeypatch.setattr(regressors, "fitted", lambda *_: pytest.fail("what was learned is kept"))
    np.testing.assert_array_equal(next(kind(SHORT, known).values(fresh)).value, found.value)
    assert source.fingerprint == kind(SHORT, known).fingerprint
    smoothed = kind(SHORT, replace(known, reading=mixed()))  # of the same parameters
    np.testing.assert_array_equal(next(smoothed.values(fresh)).value, mixed().smoothed(found.value))
    assert smoothed.fingerprint != source.fingerprint
    assert source.fingerprint != kind(replace(SHORT, steps=121), known).fingerprint
    other = replace(episode(3), instruction="juggle")
    with pytest.raises(InputError, match="not trained on `juggle`"):
        next(source.values(dataset(tmp_path / "other.hdf5", [other])))


def test_a_training_that_was_killed_goes_on(tmp_path, monkeypatch):
    """To the same bits; parameters and metrics stay."""
    fresh = dataset(tmp_path / "fresh.hdf5", [episode(20, 110)])
    whole = next(Frame(SHORT, films(tmp_path / "whole")).values(fresh)).value
    known = films(tmp_path / "killed")
    drawn = []

    def killed(self, rng):
        drawn.append(rng)
        if len(drawn) > 110:
            raise KeyboardInterrupt
        return batch(self, rng)

    batch = Frame._batch
    with monkeypatch.context() as patch:
        patch.setattr(Frame, "_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            next(Frame(SHORT, known).values(fresh))
        patch.setattr(Frame, "_batch", lambda self, rng: (drawn.append(rng), batch(self, rng))[1])
        drawn.clear()
        np.testing.assert_array_equal(next(Frame(SHORT, known).values(fresh)).value, whole)
    assert len(drawn) == 20
    kept = [path.name for path in (tmp_path / "killed" / "kept").rglob("*") if not path.name.startswith(".")]
    assert len(kept) == 3 and "metrics.jsonl" in kept


def test_without_text_all_instructions_are_one(tmp_path):
    known = replace(films(tmp_path), instructions=[NO_TEXT])
    other = dataset(tmp_path / "other.hdf5", [replace(episode(3), instruction="juggle")])
    assert len(next(Frame(SHORT, known).values(other)).value)


def test_a_video_falls_when_it_is_played_back(tmp_path):
    known = films(tmp_path, 1)
    source = Video(SHORT, known)
    frames = known.films[0].frames
    back = replace(episode(30, 100), frames={"workspace": np.concatenate([frames[:10], frames[9::-1]])})
    value = next(source.values(dataset(tmp_path / "back.hdf5", [back]))).value
    assert value[9] > 0.3 and value[-1] < value[9] - 0.2


def test_rewound_videos_by_hand():
    rng = np.random.default_rng(0)
    for _ in range(200):
        order = rewound(rng, 12)
        top = int(order.max())
        np.testing.assert_array_equal(order[: top + 1], np.arange(top + 1))
        np.testing.assert_array_equal(order[top + 1 :], np.arange(top - 1, top - 1 - (len(order) - top - 1), -1))
    np.testing.assert_array_equal(so_far(np.arange(31), 4), [0, 10, 20, 30])
    assert len(so_far(np.arange(1), CONTEXT)) == CONTEXT


def scripted(index, length):
    """An episode whose state tells its progress."""
    place = np.linspace(0, 1, length, dtype=np.float32)[:, None]
    obs = {"robot0_eef_pos": np.repeat(place, 3, 1), "robot0_eef_quat": np.zeros((length, 4), np.float32)}
    obs |= {"robot0_gripper_qpos": np.zeros((length, 2), np.float32), "object": np.zeros((length, 5), np.float32)}
    return replace(episode(index, length), obs=obs, phase=(3 * place[:, 0]).astype(np.int32))


def test_the_floor_sees_the_simulator(tmp_path, monkeypatch):
    experts = dataset(tmp_path / "experts.hdf5", [scripted(index, 80 + index) for index in range(4)])
    shelf = Shelf({}, [experts.path.name], tmp_path / "kept")
    source = State(replace(SHORT, batch=64), {"lift": lambda: experts}, shelf)
    fresh = dataset(tmp_path / "fresh.hdf5", [scripted(9, 90)])
    value = next(source.values(fresh)).value
    np.testing.assert_allclose(value, np.linspace(0, 1, 90), atol=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(regressors, "fitted", lambda *_: pytest.fail("what was learned is kept"))
        again = State(source.config, source.experts, shelf)
        np.testing.assert_array_equal(next(again.values(fresh)).value, value)
    with pytest.raises(InputError, match="lacks phase"):
        next(source.values(dataset(tmp_path / "bare.hdf5", [episode(0)])))
    with pytest.raises(InputError, match="not trained on task can, only on lift"):
        next(source.values(dataset(tmp_path / "can.hdf5", [scripted(0, 60)], ENV_ARGS | {"task": "can"})))


def test_released_regressors_need_no_episodes(tmp_path):
    """What one user trained, another reads without the episodes, as long as the settings are the same."""
    known, fresh = films(tmp_path), dataset(tmp_path / "fresh.hdf5", [episode(20, 110)])
    trained = Frame(SHORT, known)
    found = next(trained.values(fresh))
    [path] = (tmp_path / "kept").glob("*.safetensors")
    released = tmp_path / "released"
    released.mkdir()
    path.rename(released / f"{path.stem.rpartition('-')[0]}.safetensors")

    def absent():
        pytest.fail("nothing is to be learned")

    shelf = replace(known.shelf, datasets=["collected otherwise"], released=released)
    given = replace(known, load=absent, shelf=shelf)
    np.testing.assert_array_equal(next(Frame(SHORT, given).values(fresh)).value, found.value)

    class Newer(Frame):
        version = Frame.version + 1

    assert not Newer(SHORT, given)._path.exists()  # what was learned another way is not read
    for where, config in ((shelf, replace(SHORT, steps=121)), (replace(shelf, released=None), SHORT)):
        assert not where.place("frame", Frame.version, asdict(config), given.settings())[0].exists()  # to be trained


def test_settings_out_of_range_are_refused():
    for wrong in ({"steps": 1}, {"batch": 0}, {"learning_rate": 0.0}, {"seed": 2**32}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            replace(SHORT, **wrong)


def test_a_backup_of_q_learning_bridges_a_chunk_of_actions(tmp_path):
    made = [replace(episode(0, 5), obs=dict.fromkeys(STATE, np.arange(5.0)[:, None])), episode(1, 3, success=False)]
    made[1] = replace(made[1], obs=dict.fromkeys(STATE, np.arange(3.0)[:, None]))
    found = transitions(data := dataset(tmp_path / "d.hdf5", made), 2, 0.5)
    np.testing.assert_array_equal(found["next"], [2, 3, 4, 4, 4, 7, 7, 7])
    np.testing.assert_array_equal(found["reward"], [0, 0, 0, 0.5, 1, 0, 0, 0])
    np.testing.assert_array_equal(found["end"], [0, 0, 0, 1, 1, 0, 1, 1])
    first, second = data[0].actions, data[1].actions
    np.testing.assert_array_equal(found["action"][[0, 6]], [[*first[0], *first[1]], [*second[1], *second[2]]])
    np.testing.assert_array_equal(found["action"][4], [*first[4], *np.zeros(7)])


SHORT_IQL = IQLConfig(discount=0.9, chunk=4, steps=800, batch=64, target=0.05)


def line(path):
    """Steps forward end in success, steps back do not."""

    def walk(index, length, direction):
        made = episode(index, length, success=direction > 0, quality="expert" if direction > 0 else "failure")
        place = 0.5 + direction * np.linspace(0, 0.5, length, dtype=np.float32)
        return replace(made, obs=dict.fromkeys(STATE, place[:, None]), actions=np.full((length, 7), direction, "f4"))

    return dataset(path, [walk(index, 20, 1 if index % 2 else -1) for index in range(6)])


def test_implicit_q_learning_goes_on_after_a_kill(tmp_path, monkeypatch):
    """To the same bits; what it learned is kept beside the dataset."""
    config, made, add = replace(SHORT_IQL, steps=400), [], qlearning.Metrics.add
    whole = [each.value for each in config.source().values(line(tmp_path / "whole.hdf5"))]

    def killed(self, step, values):
        made.append(step)
        if made[0] == 100 and step == 400:
            raise KeyboardInterrupt
        add(self, step, values)

    monkeypatch.setattr(qlearning, "SAVE", 200)
    monkeypatch.setattr(qlearning.Metrics, "add", killed)
    data = line(tmp_path / "cut.hdf5")
    with pytest.raises(KeyboardInterrupt):
        next(config.source().values(data))
    for expected in ([300, 400], []):
        made.clear()
        again = [each.value for each in replace(config, horizon_k=5).source().values(data)]
        np.testing.assert_array_equal(again, whole)
        assert made == expected


def test_implicit_q_learning_finds_the_way_to_success(tmp_path):
    """V rises to the goal, and with the expectile."""
    data = line(tmp_path / "d.hdf5")
    low, high = ([each.value for each in replace(SHORT_IQL, expectile=t).source().values(data)] for t in (0.5, 0.95))
    forward, back = high[1], high[0]
    assert (np.diff(forward) > -0.02).all() and forward[-1] > 0.8 and back[-1] < 0.1
    np.testing.assert_allclose(forward[-1 - np.arange(5)], 0.9 ** np.arange(5), atol=0.2)
    assert low[0][0] < high[0][0]  # at the start half of the data goes each way
    with pytest.raises(InputError, match=r"value\.chunk, steps"):
        IQLConfig(chunk=0)
    with pytest.raises(InputError, match=r"value\.expectile=1"):
        IQLConfig(expectile=1.0)
    with pytest.raises(InputError, match=r"value\.seed=4294967294"):
        IQLConfig(seed=2**32 - 2)
    bare = dataset(tmp_path / "bare.hdf5", [episode(0, 20)])
    with pytest.raises(InputError, match="lacks robot0_eef_pos, which value=iql reads"):
        list(IQLConfig().source().values(bare))
