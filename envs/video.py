"""Videos of rollouts and episodes, rendered from their states, with the value curve beneath."""

import warnings
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw

from envs.camera import WORKSPACE, Camera, frame_interval
from envs.modelfile import compiled
from wvm_rl.errors import InputError
from wvm_rl.files import atomic

PANEL = 64  # pixels of height of the value curve
MARGIN = 6
CURVE, AXIS, PAPER = (31, 119, 180), (170, 170, 170), (255, 255, 255)


def film(model_file: str, states: np.ndarray, fps: int = 4, camera: Camera | None = None) -> np.ndarray:
    """Renders states [T, S], one a control step, at `fps` frames a second: [F, size, size, 3] u8, from step 0 on."""
    model, camera = compiled(model_file), camera or Camera(WORKSPACE)
    return np.stack([camera(model, state) for state in states[:: frame_interval(fps)]])


def write_video(path: Path, frames: np.ndarray, fps: float, value: np.ndarray | None = None) -> None:
    """Writes frames [F, H, W, 3] u8 as mp4 (h264, yuv420p).

    Args:
        value: [F] in [0, 1]; its curve up to the present frame is drawn in a panel beneath.

    Raises:
        InputError: shapes that do not fit, or no write permission.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(f"video frames are {frames.dtype} {frames.shape}: need u8 [F, H, W, 3] with F at least 1")
    if value is not None and np.shape(value) != (len(frames),):
        raise InputError(f"{len(frames)} video frames need {len(frames)} values, not {np.shape(value)}")
    height, width = frames.shape[1:3]
    scale = max(1, round(256 / width))
    width, height = scale * width + scale * width % 2, scale * height + scale * height % 2  # h264 needs even sides
    with atomic(Path(path)) as partial:
        writer = imageio_ffmpeg.write_frames(
            str(partial),
            (width, height + (PANEL if value is not None else 0)),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        with warnings.catch_warnings():  # JAX warns of every fork; ffmpeg's child starts another program at once
            warnings.filterwarnings("ignore", message=".*os.fork", category=RuntimeWarning)
            writer.send(None)
        for number, frame in enumerate(frames):
            picture = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST))
            if value is not None:
                picture = np.concatenate([picture, _panel(value, number, width)])
            writer.send(np.ascontiguousarray(picture))
        writer.close()


def _panel(value: np.ndarray, now: int, width: int) -> np.ndarray:
    """Draws value[: now + 1] on axes from 0 to 1 and over the whole length: [PANEL, width, 3] u8."""
    picture = Image.new("RGB", (width, PANEL), PAPER)
    draw = ImageDraw.Draw(picture)
    across = np.linspace(MARGIN, width - MARGIN - 1, max(2, len(value)))
    up = PANEL - 1 - MARGIN - np.clip(value, 0, 1) * (PANEL - 1 - 2 * MARGIN)
    draw.line([(MARGIN, MARGIN), (MARGIN, PANEL - 1 - MARGIN), (width - 1 - MARGIN, PANEL - 1 - MARGIN)], fill=AXIS)
    points = list(zip(across.tolist(), up.tolist()))[: now + 1]
    if len(points) > 1:
        draw.line(points, fill=CURVE, width=2)
    x, y = points[-1]
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=CURVE)
    return np.asarray(picture)
