"""One episode with its frames, as a part file: what a collecting worker does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envs.camera import Camera, frame_interval
from envs.recording import record
from envs.simulation import Simulation
from wvm_rl.data.writing import write_part
from wvm_rl.errors import InputError


def recorder(config: Any, parts: Path) -> Callable[[int | None], dict]:
    """Builds a worker's answer: records episode `index` as a part file, returns `env_args`.

    Args:
        config: a `CollectConfig`.
        parts: folder of the part files `000012.hdf5`.
    """
    simulation = Simulation(config.env)
    names = config.cameras if config.fps else []
    cameras = [Camera(name, config.size) for name in names]
    interval = frame_interval(config.fps) if config.fps else 1
    frames: list[list[np.ndarray]] = []

    def on_step(step: int) -> None:
        if step == 0:
            frames.clear()
            for camera in cameras:
                camera.begin(simulation.state)
        if step % interval == 0:
            frames.append([camera(simulation.model, simulation.state) for camera in cameras])

    def answer(index: int | None) -> dict:
        if index is not None:
            episode = record(simulation, config.recipe, config.seed, index, on_step)
            if episode.rewards[0]:
                raise InputError(
                    f"env={config.env.name} is solved at the first step of an episode: nothing is to be learned"
                )
            if names:
                episode.frames = {name: np.stack(shown) for name, shown in zip(names, zip(*frames))}
                episode.frame_step = np.arange(len(frames), dtype=np.int32) * interval
            write_part(parts / f"{index:06d}.hdf5", episode)
        return simulation.env_args

    return answer
