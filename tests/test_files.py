"""Locks of files that are made once."""

import errno
import fcntl

import pytest

from wvm_rl.errors import InputError
from wvm_rl.files import exclusive


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without)
    refused = pytest.raises(
        InputError, match=r"cannot be locked \(Function not implemented\): choose a folder elsewhere"
    )
    with refused, exclusive(tmp_path / "run"):
        pytest.fail("without its lock")
