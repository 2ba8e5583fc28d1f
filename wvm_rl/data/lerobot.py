"""LeRobot's datasets on disk, of its versions 2.0 to 3.0: what values need of them, read without LeRobot or PyTorch.

`meta/info.json` names rate, features and files. Version 2 has a table and a video an episode and lists episodes in
`meta/episodes.jsonl`; version 3 has many episodes a file and lists them, with the file and the second at which each
begins, in `meta/episodes/*/*.parquet`.
"""

import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pandas as pd
from PIL import Image

from wvm_rl.data.episodes import Episode
from wvm_rl.data.layout import NO_LAPSES
from wvm_rl.errors import InputError

PICTURES = ("video", "image")  # kinds of features that cameras have
STATE = "observation.state"


class LeRobot:
    """A dataset's folder.

    Attributes:
        folder: that holds `meta`, `data` and, for videos, `videos`.
        rate: rows, and frames, a second.
        lengths: rows of every episode.
        robot: its name, where it has one.
        cameras: short name -> feature.

    Raises:
        InputError: no such dataset, or one that lacks what is read.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).expanduser()
        path = self.folder / "meta" / "info.json"
        if not path.is_file():
            raise InputError(f"{self.folder} is no dataset of LeRobot: it has no meta/info.json")
        content = path.read_bytes()
        try:
            info = json.loads(content)
            self.robot = str(info.get("robot_type") or "")
            self.rate = float(info["fps"])
            self._features: dict[str, dict[str, Any]] = info["features"]
            self._data, self._videos = str(info["data_path"]), str(info.get("video_path"))
            self._chunk = int(info.get("chunks_size", 1000))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not LeRobot's ({error!r}): download the dataset again") from error
        if self.rate != round(self.rate) or self.rate < 1:
            raise InputError(f"{path}: fps={self.rate:g} is not a whole number of frames a second")
        pictures = [name for name, feature in self._features.items() if feature.get("dtype") in PICTURES]
        self.cameras = {name.removeprefix("observation.images."): name for name in pictures}
        try:
            self._episodes = self._listed()
            self.lengths = [int(row["length"]) for row in self._episodes]
            for index in range(len(self)):
                self._file(self._data, index, "data")
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path.parent}: what it says of episodes is not LeRobot's ({error!r}): download it again"
            ) from error
        self.fingerprint = hashlib.sha256(content + repr(self._episodes).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._episodes)

    def _listed(self) -> list[dict[str, Any]]:
        """What the dataset says of every episode, in order."""
        meta = self.folder / "meta"
        if (lines := meta / "episodes.jsonl").is_file():
            rows = [json.loads(line) for line in lines.read_text().splitlines() if line.strip()]
        else:
            tables = [_table(path) for path in sorted(meta.glob("episodes/*/*.parquet"))]
            if not tables:
                raise InputError(f"{meta} has neither episodes.jsonl nor episodes/*/*.parquet: download it whole")
            told = [[name for name in table if not name.startswith("stats/")] for table in tables]
            rows = [row for table, names in zip(tables, told) for row in table[names].to_dict("records")]
        rows = sorted(rows, key=lambda row: row["episode_index"])
        if [row["episode_index"] for row in rows] != list(range(len(rows))) or not rows:
            raise InputError(f"{meta}: episodes are not numbered from 0 without gaps: download the dataset whole")
        return [{**row, "tasks": [str(task) for task in row["tasks"]]} for row in rows]

    def feature(self, camera: str) -> str:
        """Feature of a camera, given by its short or whole name.

        Raises:
            InputError: the dataset has no such camera.
        """
        if camera in self.cameras.values():
            return camera
        if camera not in self.cameras:
            raise InputError(f"{self.folder} has no camera {camera}: choose from {', '.join(self.cameras) or 'none'}")
        return self.cameras[camera]

    def episode(self, index: int, cameras: dict[str, str], every: int, size: int) -> Episode:
        """An episode, of each camera every `every`-th frame, its middle square at size x size.

        Args:
            cameras: name to give -> feature.

        Raises:
            InputError: files or columns are missing or damaged, or a video is shorter than its rows.
        """
        with self._reading(index):
            return self._episode(index, cameras, every, size)

    def files(self, index: int, cameras: dict[str, str]) -> list[tuple[str, int, int]]:
        """Path within the folder, size and time of change of an episode's files that are there, but for single
        pictures beside the table.
        """
        with self._reading(index):
            paths = [self._file(self._data, index, "data")]
            for key in cameras.values():
                if self._features[key]["dtype"] == "video":
                    paths.append(self._file(self._videos, index, f"videos/{key}", video_key=key))
            states = [(path, path.stat()) for path in paths if path.exists()]
        return [(str(path.relative_to(self.folder)), state.st_size, state.st_mtime_ns) for path, state in states]

    @contextmanager
    def _reading(self, index: int) -> Iterator[None]:
        """Turns what goes wrong with an episode's files into InputError."""
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.folder}: episode {index} is not LeRobot's ({error!r}): download the dataset again"
            ) from error

    def _episode(self, index: int, cameras: dict[str, str], every: int, size: int) -> Episode:
        listed = self._episodes[index]
        path = self._file(self._data, index, "data")
        rows = _table(path)
        for name in ("episode_index", "frame_index", "action"):
            if name not in rows:
                raise InputError(f"{path} has no column {name}: download the dataset again")
        rows = rows[rows["episode_index"] == index].sort_values("frame_index")
        if rows["frame_index"].tolist() != list(range(self.lengths[index])):
            raise InputError(
                f"{path}: episode {index} is not there whole ({len(rows)} of {self.lengths[index]} rows): download "
                "the dataset again"
            )
        step = np.arange(0, len(rows), every, dtype=np.int32)
        frames = {
            name: self._pictures(rows[key].iloc[step], size)
            if self._features[key]["dtype"] == "image"
            else self._video(index, key, every, size)
            for name, key in cameras.items()
        }
        success = bool(rows["next.success"].any()) if "next.success" in rows else True
        rewards = np.zeros(len(rows), np.float32)
        rewards[-1] = success
        return Episode(
            index=index,
            instruction="; ".join(listed["tasks"]),
            success=success,
            quality="expert" if success else "failure",
            lapses=NO_LAPSES,
            actions=np.stack([np.atleast_1d(action) for action in rows["action"]]).astype(np.float32),
            rewards=rewards,
            obs={"state": np.stack([np.atleast_1d(state) for state in rows[STATE]])} if STATE in rows else {},
            states=np.zeros((len(rows), 0)),
            model_file="",
            frames=frames,
            frame_step=step,
        )

    def _file(self, pattern: str, index: int, kind: str, **more: str) -> Path:
        """A file of an episode: a pattern of `info.json`, filled in as either version does."""
        listed = self._episodes[index]
        place: dict[str, Any] = {"episode_chunk": index // self._chunk, "episode_index": index, **more}
        for name in ("chunk_index", "file_index"):
            if (number := listed.get(f"{kind}/{name}")) is not None:
                place[name] = int(number)
        return self.folder / pattern.format(**place)

    def _video(self, index: int, key: str, every: int, size: int) -> np.ndarray:
        """Frames [F,size,size,3] u8; the last row's is read, too, as a video without it may have lost others."""
        wanted, final = -(-self.lengths[index] // every), self.lengths[index] - 1
        count = wanted + (final % every > 0)
        name = f"videos/{key}"
        path = self._file(self._videos, index, name, video_key=key)
        if not path.is_file():
            raise InputError(f"{path} is missing: download the dataset whole")
        half = 0.5 / self.rate  # a cut falls between two frames
        first, last = (self._episodes[index].get(f"{name}/{end}_timestamp") for end in ("from", "to"))
        start = max(0.0, float(first or 0.0) - half)
        cut = ["-ss", f"{start:.6f}", *(["-t", f"{float(last) - half - start:.6f}"] if last else [])]
        side = "min(iw\\,ih)"
        chosen = f"select=not(mod(n\\,{every}))+eq(n\\,{final}),crop={side}:{side},scale={size}:{size}:flags=area"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", *cut, "-i", str(path), "-vf", chosen]
        command += ["-fps_mode", "passthrough", "-frames:v", str(count), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        ended = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
        frames = np.frombuffer(ended.stdout, np.uint8)
        if ended.returncode or frames.size != count * size * size * 3:
            said = ended.stderr.decode(errors="replace").strip().splitlines()
            reason = said[0] if said else f"it has {frames.size // (size * size * 3)} of {count} frames of its episode"
            raise InputError(
                f"{path}: episode {index} cannot be read ({reason}): download the dataset again, or delete it there"
            )
        return frames.reshape(count, size, size, 3)[:wanted]

    def _pictures(self, column: pd.Series, size: int) -> np.ndarray:
        """Frames [F,size,size,3] u8 of pictures that lie in the table, or beside it."""
        frames = []
        for entry in column:
            content = entry["bytes"]
            with Image.open(io.BytesIO(content) if content else self.folder / entry["path"]) as picture:
                side, (width, height) = min(picture.size), picture.size
                left, top = (width - side) // 2, (height - side) // 2
                square = picture.convert("RGB").crop((left, top, left + side, top + side))
                frames.append(np.asarray(square.resize((size, size), Image.Resampling.BOX)))
        return np.stack(frames)


@lru_cache(maxsize=1)
def _table(path: Path) -> pd.DataFrame:
    """A parquet file; version 3 has many episodes in one.

    Raises:
        InputError: it is not there, or not parquet, as pointers of Git LFS are not.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: download the dataset whole")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no parquet file ({str(error).splitlines()[0]}): download it whole") from error
