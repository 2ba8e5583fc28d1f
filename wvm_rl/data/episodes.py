"""Episodes on disk: robomimic's HDF5 layout plus camera frames and the record of what went wrong.

`data/demo_i/{actions [T,A], states [T,S], obs/<key> [T,...], rewards [T], dones [T]}` and the attributes robomimic
reads (`data.attrs["env_args", "total"]`, `demo_i.attrs["num_samples", "model_file"]`). Ours in addition:
`frames/<camera> [F,H,W,3]` u8 with `frames/step [F]`, `phase [T]` of scripted episodes, and the attributes
`instruction, success, quality, seed` and `lapses [L,3]`. Time is in control steps. Files of robomimic itself lack the
latter and open all the same.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wvm_rl.data.layout import KINDS, LAYOUT, NO_LAPSES, QUALITIES, check, single, text
from wvm_rl.data.rates import nearest
from wvm_rl.errors import InputError

__all__ = ["KINDS", "LAYOUT", "QUALITIES", "Dataset", "Episode"]


@dataclass
class Episode:
    """One episode of T control steps; row t is what was there before action t."""

    index: int
    instruction: str
    success: bool
    quality: str  # one of QUALITIES
    lapses: np.ndarray  # [L,3] i32: index into KINDS, first and last control step, inclusive
    actions: np.ndarray  # [T,A] f32
    rewards: np.ndarray  # [T] f32, 1 where the task is solved after the action
    obs: Mapping[str, np.ndarray]  # key -> [T,...] f32; images as they are stored
    states: np.ndarray  # [T,S] f64, simulator states
    model_file: str  # XML of the simulated model
    phase: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # [T] i32, the script's; [0]: not known
    frames: dict[str, np.ndarray] = field(default_factory=dict)  # camera -> [F,H,W,3] u8
    frame_step: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # [F] i32, control step of each frame
    seed: int | None = None  # the simulator's, where known

    def __len__(self) -> int:
        return len(self.actions)


class Dataset:
    """The episodes of one file, in order, checked when opened.

    Attributes:
        path: the file.
        env_args: environment, its arguments, and what the collection noted beside them.

    Raises:
        InputError: not a dataset, cut short, NaN, or arrays that do not fit each other; names file, episode and key.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such dataset; collect one with `python -m envs.collect`")
        try:
            self._data = h5py.File(self.path, "r")["data"]
            self.env_args: dict[str, Any] = json.loads(self._data.attrs["env_args"])
            if not isinstance(self.env_args, dict) or not isinstance(self.env_args.get("env_kwargs", {}), dict):
                raise ValueError("env_args, or env_kwargs in them, are no JSON object")
            self._names = sorted(self._data, key=lambda name: int(name.removeprefix("demo_")))
            dense = bool(self.env_args.get("env_kwargs", {}).get("reward_shaping"))
            for name in self._names:
                check(f"{self.path}: {name}", self._data[name])
                if dense and "rewards" in self._data[name] and "success" not in self._data[name].attrs:
                    raise InputError(
                        f"{self.path}: {name} has shaped rewards (`reward_shaping` in env_args), which do not tell "
                        "success: add the attribute `success`"
                    )
        except InputError:
            raise
        except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).strip("'\"").splitlines()[0]
            raise InputError(
                f"{self.path}: not a whole dataset in robomimic's layout ({reason}); delete it and collect it again"
            ) from error
        if not self._names:
            raise InputError(f"{self.path}: has no episodes; delete it and collect it again")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`, without its frames; its observations are read when they are asked for."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return _read(index, self._data[self._names[index]])

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """Group of episode `index` under `data`."""
        return self._names[index]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file that was opened, which another may have replaced since."""
        with Path(f"/proc/self/fd/{self._data.file.id.get_vfd_handle()}").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def lengths(self) -> list[int]:
        """Control steps of every episode."""
        return [len(self._data[name]["actions"]) for name in self._names]

    @property
    def cameras(self) -> list[str]:
        """Cameras that every episode has frames of."""
        groups = [set(self._data[name].get("frames", {})) for name in self._names]
        return sorted(set.intersection(*groups) - {"step"})

    @property
    def control_freq(self) -> int:
        """Control steps a second.

        Raises:
            InputError: `env_args` does not say, or no whole number.
        """
        for place in (self.env_args, self.env_args.get("env_kwargs", {})):
            if "control_freq" in place:
                given = place["control_freq"]
                number = isinstance(given, int | float) and not isinstance(given, bool)
                if not number or given < 1 or given != round(given):
                    raise InputError(
                        f"{self.path}: env_args have control_freq={given}, must be a whole number, above 0"
                    )
                return int(given)
        raise InputError(f"{self.path}: env_args lack control_freq (control steps a second): add it to the attribute")

    @cached_property
    def fps(self) -> float:
        """Frames a second of the stored frames, the same in all episodes.

        Raises:
            InputError: an episode has fewer than two frames, or frames at another or an uneven rate.
        """
        every = set()
        for name in self._names:
            step = self._data[name]["frames/step"][()] if "frames/step" in self._data[name] else []
            if len(step) < 2:
                raise InputError(
                    f"{self.path}: {name} has {'one frame' if len(step) else 'no frames'}; {self.remedy()}"
                )
            every |= set(np.diff(step).tolist())
            if len(every) > 1:
                raise InputError(
                    f"{self.path}: {name}/frames/step rises by {sorted(every)} control steps, not always the same; "
                    f"{self.remedy()}"
                )
        return self.control_freq / every.pop()

    def frames(self, index: int, camera: str, fps: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Frames [F,H,W,3] u8 of a camera and the control step [F] i32 of each.

        Args:
            fps: frames a second wanted, at most those stored: of each moment the stored frame nearest to it. None: all.

        Raises:
            InputError: the episode has no such camera, or fewer frames a second.
        """
        images, step = self._images(index, camera), self.frame_steps(index)
        if fps is None or fps == self.fps:
            return images[()], step
        if fps > self.fps:
            raise InputError(f"{self.path}: has {self.fps:g} frames a second, {fps:g} are wanted; {self.remedy()}")
        rows = nearest(step, self.control_freq / fps)
        return images[()][rows], step[rows]

    def frame_steps(self, index: int) -> np.ndarray:
        """Control step of each stored frame of an episode, [F] i32; empty without frames."""
        demo = self._data[self._names[index]]
        return demo["frames/step"][()].astype(np.int32) if "frames/step" in demo else np.zeros(0, np.int32)

    def frames_shape(self, index: int, camera: str) -> tuple[int, int, int]:
        """Number, height and width of an episode's frames, without reading them; InputError as in `frames`."""
        return self._images(index, camera).shape[:3]

    def remedy(self, *settings: str) -> str:
        """What to do for other frames: render them with these settings of `envs.render`, if that is possible."""
        if all(drawable(self._data[name]) for name in self._names):
            return f"render them with `{' '.join(['python -m envs.render', str(self.path), *settings])}`"
        return "it has no simulator's states to render some from: convert or write it again with them"

    def _images(self, index: int, camera: str) -> h5py.Dataset:
        demo = self._data[self._names[index]]
        if f"frames/{camera}" not in demo:
            raise InputError(
                f"{self.path}: {self._names[index]} has no frames of camera {camera} (all episodes have: "
                f"{', '.join(self.cameras) or 'none'}); {self.remedy(f'cameras=[{camera}]')}"
            )
        return demo[f"frames/{camera}"]


def drawable(demo: h5py.Group) -> bool:
    """Whether an episode has what pictures of it are drawn from: a simulator's states and its model."""
    return bool("states" in demo and demo["states"].size and demo.attrs.get("model_file"))


class _Stored(Mapping[str, np.ndarray]):
    """Observations of a file, each read once: images among them may outweigh all else, and few ask for them."""

    def __init__(self, group: Mapping[str, h5py.Dataset]):
        self._group, self._read = group, dict[str, np.ndarray]()

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._read:
            self._read[key] = single(self._group[key][()])
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)


def _read(index: int, demo: h5py.Group) -> Episode:
    attributes, length = demo.attrs, len(demo["actions"])
    rewards = demo["rewards"][()].astype(np.float32) if "rewards" in demo else np.zeros(length, np.float32)
    # robomimic's machine-generated sets hold failures, told by their rewards; its raw demonstrations have no rewards
    success = bool(attributes.get("success", rewards.max() > 0 if "rewards" in demo else True))
    return Episode(
        index=index,
        instruction=text(attributes, "instruction"),
        success=success,
        quality=text(attributes, "quality") or ("expert" if success else "failure"),
        lapses=np.asarray(attributes.get("lapses", NO_LAPSES), np.int32),
        actions=demo["actions"][()].astype(np.float32),
        rewards=rewards,
        obs=_Stored(demo.get("obs", {})),
        states=demo["states"][()].astype(np.float64) if "states" in demo else np.zeros((length, 0)),
        model_file=text(attributes, "model_file"),
        phase=demo["phase"][()] if "phase" in demo else np.zeros(0, np.int32),
        seed=int(attributes["seed"]) if "seed" in attributes else None,
    )
