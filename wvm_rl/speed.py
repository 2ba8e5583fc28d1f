"""How fast a critic labels, all in."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.workers import cores
from wvm_rl.data.episodes import Dataset

if TYPE_CHECKING:
    from wvm_rl.model.critic import Critic

EPISODES = 16  # side by side, as labelling has them


def labelling_speed(critic: "Critic", datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """Windows a second from a dataset's compressed frames to values, after compilation.

    Returns:
        windows_per_second over all datasets, vae_share of that time, cores it had, and
        windows_per_second_by: dataset -> its own.
    """
    from wvm_rl.model.codec import GROUP

    list(critic.values(_films(critic, next(iter(datasets.values())))))
    windows, seconds = {}, {}
    for name, dataset in datasets.items():
        start = time.perf_counter()
        windows[name] = sum(len(value) for value, _ in critic.values(_films(critic, dataset)))
        seconds[name] = time.perf_counter() - start
    group = np.zeros((GROUP, 5, critic.size, critic.size, 3), np.uint8)
    encodings = -(-next(iter(windows.values())) // GROUP)
    start = time.perf_counter()
    for _ in range(encodings):
        np.asarray(critic.programs.encode(critic.part("vae"), group))
    encoding = (time.perf_counter() - start) / (encodings * GROUP)  # s a window
    whole, count = sum(seconds.values()), sum(windows.values())
    return {
        "windows_per_second": count / whole,
        "vae_share": encoding * count / whole,
        "cores": cores(),
        "windows_per_second_by": {name: windows[name] / seconds[name] for name in datasets},
    }


def _films(critic: "Critic", dataset: Dataset) -> Iterator[tuple[np.ndarray, str]]:
    for index in range(min(EPISODES, len(dataset))):
        yield dataset.frames(index, critic.camera, critic.fps)[0], dataset[index].instruction
