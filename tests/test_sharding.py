"""Meshes of eight virtual devices and two real processes compute what one device does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.model_toy import corpus, stages
from wvm_rl import sharding
from wvm_rl.errors import InputError
from wvm_rl.model.stages import Stages, train
from wvm_rl.sharding import HostsConfig, MeshConfig

ENVIRONMENT = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}


def test_meshes_agree_with_one_device():
    """Loss and gradients within 1e-5, parameters and optimiser a share of the fsdp axis each."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.virtual_devices"]
    done = subprocess.run(command, env=ENVIRONMENT | flags, capture_output=True, text=True, check=True)
    assert "rematerialization" not in done.stderr  # XLA's warning of arrays that it copies whole
    found = json.loads(done.stdout)
    for mesh, parts in (("data", 1), ("fsdp", 8), ("mixed", 4)):
        assert found[mesh]["loss"] < 1e-5 and found[mesh]["gradients"] < 1e-5
        assert found[mesh]["shapes"] == [[2, 32 // parts, 32]] * 3
    assert found["loaded"]["difference"] < 1e-5 and found["loaded"]["shape"] == [2, 4, 32]


def hosts(root: Path, die_at: int = -1) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.two_hosts", str(root), str(port), str(index), str(die_at)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


@pytest.mark.usefixtures("compile_quickly")
def test_two_processes_train_what_one_does(tmp_path):
    """Killed after a checkpoint and started again, two hosts that share the parameters end where one ends."""
    one = train(Stages(stages(), corpus(), tmp_path / "one"))[0]
    two = tmp_path / "two"
    fresh = [process.communicate(timeout=240) for process in hosts(two)]
    assert all("until=pool" in errors for _, errors in fresh)  # the windows are encoded by one host
    shutil.copytree(tmp_path / "one", two, ignore=shutil.ignore_patterns("wvm-*"), dirs_exist_ok=True)

    killed = [(process.communicate(timeout=240), process.returncode) for process in hosts(two, die_at=25)]
    assert all(code != 0 for _, code in killed)
    (folder,) = two.glob("wvm-*")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000020"], killed
    ended = [(process.communicate(timeout=240), process.returncode) for process in hosts(two)]
    assert [code for _, code in ended] == [0, 0], ended
    assert len({output.splitlines()[-1] for (output, _), _ in ended}) == 1  # both hold the same critic

    found = load_file(folder / "params.safetensors")
    for name, value in one.part("wvm").items():
        np.testing.assert_allclose(found[name], value, atol=2e-4 * max(1.0, float(np.abs(value).max())))
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60]


def test_meshes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="needs 4096 devices"):
        MeshConfig(fsdp=4096).make()
    mesh = jax.sharding.AbstractMesh((1, 7), ("data", "fsdp"))
    with pytest.raises(InputError, match=r"fsdp=7 divides no side of x\.blocks\.kernel \[64, 96\]"):
        sharding.parameter(mesh, "x.blocks.kernel", (7, 64, 96))
    assert sharding.parameter(mesh, "x.bias", (64,)).spec == jax.sharding.PartitionSpec()  # small ones are copied
    with pytest.raises(InputError, match="batch=16 must be a multiple of the mesh's 7"):
        sharding.batch(mesh, {}, 16)
    with pytest.raises(InputError, match="at least 1"):
        MeshConfig(data=0)
    for settings in ({"count": 2}, {"count": 2, "index": 2, "coordinator": "localhost:1"}):
        with pytest.raises(InputError, match="hosts"):
            HostsConfig(**settings)
