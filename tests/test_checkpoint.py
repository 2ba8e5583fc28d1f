"""Checkpoints come back bit for bit, survive kills, and refuse foreign folders."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wvm_rl import checkpoint
from wvm_rl.errors import InputError

STATE = {"params": {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)}, "step": jnp.int32(7)}


def test_round_trip_is_exact_and_keeps_the_newest(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "c", step, {**STATE, "step": jnp.int32(step)}, {"seed": 0})
    state, step = checkpoint.restore(tmp_path / "c", STATE, {"seed": 0})
    assert step == 3 and int(state["step"]) == 3
    np.testing.assert_array_equal(state["params"]["w"], STATE["params"]["w"])
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step_000000002", "step_000000003"]


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.restore(tmp_path / "c", STATE, {}) is None
    (tmp_path / "c" / ".partial-1-step_000000001").mkdir(parents=True)
    assert checkpoint.restore(tmp_path / "c", STATE, {}) is None


def test_foreign_checkpoints_are_refused(tmp_path):
    checkpoint.save(tmp_path / "c", 1, STATE, {"seed": 0, "data": "abc"})
    with pytest.raises(InputError, match=r"its setting data is abc, here it is xyz"):
        checkpoint.restore(tmp_path / "c", STATE, {"seed": 0, "data": "xyz"})
    wider = {"params": {"w": jnp.zeros((3, 5))}, "step": jnp.int32(0)}
    with pytest.raises(InputError, match=r"\['w'\] is float32\[3, 4\], here it is float32\[3, 5\]"):
        checkpoint.restore(tmp_path / "c", wider, {"seed": 0, "data": "abc"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.pt").write_text("x")
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoint.restore(tmp_path / "other", STATE, {})
    (tmp_path / "bare" / "step_000000001").mkdir(parents=True)
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        checkpoint.restore(tmp_path / "bare", STATE, {})


def test_a_checkpoint_of_another_machines_device_is_read_here(tmp_path):
    path = checkpoint.save(tmp_path / "c", 1, STATE, {})
    place = path / "state" / "_sharding"
    said = json.loads(place.read_text())
    here = {name: json.loads(text) for name, text in said.items()}
    there = {name: json.dumps(each | {"device_str": "cuda:0"}) for name, each in here.items()}
    assert all("device_str" in each for each in here.values())
    place.write_text(json.dumps(there))
    like = jax.eval_shape(lambda: STATE)
    state, _ = checkpoint.restore(tmp_path / "c", like, {})
    np.testing.assert_array_equal(state["params"]["w"], STATE["params"]["w"])


def test_damage_is_named(tmp_path):
    path = checkpoint.save(tmp_path / "c", 1, STATE, {})
    for file in sorted((path / "state").rglob("*")):
        if file.is_file() and file.stat().st_size:
            file.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.restore(tmp_path / "c", STATE, {})


def test_a_kill_leaves_a_whole_checkpoint(tmp_path):
    program = textwrap.dedent("""
        import sys
        import jax.numpy as jnp
        from wvm_rl import checkpoint
        for step in range(1, 10_000):
            checkpoint.save(sys.argv[1], step, {"w": jnp.full((300, 300), step, jnp.float32)}, {"seed": 0})
            print(step, flush=True)
    """)
    folder = tmp_path / "c"
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "1"
        time.sleep(0.03)
        process.send_signal(signal.SIGKILL)
        printed = [1, *(int(line) for line in process.stdout.read().split())]
    state, step = checkpoint.restore(folder, {"w": jnp.zeros((300, 300))}, {"seed": 0})
    assert step >= printed[-1]
    np.testing.assert_array_equal(state["w"], np.full((300, 300), step, np.float32))
    note = json.loads((folder / f"step_{step:09d}" / "meta.json").read_text())
    assert note["meta"] == {"seed": 0}
