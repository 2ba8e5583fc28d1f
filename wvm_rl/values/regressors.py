"""Learned baselines that a critic stands beside on the benchmark: one frame, a video so far, the simulator's state.

All regress an expert's progress t / (T-1). The two that see pictures learn from the critic's own films. The one that
sees the simulator's state and the script's phase is no baseline but a floor: how far hesitating in one place is
predictable at all, given that experts differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.windows import NO_TEXT, Film, WindowsConfig, augmented
from wvm_rl.errors import InputError
from wvm_rl.fingerprint import fingerprint
from wvm_rl.model.codec import fit_size
from wvm_rl.model.layers import Array
from wvm_rl.model.reading import Reading
from wvm_rl.model.training import Batch
from wvm_rl.model.weights import Graph, Params, graph_of
from wvm_rl.values.base import Values
from wvm_rl.values.learned import TRUTH, RegressorConfig, Shelf, fitted, kept
from wvm_rl.values.networks import FrameNet, StateNet, VideoNet

CONTEXT = 16  # frames of the video so far that the regressor on videos sees
GROUP = 64  # frames valued at once
STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
PHASES = 8  # at most, of a script


@dataclass
class Films:
    """What the picture regressors learn from.

    Attributes:
        load: reads the films, of expert episodes.
        instructions: that films index.
        camera, fps, size: of the frames.
        augment: how their pictures vary in training.
        shelf: where trained regressors are kept.
        reading: whose smoothing their values get, too.
    """

    load: Callable[[], Sequence[Film]]
    instructions: list[str]
    camera: str
    fps: float
    size: int
    augment: WindowsConfig
    shelf: Shelf
    reading: Reading = field(default_factory=Reading)

    @cached_property
    def films(self) -> Sequence[Film]:
        """Read when something is to be learned."""
        return self.load()

    def settings(self) -> dict[str, Any]:
        """What shapes a regressor beside the episodes, JSON-like."""
        names = ("instructions", "camera", "fps", "size")
        return {name: getattr(self, name) for name in names} | {"augment": asdict(self.augment)}

    def row(self, instruction: str, path: Any) -> int:
        """Row of an instruction; the only one where none is told.

        Raises:
            InputError: nothing was learned of it.
        """
        if self.instructions == [NO_TEXT]:
            return 0
        if instruction not in self.instructions:
            raise InputError(f"{path}: the regressors were not trained on `{instruction}`: leave them out of models")
        return self.instructions.index(instruction)


class Frame:
    """Reads progress off one frame and the instruction; learns when values are first asked of it."""

    name = "frame"
    version = 1  # raised when it learns by another law or reads otherwise; other random numbers do not count

    def __init__(self, config: RegressorConfig, films: Films):
        self.config, self.films = config, films
        self._path, trained = films.shelf.place(self.name, self.version, asdict(config), films.settings())
        self.fingerprint = fingerprint([self.version, trained, films.reading.smooth])
        self._params: Params | None = None
        self._graph = graph_of(FrameNet, films.size, len(films.instructions))
        self._predict = jax.jit(lambda params, *given: self._graph.merge(params)(*given))

    def _batch(self, rng: np.random.Generator) -> Batch:
        chosen = [self.films.films[row] for row in rng.integers(len(self.films.films), size=self.config.batch)]
        places = [rng.integers(len(film.frames)) for film in chosen]
        augment = self.films.augment
        frames = np.stack([augmented(film.frames[place], rng, augment) for film, place in zip(chosen, places)])
        progress = np.array([film.progress[place] for film, place in zip(chosen, places)], np.float32)
        return {"frames": frames, "instruction": np.array([film.instruction for film in chosen]), TRUTH: progress}

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        if self._params is None:
            self._params = kept(
                self._graph, self._path, partial(fitted, self._graph, self._batch, self.config, self.name)
            )
        for index in range(start, len(dataset)):
            frames, step = dataset.frames(index, self.films.camera, self.films.fps)
            row = self.films.row(dataset[index].instruction, dataset.path)
            yield Values(step, self.films.reading.smoothed(self._valued(fit_size(frames, self.films.size), row)))

    def _valued(self, frames: np.ndarray, instruction: int) -> np.ndarray:
        rows = np.full(GROUP, instruction)
        parts = [self._predict(self._params, part, rows) for part in _groups(frames)]
        return np.concatenate(parts)[: len(frames)].astype(np.float32)


class Video(Frame):
    """Reads progress off the video so far, after ReWiND: rewound videos teach that it may fall."""

    name = "video"
    version = 1  # its own

    def __init__(self, config: RegressorConfig, films: Films):
        super().__init__(config, films)
        self._graph = graph_of(VideoNet, films.size, len(films.instructions))
        self._features = jax.jit(lambda params, frames: self._graph.merge(params).pictures(frames))
        self._over = jax.jit(lambda params, *given: self._graph.merge(params).over(*given)[:, -1])

    def _batch(self, rng: np.random.Generator) -> Batch:
        chosen = [self.films.films[row] for row in rng.integers(len(self.films.films), size=self.config.batch)]
        orders = [so_far(rewound(rng, len(film.frames)), CONTEXT) for film in chosen]
        augment = self.films.augment
        frames = np.stack([augmented(film.frames[order], rng, augment) for film, order in zip(chosen, orders)])
        progress = np.stack([film.progress[order] for film, order in zip(chosen, orders)])
        return {"frames": frames, "instruction": np.array([film.instruction for film in chosen]), TRUTH: progress}

    def _valued(self, frames: np.ndarray, instruction: int) -> np.ndarray:
        features = np.concatenate([self._features(self._params, part) for part in _groups(frames)])[: len(frames)]
        orders = np.stack([so_far(np.arange(now + 1), CONTEXT) for now in range(len(frames))])
        rows = np.full(GROUP, instruction)
        parts = [self._over(self._params, part, rows) for part in _groups(features[orders])]
        return np.concatenate(parts)[: len(frames)].astype(np.float32)


def rewound(rng: np.random.Generator, length: int) -> np.ndarray:
    """Frames of a video up to some moment and, half of the time, back again some way (ReWiND, section 3.2)."""
    end = int(rng.integers(1, length + 1))
    forward = np.arange(end)
    if end < 3 or rng.uniform() < 0.5:
        return forward
    return np.concatenate([forward, forward[-2 : -2 - int(rng.integers(1, end)) : -1]])


def so_far(order: np.ndarray, count: int) -> np.ndarray:
    """`count` frames spread evenly over a video, its first and last among them; short ones repeat frames."""
    return order[np.round(np.linspace(0, len(order) - 1, count)).astype(int)]


def _groups(rows: np.ndarray) -> list[np.ndarray]:
    """Arrays of GROUP rows, the last one padded."""
    padded = np.zeros((-(-len(rows) // GROUP) * GROUP, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return list(padded.reshape(-1, GROUP, *rows.shape[1:]))


class State:
    """Reads progress off the simulator's state and the script's phase, one network a task: the floor of Eq. 8.

    Args:
        experts: task -> reads its dataset of expert episodes with states and phases, when something is to be learned.
        shelf: where trained networks are kept.
    """

    name = "floor"
    version = 1  # as of the others

    def __init__(self, config: RegressorConfig, experts: Mapping[str, Callable[[], Dataset]], shelf: Shelf):
        self.config, self.experts = config, experts
        self._places = {task: shelf.place(f"{self.name}-{task}", self.version, asdict(config)) for task in experts}
        self.fingerprint = fingerprint([self.version, [trained for _, trained in self._places.values()]])
        self._known: dict[str, Callable[[np.ndarray], Array]] = {}

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        task = str(dataset.env_args.get("task"))
        if task not in self.experts:
            raise InputError(f"the floor was not trained on task {task}, only on {', '.join(self.experts)}")
        for index in range(start, len(dataset)):
            states = _state(dataset, dataset[index])
            if task not in self._known:
                self._known[task] = self._reader(task, states.shape[1])
            value = np.concatenate([self._known[task](part) for part in _groups(states)])[: len(states)]
            yield Values(np.arange(len(states), dtype=np.int32), value.astype(np.float32))

    def _reader(self, task: str, inputs: int) -> Callable[[np.ndarray], Array]:
        graph = graph_of(StateNet, inputs)
        params = kept(graph, self._places[task][0], partial(self._fit, graph, task))
        return jax.jit(lambda states: graph.merge(params)(states))

    def _fit(self, graph: Graph, task: str, folder: Path) -> dict[str, np.ndarray]:
        dataset = self.experts[task]()
        episodes = [episode for episode in dataset if episode.success and not len(episode.lapses)]
        states = np.concatenate([_state(dataset, episode) for episode in episodes])
        progress = np.concatenate([np.linspace(0, 1, len(episode), dtype=np.float32) for episode in episodes])
        mean, deviation = states.mean(0), states.std(0) + 1e-3

        def draw(rng: np.random.Generator) -> Batch:
            rows = rng.integers(len(states), size=self.config.batch)
            return {"state": (states[rows] - mean) / deviation, TRUTH: progress[rows]}

        params = fitted(graph, draw, self.config, f"{task} floor", folder)
        kernel = params["layers.0.kernel"] / deviation[:, None]  # which takes states as they are
        return params | {"layers.0.kernel": kernel, "layers.0.bias": params["layers.0.bias"] - mean @ kernel}


def _state(dataset: Dataset, episode: Episode) -> np.ndarray:
    """State and phase of every control step, [T,inputs] f32."""
    if len(episode.phase) != len(episode) or any(key not in episode.obs for key in STATE):
        raise InputError(f"{dataset.path}: episode {episode.index} lacks phase or {', '.join(STATE)}: collect it again")
    return np.concatenate([*(episode.obs[key] for key in STATE), np.eye(PHASES, dtype=np.float32)[episode.phase]], 1)
