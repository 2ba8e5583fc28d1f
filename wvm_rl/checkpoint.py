"""Training state on disk: Orbax arrays plus a JSON note of what they belong to. No pickle."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from wvm_rl import sharding
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, writable

KEPT = 2  # newest checkpoints that stay on disk: one more than needed, should the disk damage the last
STEP = re.compile(r"step_(\d{9})")


def save(folder: Path | str, step: int, state: Any, meta: dict[str, Any]) -> Path:
    """Writes `state` (a pytree of arrays) as `folder/step_<step>`, whole or not at all, and drops all but the newest.

    Args:
        meta: JSON values that say what the state belongs to (configuration, data fingerprint); `restore` compares them.

    Raises:
        InputError: `folder` cannot be written to.
    """
    folder = Path(folder).absolute()
    if jax.process_count() == 1:
        with atomic(folder / f"step_{step:09d}") as partial:
            partial.mkdir()
            _write(partial, step, state, meta)
    else:  # every process writes its parts of the arrays into the same folder
        partial = folder / f".partial-step_{step:09d}"
        writable(folder)
        if sharding.is_first():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        sharding.meet(f"checkpoint {step} opened")
        _write(partial, step, state, meta)
        sharding.meet(f"checkpoint {step} written")
        if sharding.is_first():
            shutil.rmtree(folder / f"step_{step:09d}", ignore_errors=True)
            partial.rename(folder / f"step_{step:09d}")
        sharding.meet(f"checkpoint {step} named")
    if sharding.is_first():
        for stale in [*_steps(folder)[:-KEPT], *folder.glob(".partial-*")]:
            shutil.rmtree(stale, ignore_errors=True)
    return folder / f"step_{step:09d}"


def _write(partial: Path, step: int, state: Any, meta: dict[str, Any]) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(partial / "state", state)
    if sharding.is_first():
        note = {"step": step, "meta": meta, "leaves": _leaves(state)}
        (partial / "meta.json").write_text(json.dumps(note, indent=1, sort_keys=True))


def restore(folder: Path | str, like: Any, meta: dict[str, Any]) -> tuple[Any, int] | None:
    """Reads the newest checkpoint under `folder`: (state, step), or None where nothing was saved yet.

    Args:
        like: pytree of arrays or `jax.ShapeDtypeStruct` with the structure, shapes, types (and sharding) to restore.
        meta: must equal the one given to `save`.

    Raises:
        InputError: the folder holds something else, or a checkpoint of another configuration, data or model.
    """
    folder = Path(folder).absolute()
    if not folder.exists():
        return None
    steps = _steps(folder) if folder.is_dir() else []
    if not steps:
        if not folder.is_dir() or any(not path.name.startswith(".partial-") for path in folder.iterdir()):
            raise InputError(f"{folder} holds no checkpoint of this program: choose another folder or empty it")
        return None
    note = _note(steps[-1])
    _compare(steps[-1], note["meta"], json.loads(json.dumps(meta)), "its setting")
    _compare(steps[-1], note["leaves"], _leaves(like), "its array")
    abstract = jax.tree.map(_here, like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(steps[-1] / "state", abstract), note["step"]
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"checkpoint {steps[-1]} is damaged: remove this folder and start again") from error


def _here(leaf: Any) -> Any:
    """What to restore a leaf as: where it was saved from, which may be another machine's GPU, does not matter."""
    wanted = ocp.utils.to_shape_dtype_struct(leaf)
    if isinstance(wanted, jax.ShapeDtypeStruct) and wanted.sharding is None:
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.ShapeDtypeStruct(wanted.shape, wanted.dtype, sharding=place)
    return wanted


def _steps(folder: Path) -> list[Path]:
    """Step folders, oldest first."""
    return sorted(path for path in folder.iterdir() if STEP.fullmatch(path.name))


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads((path / "meta.json").read_text())
        return {key: note[key] for key in ("step", "meta", "leaves")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged or not a checkpoint of this program: remove this folder and start again"
        ) from error


def _leaves(tree: Any) -> dict[str, str]:
    """Path of every leaf -> 'dtype[shape]'."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not hasattr(leaf, "dtype"):
            leaf = np.asarray(leaf)
        leaves[jax.tree_util.keystr(path)] = f"{leaf.dtype}{list(leaf.shape)}"
    return leaves


def _compare(path: Path, stored: dict[str, Any], wanted: dict[str, Any], noun: str) -> None:
    for key in sorted({*stored, *wanted}):
        absent = "absent"
        if stored.get(key, absent) != wanted.get(key, absent):
            raise InputError(
                f"checkpoint {path} belongs to another run: {noun} {key} is {stored.get(key, absent)}, "
                f"here it is {wanted.get(key, absent)}; choose another folder or remove it"
            )
