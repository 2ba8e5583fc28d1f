"""Videos of a policy's rollouts, with the critic's value drawn in."""

from pathlib import Path

from envs.camera import Camera
from envs.rollout import Recording
from envs.tasks import CONTROL_FREQUENCY, TaskConfig
from envs.video import film, write_video
from wvm_rl.values.base import ValueConfig
from wvm_rl.values.wvm import WvmConfig

FPS = 4  # where no critic asks for another rate
PIXELS = 256


def films(folder: Path, task: TaskConfig, value: ValueConfig, recordings: dict[int, Recording]) -> None:
    """Writes `rollout_<i>_<outcome>.mp4` for each recording.

    With value=wvm the critic watches the rollout and its curve is drawn in; the other sources need a recorded episode
    and cannot judge a rollout, so their videos have no curve.
    """
    critic = value.source().critic if isinstance(value, WvmConfig) else None
    fps = round(critic.fps) if critic else FPS
    camera = Camera(size=PIXELS)
    for number, recording in recordings.items():
        curve = None
        if critic:
            seen = film(recording.model_file, recording.states, fps, Camera(critic.camera, critic.size))
            [(curve, _)] = critic.values([(seen, task.instruction)])
        frames = film(recording.model_file, recording.states, fps, camera)
        outcome = "success" if recording.success else "failure"
        seconds = len(recording.states) / CONTROL_FREQUENCY
        write_video(folder / f"rollout_{number:02d}_{outcome}_{seconds:.0f}s.mp4", frames, fps, curve)
