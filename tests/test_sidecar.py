"""The value sidecar: LeRobot's columns, reused for equal fingerprints only, resumable after a kill."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.synthetic import dataset, episode
from wvm_rl.data import sidecar
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.label import at_steps, label
from wvm_rl.values import VALUES
from wvm_rl.values.base import Values
from wvm_rl.values.clock import Blind


class Counted:
    """A source that gives every fifth step's t/100, notes what it was asked for and fails in one episode."""

    name = "counted"

    def __init__(self, fingerprint="one", fails_in=None, std=True):
        self.fingerprint, self.fails_in, self.std, self.asked = fingerprint, fails_in, std, []

    def values(self, dataset, start=0):
        for index in range(start, len(dataset)):
            if index == self.fails_in:
                raise KeyboardInterrupt
            self.asked.append(index)
            step = np.arange(0, dataset.lengths[index], 5)
            yield Values(step, step / 100, step / 1000 if self.std else None)


def place(data, fingerprint="one"):
    return sidecar.beside(data.path, "counted", fingerprint)


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "d.hdf5", [episode(index, 20 + index, interval=0) for index in range(4)])


def test_values_are_interpolated_once_and_written_as_lerobot_reads_them(data):
    values = label(data, Counted(), progress=False)
    assert [len(value) for value in values] == data.lengths
    # frames at 0, 5, 10, 15, 20: linear between, constant after the last one
    np.testing.assert_allclose(values[3], np.minimum(np.arange(23), 20) / 100, rtol=1e-6)
    table = pq.read_table(place(data))
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "index": "int64",
        "episode_index": "int64",
        "frame_index": "int64",
        "progress_sparse": "float",
        "progress_std": "float",
    }
    assert table["index"].to_pylist() == list(range(sum(data.lengths)))
    assert table["frame_index"].to_pylist() == [step for length in data.lengths for step in range(length)]
    info = json.loads(table.schema.metadata[b"wvm_rl_info"])
    assert info["fps"] == 20 and info["prompts"] == ["lift the red cube"] and info["versions"]["numpy"]
    belongs = {"dataset": data.fingerprint, "source": "counted", "critic": "one"}
    assert sidecar.read(place(data), data.lengths, belongs)
    assert sidecar.read(place(data), data.lengths, belongs | {"critic": "two"}) is None


def test_files_of_other_endings_have_values_of_their_own(tmp_path):
    names = [sidecar.beside(tmp_path / name, "counted", "one").name for name in ("a.hdf5", "a.h5", "a.v1.hdf5")]
    assert names[0].startswith("a.counted-") and len(set(names)) == 3


def test_a_source_without_deviations_leaves_nulls(data):
    label(data, Counted(std=False), progress=False)
    column = pq.read_table(place(data))["progress_std"]
    assert column.null_count == len(column)


def test_equal_fingerprints_are_reused_others_recomputed(data, tmp_path):
    label(data, Counted(), progress=False)
    again, other = Counted(), Counted("two")
    label(data, again, progress=False)
    label(data, other, progress=False)
    assert again.asked == [] and other.asked == [0, 1, 2, 3]
    label(data, again, progress=False)  # both critics' values lie beside the dataset
    assert again.asked == [] and place(data).exists() and place(data, "two").exists()
    changed = dataset(data.path, [episode(index + 1, 20 + index, interval=0) for index in range(4)])
    third = Counted("two")
    label(changed, third, progress=False)
    assert third.asked == [0, 1, 2, 3]


def test_an_interrupted_labelling_goes_on(data):
    with pytest.raises(KeyboardInterrupt):
        label(data, Counted(fails_in=2), progress=False)
    assert not place(data).exists()
    rest = Counted()
    values = label(data, rest, progress=False)
    assert rest.asked == [2, 3]
    interrupted = place(data).read_bytes()
    place(data).unlink()
    for ours, uninterrupted in zip(values, label(data, Counted(), progress=False)):
        np.testing.assert_array_equal(ours, uninterrupted)
    assert place(data).read_bytes() == interrupted
    assert sorted(path.name for path in data.path.parent.glob("*.parts")) == ["d.parts"]  # the episodes' own


