"""Values that were predicted elsewhere, read from a parquet file.

One row a predicted frame, in columns `task, clip, episode, frame, value`: the task's and the clip's name and the
episode's number as `python -m wvm_rl.bench export=<folder>` names them, the frame's number in its video, and a value
in [0,1]. Frames may be left out: values between are interpolated.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.values.base import Values

COLUMNS = ("task", "clip", "episode", "frame", "value")


class Predictions:
    """The values of one task's clips in a file; `part` is made for each.

    Raises:
        InputError: no such file, a column is missing, or a value is not finite.
    """

    def __init__(self, name: str, path: Path | str):
        self.name, self.path = name, Path(path).expanduser()
        try:
            table = pd.read_parquet(self.path)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
        if missing := [column for column in COLUMNS if column not in table]:
            raise InputError(f"{self.path} lacks column {missing[0]}: it needs {', '.join(COLUMNS)}")
        if not np.isfinite(table["value"].to_numpy(float)).all():
            raise InputError(f"{self.path}: column value has numbers that are not finite: remove those rows")
        self._rows = {key: rows.sort_values("frame") for key, rows in table.groupby(["task", "clip", "episode"])}
        self._digest = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def part(self, task: str, clip: str) -> "Part":
        """The source for the dataset of a task's clips."""
        return Part(self, task, clip)


class Part:
    """Values of one dataset's episodes."""

    def __init__(self, whole: Predictions, task: str, clip: str):
        self.name, self.fingerprint = whole.name, f"{whole._digest} {task} {clip}"
        self._whole, self._task, self._clip = whole, task, clip

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        for index in range(start, len(dataset)):
            rows = self._whole._rows.get((self._task, self._clip, index))
            if rows is None:
                raise InputError(f"{self._whole.path} has no rows of {self._task}, clip {self._clip}, episode {index}")
            step = dataset.frame_steps(index)
            frame = rows["frame"].to_numpy()
            if frame.min() < 0 or frame.max() >= len(step) or len(np.unique(frame)) < len(frame):
                raise InputError(
                    f"{self._whole.path}: frames of {self._task}, clip {self._clip}, episode {index} must differ and "
                    f"lie in 0..{len(step) - 1}"
                )
            value = np.clip(rows["value"].to_numpy(np.float32), 0, 1)
            yield Values(step[frame], value)
