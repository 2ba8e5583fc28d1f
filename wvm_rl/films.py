"""What is kept of a policy's rollouts: videos with the critic's value drawn in, and the episodes themselves."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from envs.bank import Bank
from envs.camera import Camera
from envs.performer import Recording
from envs.tasks import CONTROL_FREQUENCY, TaskConfig
from envs.video import film, write_video
from wvm_rl.config import EvaluationConfig
from wvm_rl.data.episodes import Episode
from wvm_rl.data.layout import NO_LAPSES
from wvm_rl.data.rates import frame_rate, nearest
from wvm_rl.data.windows import CLIP
from wvm_rl.data.writing import write, write_part
from wvm_rl.values.base import Source
from wvm_rl.values.wvm import Wvm

FPS, SIZE = 5, 96  # frames a second and pixels where no critic asks for others: as the shipped one, to share episodes
PIXELS = 256


def check_films(source: Source | None, states: Bank) -> None:
    """Draws what `films` would of an initial state.

    Raises:
        InputError: no OpenGL, or a critic whose camera or frame rate the simulator lacks.
    """
    watcher = source if isinstance(source, Wvm) else None
    views = [Camera(size=PIXELS), *([Camera(watcher.critic.camera, watcher.critic.size)] if watcher else [])]
    for camera in views:
        film(states.model_files[0], states.states[:1], _rate(watcher), camera)


def _rate(watcher: Wvm | None) -> int:
    """Frames a second of a video."""
    return frame_rate(watcher.critic.fps if watcher else FPS, CONTROL_FREQUENCY)


def leave(
    folder: Path, config: EvaluationConfig, task: TaskConfig, source: Source | None, recordings: dict[int, Recording]
) -> None:
    """Films and keeps as many recordings (by rollout) as asked for: `videos/` and `rollouts.hdf5` of a folder."""
    filmed, kept = (
        {number: recording for number, recording in recordings.items() if number < count}
        for count in (config.videos, config.keep)
    )
    films(folder / "videos", task, source, filmed)
    if kept:
        as_episodes(folder / "rollouts.hdf5", task, next(iter(kept.values())).env_args, kept)


def films(folder: Path, task: TaskConfig, source: Source | None, recordings: dict[int, Recording]) -> None:
    """Writes `rollout_<i>_<outcome>.mp4` for each recording.

    With value=wvm the critic watches the rollout and its curve is drawn in; the other sources need a recorded episode
    and cannot judge a rollout, so their videos have no curve.
    """
    watcher = source if isinstance(source, Wvm) else None
    fps = _rate(watcher)
    camera = Camera(size=PIXELS)
    for number, recording in recordings.items():
        curve = None
        frames = film(recording.model_file, recording.states, fps, camera)
        if watcher:
            critic = watcher.critic
            seen = film(recording.model_file, recording.states, fps, Camera(critic.camera, critic.size))
            rows = nearest(np.arange(len(seen)), fps / critic.fps)
            if len(rows) >= CLIP:  # else it is too short to be judged
                [(value, _)] = watcher.watched([(seen[rows], task.instruction)])
                curve = np.interp(np.arange(len(seen)), rows, value)
        outcome = "success" if recording.success else "failure"
        seconds = len(recording.states) / CONTROL_FREQUENCY
        write_video(folder / f"rollout_{number:02d}_{outcome}_{seconds:.0f}s.mp4", frames, fps, curve)


def as_episodes(path: Path, task: TaskConfig, env_args: dict[str, Any], recordings: dict[int, Recording]) -> None:
    """Writes recordings as a dataset without frames (`envs.render` adds any).

    What went wrong in them is not marked, so they lack `expert_steps` and value=oracle refuses them, and successes are
    `mixed`: no expert's.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        parts = [Path(folder) / f"{number:06d}.hdf5" for number in recordings]
        for index, (part, recording) in enumerate(zip(parts, recordings.values())):
            length = len(recording.actions)
            solved = np.zeros(length, np.float32)
            solved[-1] = recording.success
            write_part(
                part,
                Episode(
                    index=index,
                    instruction=task.instruction,
                    success=recording.success,
                    quality="mixed" if recording.success else "failure",
                    lapses=NO_LAPSES,
                    actions=recording.actions,
                    rewards=solved,
                    obs=recording.obs,
                    states=recording.states[:length],
                    model_file=recording.model_file,
                ),
            )
        write(path, parts, {name: value for name, value in env_args.items() if name != "expert_steps"})
