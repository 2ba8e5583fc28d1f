"""Values of a dataset as a parquet file beside it, with a note of what they belong to.

One row a control step, LeRobot's columns and ours: `index` (over the dataset), `episode_index`, `frame_index` (the
control step), `progress_sparse` f32 in [0,1], `progress_std` f32 or null.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wvm_rl.errors import InputError
from wvm_rl.files import atomic

PACKAGES = ("wvm_rl", "jax", "numpy", "pyarrow", "mujoco", "robosuite")
NOTES, INFO = b"wvm_rl", b"wvm_rl_info"  # keys of the schema's metadata


class Track(NamedTuple):
    """Values of one episode at its control steps.

    progress: [T] f32 in [0,1]. std: [T] f32, NaN where the source gives none.
    """

    progress: np.ndarray
    std: np.ndarray


def beside(dataset: Path, source: str, fingerprint: str) -> Path:
    """Where a dataset's values of a source lie: those of several critics side by side."""
    short = hashlib.sha256(fingerprint.encode()).hexdigest()[:8]
    return dataset.with_name(f"{dataset.name.removesuffix('.hdf5')}.{source}-{short}.parquet")


def write_part(path: Path, episode: int, track: Track) -> None:
    """Writes the rows of one episode, whole or not at all."""
    length = len(track.progress)
    table = pa.table(
        {
            "index": pa.array(np.zeros(length), pa.int64()),  # set when the parts are joined
            "episode_index": pa.array(np.full(length, episode), pa.int64()),
            "frame_index": pa.array(np.arange(length), pa.int64()),
            "progress_sparse": pa.array(track.progress, pa.float32()),
            "progress_std": pa.array(track.std, pa.float32(), mask=np.isnan(track.std)),
        }
    )
    with atomic(path) as partial:
        pq.write_table(table, partial)


def join(path: Path, parts: Sequence[Path], belongs: dict[str, Any], info: dict[str, Any]) -> None:
    """Joins the parts of all episodes into the sidecar, whole or not at all.

    Args:
        belongs: fingerprints; `read` compares them.
        info: what else a reader may want to know, beside the versions of packages.
    """
    table = pa.concat_tables(pq.read_table(part) for part in parts)
    table = table.set_column(0, "index", pa.array(np.arange(len(table)), pa.int64()))
    metadata = {NOTES: json.dumps(belongs), INFO: json.dumps(info | {"versions": _versions()})}
    with atomic(path) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial)


def read(path: Path, lengths: Sequence[int], belongs: dict[str, Any]) -> list[Track] | None:
    """Values of every episode; None if there is no such file or it belongs to something else.

    Args:
        lengths: control steps of the dataset's episodes.
        belongs: fingerprints, as given to `join`.

    Raises:
        InputError: the file is no sidecar of this program, or its rows are not those of such episodes.
    """
    try:
        with path.open("rb") as file:  # opened once: another process may put a new file in its place
            table = pq.read_table(file)
        notes = json.loads((table.schema.metadata or {})[NOTES])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a value sidecar of this program: move or delete it") from error
    if notes != belongs:
        return None
    episode, frame = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
    expected = np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.arange(length) for length in lengths])
    if not (np.array_equal(episode, expected[0]) and np.array_equal(frame, expected[1])):
        raise InputError(
            f"{path}: its rows are not one for each of the dataset's {sum(lengths)} control steps: delete it"
        )
    ends = np.cumsum(lengths)[:-1]
    columns = (table[name].to_numpy(zero_copy_only=False) for name in ("progress_sparse", "progress_std"))
    return [Track(*pair) for pair in zip(*(np.split(column.astype(np.float32), ends) for column in columns))]


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None  # not needed for every source
    return versions
