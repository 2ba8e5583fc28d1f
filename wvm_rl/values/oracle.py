"""The oracle: true progress from the recorded lapses."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wvm_rl.data.episodes import KINDS, Dataset, Episode
from wvm_rl.errors import InputError
from wvm_rl.values.base import ValueConfig, Values


def truth(episode: Episode, expert_steps: float) -> np.ndarray:
    """True progress [T] f32 of an episode.

    Every control step advances by 1, but by 0 in a hesitation and by -1 in a retry's or a failure's retraction; the
    sum, never below 0, is scaled to end at 1 on success. On failure it is scaled by the steps gained at best plus
    those an expert would still have needed from there (a tenth of its way at least), so it stays below 1.

    Args:
        expert_steps: mean length of the task's expert in control steps.
    """
    direction = np.ones(len(episode))
    for kind, first, last in episode.lapses:
        direction[first : last + 1] = 0 if KINDS[kind] == "hesitation" else -1
    progress = np.empty(len(episode))
    gained = 0.0
    for step in range(len(episode)):
        progress[step] = gained
        gained = max(0.0, gained + direction[step])
    best = progress.max()
    scale = progress[-1] if episode.success else best + max(expert_steps - best, 0.1 * expert_steps)
    return np.clip(progress / max(scale, 1.0), 0.0, 1.0).astype(np.float32)


class Oracle:
    """Values read off the record of lapses; what a perfect critic would say."""

    name = "oracle"
    fingerprint = "oracle-1"

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        if "expert_steps" not in dataset.env_args:
            raise InputError(
                f"{dataset.path}: value=oracle needs `expert_steps` and recorded lapses, as envs.collect writes"
            )
        for index in range(start, len(dataset)):
            episode = dataset[index]
            progress = truth(episode, dataset.env_args["expert_steps"])
            yield Values(np.arange(len(episode), dtype=np.int32), progress)


@dataclass
class OracleConfig(ValueConfig):
    """True progress from the recorded lapses: what a perfect critic would say."""

    def source(self) -> Oracle:
        return Oracle()
