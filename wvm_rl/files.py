"""Files and folders are written whole or not at all."""

import fcntl
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wvm_rl.errors import InputError


def writable(folder: Path) -> None:
    """Makes a folder, unless it is there.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except OSError as error:
        raise InputError(f"cannot write to {folder}: choose another folder or change its permissions") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it there if the block succeeds.

    The block may create a file or a folder at the temporary path. A reader never sees half of it. A file replaces the
    old one in one step; of a folder, a kill between the two renames leaves old and new as `.partial-*` beside `path`.

    Raises:
        InputError: the folder of `path` cannot be written to.
    """
    path = Path(path)
    writable(path.parent)
    partial = path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        if path.is_dir():  # a folder cannot be replaced in one step: move the old one aside, then drop it
            old = partial.with_name(f"{partial.name}.old")
            path.rename(old)
            try:
                partial.rename(path)
            except OSError:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds the making of `path`: a second process waits here until the first is done or dead.

    Raises:
        InputError: its folder cannot be written to, or lies on a file system without locks; or another process holds
            it, and this one is not to wait.
    """
    writable(path.parent)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise InputError(f"another process works on {path}: run this again when it is done") from error
            print(f"waiting for another process that works on {path}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:  # of Lustre, unless it is mounted with them
            raise InputError(f"{path.parent} cannot be locked ({error.strerror}): choose a folder elsewhere") from error
        yield


def forget(path: Path, stage: str, step: float) -> None:
    """Drops a stage's rows from `step` on from a JSON-lines file of metrics, and a last one that a kill cut short.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        kept = [row for row in rows if row["stage"] != stage or row["step"] < step]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged: delete it and run again, nothing else is lost") from error
    with atomic(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))


def once(path: Path, make: Callable[[], object]) -> Path:
    """Returns `path`, which `make` writes unless it is there; a second process waits for the first.

    Raises:
        InputError: it is not there, and its folder cannot be written to.
    """
    if not path.exists():
        with exclusive(path):
            if not path.exists():
                make()
    return path