def test_a_refused_labelling_leaves_nothing(tmp_path):
    data = dataset(tmp_path / "d.hdf5", [episode(0, 20, interval=0)], {"env_kwargs": {"control_freq": 20}})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="expert_steps"):
        label(data, VALUES["oracle"]().source(), progress=False)
    assert [path for path in sorted(tmp_path.iterdir()) if not path.name.startswith(".")] == before


def test_parts_of_another_critic_are_not_mixed_in(data):
    with pytest.raises(KeyboardInterrupt):
        label(data, Counted("old", fails_in=2), progress=False)
    new = Counted("new")
    label(data, new, progress=False)
    assert new.asked == [0, 1, 2, 3]


KILLED = """
import sys, os, signal
from tests.test_sidecar import Counted
from wvm_rl.data.episodes import Dataset
from wvm_rl.label import label
class Killed(Counted):
    def values(self, dataset, start=0):
        for index, value in enumerate(super().values(dataset, start), start):
            if index == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield value
label(Dataset(sys.argv[1]), Killed(), progress=False)
"""


def test_finished_episodes_survive_sigkill(data):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data.path)], env={**os.environ, "PYTHONPATH": "."})
    assert killed.returncode == -signal.SIGKILL
    rest = Counted()
    label(Dataset(data.path), rest, progress=False)
    assert rest.asked == [2, 3]


def test_foreign_files_are_neither_read_nor_overwritten(data):
    path = place(data)
    pq.write_table(pa.table({"progress_sparse": [0.5]}), path)
    content = path.read_bytes()
    with pytest.raises(InputError, match=r"d\.counted-\w{8}\.parquet is not a value sidecar"):
        label(data, Counted(), progress=False)
    assert path.read_bytes() == content
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="is not a value sidecar"):
        label(data, Counted(), progress=False)


def test_rows_that_do_not_fit_are_refused(data, tmp_path):
    label(data, Counted(), progress=False)
    with pytest.raises(InputError, match=r"d\.counted-\w{8}\.parquet: its rows"):
        belongs = {"dataset": data.fingerprint, "source": "counted", "critic": "one"}
        sidecar.read(place(data), [20, 21, 22, 24], belongs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda step: Values(step, step.astype(float)), r"value=odd lies in \[0, 19\] in episode 0: must be within"),
        (lambda step: Values(step, step[1:] / 100), r"in episode 0 \(step \(20,\), value \(19,\), std"),
        (lambda step: Values(step, step / 100, step[1:] / 100), r"value \(20,\), std \(19,\)"),
    ],
)
def test_what_a_source_may_not_give(data, values, message):
    class Odd(Counted):
        name = "odd"

        def values(self, dataset, start=0):
            for index in range(start, len(dataset)):
                yield values(np.arange(dataset.lengths[index]))

    with pytest.raises(InputError, match=message):
        label(data, Odd(), progress=False)


def test_episodes_that_a_source_leaves_out_are_missed(data):
    class Short(Counted):
        def values(self, dataset, start=0):
            yield from list(super().values(dataset, start))[:-1]

    with pytest.raises(InputError, match="value=counted gave values of 3 of 4 episodes"):
        label(data, Short(), progress=False)


def test_values_that_are_not_finite_are_refused(data):
    class Broken(Counted):
        def values(self, dataset, start=0):
            yield Values(np.array([0, 5]), np.array([0.1, np.nan]))

    with pytest.raises(InputError, match=r"d\.hdf5: value=counted is not finite in episode 0"):
        label(data, Broken(), progress=False)


def test_no_write_permission_is_said(data, monkeypatch):
    monkeypatch.setattr("wvm_rl.files.os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="cannot write to"):
        label(data, Blind("clock"), progress=False)
    assert not list(data.path.parent.glob("d.clock*"))


def test_a_single_frame_is_constant():
    track = at_steps(Values(np.array([3]), np.array([0.5]), None), 5)
    np.testing.assert_array_equal(track.progress, np.full(5, 0.5, np.float32))
    assert np.isnan(track.std).all()
