"""Meshes of eight virtual devices compute what one device does; those that do not fit are refused."""

import json
import os
import subprocess
import sys

import jax
import pytest

from tests.conftest import QUICK
from tests.model_toy import corpus, small, stages
from wvm_rl import sharding
from wvm_rl.errors import InputError
from wvm_rl.model.stages import Stages, train
from wvm_rl.sharding import HostsConfig, MeshConfig


def test_meshes_agree_with_one_device():
    """Two groups of four devices: loss and gradients within 1e-5, parameters and optimiser a quarter each."""
    flags = QUICK | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.virtual_devices"]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=True)
    assert "rematerialization" not in done.stderr  # XLA's warning of arrays that it copies whole
    found = json.loads(done.stdout)
    for mesh, arrays in (("mixed", 3), ("lora", 1)):
        assert found[mesh]["loss"] < 1e-5 and found[mesh]["gradients"] < 1e-5
        assert found[mesh]["shapes"] == [[2, 32 // 4, 32]] * arrays
    assert found["loaded"]["difference"] < 1e-5 and found["loaded"]["shape"] == [2, 4, 32]


def test_windows_are_encoded_by_one_host(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="until=pool"):
        train(Stages(small(), corpus(), tmp_path))


def test_meshes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="needs 4096 devices"):
        Stages(stages(mesh=MeshConfig(fsdp=4096)), corpus(), tmp_path)
    mesh = jax.sharding.AbstractMesh((1, 7), ("data", "fsdp"))
    with pytest.raises(InputError, match=r"fsdp=7 divides no side of x\.blocks\.kernel \[64, 96\]"):
        sharding.parameter(mesh, "x.blocks.kernel", (7, 64, 96))
    assert sharding.parameter(mesh, "x.bias", (64,)).spec == jax.sharding.PartitionSpec()  # small ones are copied
    with pytest.raises(InputError, match="batch=16 must be a multiple of the mesh's 7"):
        sharding.batch(mesh, {}, 16)
    with pytest.raises(InputError, match="at least 1"):
        MeshConfig(data=0)
    for settings, message in (
        ({"count": 2}, "hosts.count=2 needs hosts.coordinator"),
        ({"coordinator": "host:1"}, "hosts.coordinator=host:1 needs hosts.count"),
        ({"count": 2, "coordinator": "host"}, "hosts.coordinator=host: give address:port"),
        ({"count": 2, "index": 2}, r"hosts.index=2 must lie in \[0, hosts.count=2\)"),
    ):
        with pytest.raises(InputError, match=message):
            HostsConfig(**settings)
