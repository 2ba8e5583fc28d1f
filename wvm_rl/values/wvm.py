"""The World Value Model as value source."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wvm_rl.data.episodes import Dataset
from wvm_rl.data.rates import frame_rate, nearest
from wvm_rl.data.windows import CLIP
from wvm_rl.errors import InputError
from wvm_rl.model.critic_folder import folder_of
from wvm_rl.values.base import ValueConfig, Values

if TYPE_CHECKING:
    from wvm_rl.model.critic import Critic

DEFAULT = "tiny-4"  # of the shipped critics, which stay as they were released; they learned films of seeds 0 to 3


class Wvm:
    """Values of a trained critic from the episodes' frames and instructions."""

    def __init__(self, critic: "Critic", draws: int = 0):
        self.critic = critic
        self._inference, self._drawn = critic.inference(draws) if draws else None, draws > 1
        read = f"{draws} draws" if draws else ""
        self.name = f"wvm-{draws}-draws" if draws else "wvm"
        self.fingerprint = " ".join(part for part in (critic.fingerprint, critic.origin, read) if part)

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        """Values of the episodes from `start` on; refuses frames that the critic was not made for before the first.

        Raises:
            InputError: no frames of the critic's camera, another rate or size, fewer frames than a clip has, or no
                instruction.
        """
        if self.critic.camera not in dataset.cameras:
            raise InputError(
                f"{dataset.path}: not all episodes have frames of camera {self.critic.camera}, only of: "
                f"{', '.join(dataset.cameras) or 'none'}; {self._remedy(dataset)}"
            )
        for index in range(len(dataset)):
            self._check(dataset, index)
        unknown = set[str]()
        for episode in dataset:
            self.check_told(f"{dataset.path}: {dataset.name(episode.index)}", episode.instruction)
            unknown |= {episode.instruction} - set(self.critic.instructions)
        if unknown and self.reads:
            known = "; ".join(self.critic.instructions)
            print(f"warning: the critic was not trained on `{min(unknown)}`, only on: {known}", file=sys.stderr)
        return self._values(dataset, start)

    @property
    def reads(self) -> bool:
        """Whether the critic reads instructions: not if it learned from pictures alone."""
        return self.critic.reads

    def check_told(self, name: str, instruction: str) -> None:
        """Raises InputError unless the critic is told what the episode of that name is about."""
        if self.reads and not instruction:
            raise InputError(f"{name} has no instruction, which value=wvm reads: add the attribute `instruction`")

    def _values(self, dataset: Dataset, start: int) -> Iterator[Values]:
        steps: dict[int, np.ndarray] = {}

        def clips() -> Iterator[tuple[np.ndarray, str]]:
            for index in range(start, len(dataset)):
                frames, steps[index] = dataset.frames(index, self.critic.camera, self.critic.fps)
                yield frames, dataset[index].instruction

        for index, (value, std) in enumerate(self.watched(clips()), start=start):
            yield Values(steps.pop(index), value, std if self._drawn else None)  # else only of windows that overlap

    def watched(self, clips: Iterable[tuple[np.ndarray, str]]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Values and standard deviations [F] of clips: frames [F,H,W,3] u8 as the critic sees them, and instruction."""
        yield from (self._inference or self.critic).values(clips)

    def sees(self, dataset: Dataset) -> bool:
        """Whether a dataset has frames of the critic's camera, of a size and one rate that it can read."""
        every = range(len(dataset))
        gaps = [np.diff(dataset.frame_steps(index)) for index in every]
        even = all(map(len, gaps)) and len(np.unique(np.concatenate(gaps))) == 1
        return even and self.critic.camera in dataset.cameras and all(self._fits(dataset, index) for index in every)

    def _fits(self, dataset: Dataset, index: int) -> bool:
        _, height, width = dataset.frames_shape(index, self.critic.camera)
        return dataset.fps >= self.critic.fps and height == width and height % self.critic.size == 0

    def _check(self, dataset: Dataset, index: int) -> None:
        critic = self.critic
        count, height, width = dataset.frames_shape(index, critic.camera)
        if not self._fits(dataset, index):
            raise InputError(
                f"{dataset.path}: frames of {critic.camera} are {height}x{width} at {dataset.fps:g} fps, the critic "
                f"needs {critic.size}x{critic.size} (or a multiple) at {critic.fps:g} or more; " + self._remedy(dataset)
            )
        if len(nearest(dataset.frame_steps(index), dataset.control_freq / critic.fps)) < CLIP:
            raise InputError(
                f"{dataset.path}: episode {index} has {count} frames at {dataset.fps:g} fps, fewer than the {CLIP} at "
                f"{critic.fps:g} of a clip: remove it"
            )

    def _remedy(self, dataset: Dataset) -> str:
        """What to do for frames that the critic can read."""
        rate = frame_rate(min(self.critic.fps, dataset.control_freq), dataset.control_freq)
        return dataset.remedy(f"cameras=[{self.critic.camera}]", f"fps={rate}", f"size={self.critic.size}")


@dataclass
class WvmConfig(ValueConfig):
    """The World Value Model, reading frames and instruction."""

    critic: str = DEFAULT  # a critic shipped with this package, or the folder of one
    draws: int = 0  # of every chunk's distribution, averaged, for standard deviations of values; 0: its mode

    def __post_init__(self):
        super().__post_init__()
        if self.draws < 0:
            raise InputError(f"value.draws={self.draws} must be at least 0")
        if self.lower and self.draws < 2:  # without, windows that overlap deviate, and an episode's last one has none
            raise InputError(f"value.lower={self.lower:g} needs deviations of several draws: give value.draws=8")

    def source(self) -> Wvm:
        from wvm_rl.model.critic import Critic  # the other sources need no JAX

        return Wvm(Critic.load(folder_of(self.critic)), self.draws)
