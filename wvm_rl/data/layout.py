"""The rules of one episode on disk: which values its attributes may have and which arrays must fit each other."""

import h5py
import numpy as np

from wvm_rl.errors import InputError

LAYOUT = 1  # raise it when equal episodes would give other bytes: it outdates what is cached
KINDS = ("hesitation", "retry", "failure")  # of a lapse; files hold the index
QUALITIES = ("expert", "hesitation", "retry", "mixed", "failure")  # of an episode
PER_STEP = ("actions", "states", "rewards", "dones", "phase")  # arrays of T rows, beside those under `obs`
NO_LAPSES = np.zeros((0, 3), np.int32)


def check(name: str, demo: h5py.Group) -> None:
    """Raises InputError unless the arrays of an episode are finite and fit each other; frames are not decoded."""
    arrays = {key: demo[key] for key in PER_STEP if key in demo}
    arrays |= {f"obs/{key}": value for key, value in demo.get("obs", {}).items()}
    if "actions" not in arrays or arrays["actions"].ndim != 2 or len(arrays["actions"]) == 0:
        raise InputError(f"{name} has no actions [T,A] with T >= 1: remove this episode")
    length = len(arrays["actions"])
    for key, array in arrays.items():
        if array.ndim == 0 or len(array) != length:
            raise InputError(f"{name}/{key} has shape {array.shape}, its actions {length} rows: collect the file again")
        if array.dtype.kind == "f" and not np.isfinite(array[()]).all():
            raise InputError(f"{name}/{key} has values that are not finite: remove this episode")
    if (quality := text(demo.attrs, "quality") or "expert") not in QUALITIES:
        raise InputError(f"{name} has quality {quality}, must be one of {', '.join(QUALITIES)}")
    if "lapses" in demo:
        raise InputError(f"{name}/lapses is a dataset, must be an attribute: collect the file again")
    if not _lapses_fit(np.asarray(demo.attrs.get("lapses", NO_LAPSES)), length):
        kinds = len(KINDS) - 1
        raise InputError(
            f"{name} has lapses {np.asarray(demo.attrs['lapses']).tolist()}, must be rows (kind, m, n) with kind in "
            f"0..{kinds}, 0 <= m <= n < {length}: collect the file again"
        )
    if "frames" in demo:
        _check_frames(f"{name}/frames", demo["frames"], length)


def _lapses_fit(lapses: np.ndarray, length: int) -> bool:
    if lapses.ndim != 2 or lapses.shape[1] != 3:
        return False
    kind, first, last = lapses.T
    return bool(((kind >= 0) & (kind < len(KINDS)) & (first >= 0) & (first <= last) & (last < length)).all())


def _check_frames(name: str, frames: h5py.Group, length: int) -> None:
    step = frames["step"][()] if "step" in frames else np.zeros(0)
    if step.ndim != 1 or len(step) == 0 or np.any(np.diff(step) <= 0) or step[0] < 0 or step[-1] >= length:
        raise InputError(f"{name}/step must be control steps that rise within 0..{length - 1}: render the frames again")
    for camera in sorted(set(frames) - {"step"}):
        shape = frames[camera].shape
        if len(shape) != 4 or shape[0] != len(step) or shape[3] != 3 or frames[camera].dtype != np.uint8:
            raise InputError(
                f"{name}/{camera} is {frames[camera].dtype} {list(shape)}, must be uint8 [{len(step)},H,W,3]: "
                f"render the frames again"
            )


def single(array: np.ndarray) -> np.ndarray:
    """Numbers as f32; images stay u8."""
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def text(attributes: h5py.AttributeManager, name: str) -> str:
    """An attribute's text, which some writers store as bytes; empty without."""
    found = attributes.get(name, "")
    return found.decode() if isinstance(found, bytes) else str(found)
