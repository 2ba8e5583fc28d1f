"""Values that were predicted elsewhere, read from parquet files. Frames may be left out: values are interpolated.

For the benchmark one row a predicted frame, in columns `task, clip, episode, frame, value`: the task's and the clip's
name and the episode's number as `python -m wvm_rl.bench export=<folder>` names them, the frame's number in its video,
and a value in [0,1]. For one dataset, as `value=file`, LeRobot's columns `episode_index, frame_index` and a progress
in [0,1], empty where there is none, and beside `progress_sparse`, where the file has it, its standard deviation,
`progress_std`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import MISSING

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.values.base import ValueConfig, Values

HOLE = 0.2  # share of an episode that may be without values, or as far as they lie apart elsewhere
SLACK = 0.1  # by which a value may lie outside [0,1]; it is clipped
COLUMNS = ("task", "clip", "episode", "frame", "value")
PROGRESS, STD = "progress_sparse", "progress_std"  # LeRobot's column, and ours beside it (`wvm_rl.data.sidecar`)
NUMBERS = ("episode", "frame", "episode_index", "frame_index")


def _table(path: Path, columns: Sequence[str], value: str) -> pd.DataFrame:
    """The columns of a parquet file; empty values are left to the caller, others must be finite.

    Raises:
        InputError: no such file, a column is missing, a value is infinite or no number, or the number of an episode or
            frame is not whole.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file: name a parquet file")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"{path} lacks column {missing[0]}: it needs {', '.join(columns)}")
    if not _number(table[value]) or np.isinf(table[value].to_numpy(float)).any():
        raise InputError(f"{path}: column {value} has values that are not finite numbers: remove those rows")
    for column in (name for name in columns if name in NUMBERS):
        numbers = table[column].to_numpy(float, na_value=np.nan) if _number(table[column]) else np.array([np.nan])
        if not ((numbers >= 0) & (numbers < 2**53) & (numbers == np.round(numbers))).all():
            raise InputError(f"{path}: column {column} must hold whole numbers, counted from 0")
        table[column] = numbers.astype(np.int64)
    return table


def _number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _progress(path: Path, column: pd.Series) -> np.ndarray:
    """Values [n] f32 in [0,1].

    Raises:
        InputError: one lies further outside than a model's rounding would put it.
    """
    value = column.to_numpy(np.float32)
    if len(value) and not -SLACK <= value.min() <= value.max() <= 1 + SLACK:
        raise InputError(
            f"{path}: column {column.name} lies in [{value.min():g}, {value.max():g}]: scale it so that 0 is the "
            "start and 1 the task done"
        )
    return np.clip(value, 0, 1)


@dataclass
class FileConfig(ValueConfig):
    """Anyone's progress of a dataset's episodes, as LeRobot writes it for RA-BC."""

    path: str = MISSING  # parquet file
    column: str = PROGRESS  # that holds the progress
    fps: float | None = None  # frames a second that frame_index counts; null: control steps

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InputError(f"value.fps={self.fps} must be above 0 frames a second")

    def source(self) -> "Progress":
        return Progress(self)


