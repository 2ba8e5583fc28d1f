"""How fast a critic labels, all in."""

import time
from typing import TYPE_CHECKING

import numpy as np

from wvm_rl.data.episodes import Dataset

if TYPE_CHECKING:
    from wvm_rl.model.critic import Critic

EPISODES = 16  # side by side, as labelling has them


def labelling_speed(critic: "Critic", dataset: Dataset) -> dict[str, float]:
    """Windows a second from decoded frames to values, after compilation, and the VAE's share of the time."""
    from wvm_rl.model.codec import GROUP

    count = min(EPISODES, len(dataset))
    films = [
        (dataset.frames(index, critic.camera, critic.fps)[0], dataset[index].instruction) for index in range(count)
    ]
    list(critic.values(films))
    start = time.perf_counter()
    list(critic.values(films))
    whole = time.perf_counter() - start
    windows = sum(len(frames) for frames, _ in films)
    group = np.zeros((GROUP, 5, critic.size, critic.size, 3), np.uint8)
    start = time.perf_counter()
    for _ in range(-(-windows // GROUP)):
        np.asarray(critic.programs.encode(critic.part("vae"), group))
    return {"windows_per_second": windows / whole, "vae_share": (time.perf_counter() - start) / whole}
