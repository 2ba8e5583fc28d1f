"""The World Value Model as value source."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.values.base import ValueConfig, Values

if TYPE_CHECKING:
    from wvm_rl.model.critic import Critic

SHIPPED = Path(__file__).parents[1] / "critics" / "tiny"


class Wvm:
    """Values of a trained critic from the episodes' frames and instructions."""

    name = "wvm"

    def __init__(self, critic: "Critic"):
        self.critic = critic
        self.fingerprint = critic.fingerprint

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        steps = []

        def clips() -> Iterator[tuple[np.ndarray, str]]:
            for index in range(start, len(dataset)):
                frames, step = self._frames(dataset, index)
                steps.append(step)
                yield frames, dataset[index].instruction

        for index, (value, std) in enumerate(self.critic.values(clips())):
            yield Values(steps[index], value, std)

    def _frames(self, dataset: Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
        critic = self.critic
        frames, step = dataset.frames(index, critic.camera)
        fps, size = dataset.fps(index), frames.shape[1]
        if fps != critic.fps or size != critic.size:
            raise InputError(
                f"{dataset.path}: frames of {critic.camera} have {fps:g} fps and {size} pixels, the critic needs "
                f"{critic.fps:g} and {critic.size}; render them with `python -m envs.render {dataset.path} "
                f"cameras=[{critic.camera}] fps={critic.fps:g} size={critic.size}`"
            )
        return frames, step


@dataclass
class WvmConfig(ValueConfig):
    """The World Value Model, reading frames and instruction."""

    critic: str = str(SHIPPED)  # folder of the trained critic

    def source(self) -> Wvm:
        from wvm_rl.model.critic import Critic  # the other sources need no JAX

        return Wvm(Critic.load(Path(self.critic)))