class Progress:
    """Values of one dataset's episodes from a file.

    Raises:
        InputError: no such file, a column is missing, a value is infinite, a number of an episode is not whole, or a
            standard deviation is none.
    """

    name = "file"

    def __init__(self, config: FileConfig):
        self.config, self.path = config, Path(config.path).expanduser()
        table = _table(self.path, ("episode_index", "frame_index", config.column), config.column)
        self._deviates = config.column == PROGRESS and STD in table
        if self._deviates:
            numeric = pd.api.types.is_numeric_dtype(table[STD]) or table[STD].isna().all()
            if not numeric or not (table[STD].isna() | table[STD].between(0, np.inf, inclusive="left")).all():
                raise InputError(f"{self.path}: column {STD} must hold finite numbers from 0 on: mend or drop it")
        known = table[table[config.column].notna()]
        self._rows = {int(key): rows.sort_values("frame_index") for key, rows in known.groupby("episode_index")}
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.fingerprint = f"{digest} {config.column} {config.fps} 4"

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        if (last := max(self._rows, default=0)) >= len(dataset):
            raise InputError(
                f"{self.path} has rows of episode {last}, {dataset.path} {len(dataset)} episodes: give its own file"
            )
        for index in range(start, len(dataset)):
            rows, length = self._rows.get(index), dataset.lengths[index]
            if rows is None:
                raise InputError(f"{self.path} has no rows of episode {index} of {dataset.path}")
            frame = rows["frame_index"].to_numpy(float)
            step = frame * dataset.control_freq / self.config.fps if self.config.fps else frame
            if frame.min() < 0 or step.max() >= length or len(np.unique(frame)) < len(frame):
                raise InputError(
                    f"{self.path}: frames of episode {index} must differ and lie within its {length} control steps; "
                    "set value.fps to the frames a second that frame_index counts"
                )
            self._check_holes(index, step, length)
            std = rows[STD].to_numpy(np.float32, na_value=np.nan) if self._deviates else np.full(1, np.nan)
            yield Values(step, _progress(self.path, rows[self.config.column]), std if np.isfinite(std).all() else None)

    def _check_holes(self, index: int, step: np.ndarray, length: int) -> None:
        """Raises InputError if too much of an episode's start, middle or end is without values."""
        apart = np.median(np.diff(step)) if len(step) > 1 else 0.0
        allowed = max(HOLE * length, apart)
        bounds = np.array([0.0, *step, length - 1])
        wide = np.diff(bounds) > np.array([allowed, *np.full(len(step) - 1, max(allowed, 2 * apart)), allowed])
        if wide.any():
            place = int(np.argmax(wide))
            raise InputError(
                f"{self.path}: episode {index} has no values from control step {bounds[place]:g} to "
                f"{bounds[place + 1]:g} of {length}: give some there, or set value.fps to the frames a second that "
                "frame_index counts"
            )


class Predictions:
    """The values of one task's clips in a file; `part` is made for each.

    Raises:
        InputError: no such file, a column is missing, a value is not finite, or a number of an episode is not whole.
    """

    def __init__(self, name: str, path: Path | str):
        self.name, self.path = name, Path(path).expanduser()
        table = _table(self.path, COLUMNS, "value")
        if table["value"].isna().any():
            raise InputError(f"{self.path}: column value has values that are not finite numbers: remove those rows")
        self._rows = {key: rows.sort_values("frame") for key, rows in table.groupby(["task", "clip", "episode"])}
        self.digest = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def rows(self, task: str, clip: str, episode: int) -> pd.DataFrame:
        """Those of one clip.

        Raises:
            InputError: there are none.
        """
        found = self._rows.get((task, clip, episode))
        if found is None:
            raise InputError(f"{self.path} has no rows of {task}, clip {clip}, episode {episode}")
        return found

    def part(self, task: str, clip: str) -> "Part":
        """The source for the dataset of a task's clips."""
        return Part(self, task, clip)


class Part:
    """Values of one dataset's episodes."""

    def __init__(self, whole: Predictions, task: str, clip: str):
        self.name, self.fingerprint = whole.name, f"{whole.digest} {task} {clip}"
        self._whole, self._task, self._clip = whole, task, clip

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        for index in range(start, len(dataset)):
            rows = self._whole.rows(self._task, self._clip, index)
            step = dataset.frame_steps(index)
            frame = rows["frame"].to_numpy()
            if frame.min() < 0 or frame.max() >= len(step) or len(np.unique(frame)) < len(frame):
                raise InputError(
                    f"{self._whole.path}: frames of {self._task}, clip {self._clip}, episode {index} must differ and "
                    f"lie in 0..{len(step) - 1}"
                )
            yield Values(step[frame], _progress(self._whole.path, rows["value"]))
