"""Small synthetic episodes and datasets, without a simulator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wvm_rl.data.episodes import KINDS, Dataset, Episode
from wvm_rl.data.writing import write, write_part

ENV_ARGS = {
    "env_name": "Lift",
    "type": 1,
    "env_kwargs": {"control_freq": 20},
    "task": "lift",
    "expert_steps": 60,
}


def episode(
    index: int = 0,
    length: int = 60,
    lapses: Sequence[tuple[str, int, int]] = (),
    success: bool = True,
    quality: str = "expert",
    interval: int = 5,
    size: int = 16,
) -> Episode:
    """An episode of noise whose frames show time as brightness (interval=0: no frames); `lapses` name their kinds."""
    rng = np.random.default_rng(index)
    step = np.arange(0, length, interval or length, dtype=np.int32)
    frames = np.broadcast_to((255 * step / length).astype(np.uint8)[:, None, None, None], (len(step), size, size, 3))
    rewards = np.zeros(length, np.float32)
    rewards[-1] = success
    return Episode(
        index=index,
        instruction="lift the red cube",
        success=success,
        quality=quality,
        lapses=np.array([(KINDS.index(kind), m, n) for kind, m, n in lapses], np.int32).reshape(-1, 3),
        actions=rng.uniform(-1, 1, (length, 7)).astype(np.float32),
        rewards=rewards,
        obs={"object": rng.normal(size=(length, 4)).astype(np.float32)},
        states=rng.normal(size=(length, 5)),
        model_file="<mujoco/>",
        frames={"workspace": frames.copy()} if interval else {},
        frame_step=step if interval else np.zeros(0, np.int32),
        seed=index,
    )


def dataset(path: Path, episodes: Sequence[Episode], env_args: dict | None = None) -> Dataset:
    """Writes and opens a dataset of these episodes."""
    parts = [path.parent / f"{path.stem}.parts" / f"{index:06d}.hdf5" for index in range(len(episodes))]
    for part, each in zip(parts, episodes):
        write_part(part, each)
    write(path, parts, ENV_ARGS if env_args is None else env_args)
    return Dataset(path)


class Brightness:
    """A critic that reads progress off the frames' brightness; takes what `wvm_rl.model.critic.Critic` takes."""

    fps, size, camera, fingerprint, origin = 4.0, 16, "workspace", "brightness", ""
    instructions, reads = ("lift the red cube",), True

    def values(self, clips):
        for frames, instruction in clips:
            assert instruction == "lift the red cube" and frames.dtype == np.uint8
            yield frames[:, 0, 0, 0] / 255, None
