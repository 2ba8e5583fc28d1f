"""One episode with its frames, as a part file: what a collecting worker does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envs.camera import Camera, frame_interval
from envs.recording import record
from envs.simulation import Simulation
from wvm_rl.data.episodes import write_part


def recorder(config: Any, parts: Path) -> Callable[[int | None], dict]:
    """Builds a worker's answer: records episode `index` as a part file, returns `env_args`.

    Args:
        config: a `CollectConfig`.
        parts: folder of the part files `000012.hdf5`.
    """
    simulation = Simulation(config.env)
    camera = Camera(config.camera, config.size) if config.fps else None
    interval = frame_interval(config.fps) if config.fps else 0
    frames: list[np.ndarray] = []

    def on_step(step: int) -> None:
        if step == 0:
            frames.clear()
        if camera is not None and step % interval == 0:
            frames.append(camera(simulation.model, simulation.state))

    def answer(index: int | None) -> dict:
        if index is not None:
            episode = record(simulation, config.recipe, config.seed, index, on_step)
            if camera is not None:
                episode.frames = {config.camera: np.stack(frames)}
                episode.frame_step = np.arange(len(frames), dtype=np.int32) * interval
            write_part(parts / f"{index:06d}.hdf5", episode)
        return simulation.env_args

    return answer
