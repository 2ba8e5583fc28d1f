"""Learned baselines that a critic stands beside on the benchmark: one frame, a video so far, the simulator's state.

All regress an expert's progress t / (T-1). The two that see pictures learn from the critic's own films. The one that
sees the simulator's state and the script's phase is no baseline but a floor: how far hesitating in one place is
predictable at all, given that experts differ.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from wvm_rl.data.episodes import Dataset, Episode
from wvm_rl.data.windows import Film, WindowsConfig, augmented
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, exclusive
from wvm_rl.model import weights
from wvm_rl.model.codec import fit_size
from wvm_rl.model.layers import Array, LayerNorm, Linear
from wvm_rl.model.reading import Reading
from wvm_rl.model.weights import Graph, Params
from wvm_rl.values.base import Values

CHANNELS = (24, 48, 64, 96)  # after each halving of the picture
HIDDEN = 128
HEADS, BLOCKS = 4, 2  # of the video regressor
CONTEXT = 16  # frames of the video so far that it sees
GROUP = 64  # frames valued at once
STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
PHASES = 8  # at most, of a script
Batch = tuple[np.ndarray, ...]


@dataclass
class RegressorConfig:
    """Training of a regressor."""

    steps: int  # optimiser steps
    batch: int  # frames, or videos, a step
    learning_rate: float = 1e-3  # peak of a cosine, after a tenth of the steps
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 10), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} of a regressor must be at least {least}")
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate={self.learning_rate} of a regressor must be positive")


@dataclass
class Films:
    """What the picture regressors learn from.

    Attributes:
        films: of expert episodes.
        instructions: that films index.
        camera, fps, size: of the frames.
        augment: how their pictures vary in training.
        fingerprint: of all this.
        folder: where trained regressors are kept; None keeps none.
        reading: whose smoothing their values get, too.
    """

    films: Sequence[Film]
    instructions: list[str]
    camera: str
    fps: float
    size: int
    augment: WindowsConfig
    fingerprint: str
    folder: Path | None = None
    reading: Reading = field(default_factory=Reading)

    def row(self, instruction: str, path: Any) -> int:
        """Row of an instruction.

        Raises:
            InputError: nothing was learned of it.
        """
        if instruction not in self.instructions:
            raise InputError(f"{path}: the regressors were not trained on `{instruction}`: leave them out of models")
        return self.instructions.index(instruction)


class Pictures(nnx.Module):
    """Frames [N,S,S,3] u8 -> features [N,HIDDEN]."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        widths = [3, *CHANNELS]
        self.convolutions = nnx.List(
            nnx.Conv(a, b, (3, 3), strides=2, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
            for a, b in pairwise(widths)
        )
        side = -(-size // 2 ** len(CHANNELS))
        self.out = Linear(side * side * CHANNELS[-1], HIDDEN, rngs=rngs)

    def __call__(self, frames: Array) -> Array:
        x = frames.astype(jnp.float32) / 127.5 - 1
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return self.out(x.reshape(len(x), -1))


class FrameNet(nnx.Module):
    """One frame and the instruction -> progress."""

    def __init__(self, size: int, instructions: int, *, rngs: nnx.Rngs):
        self.pictures = Pictures(size, rngs=rngs)
        self.instruction = nnx.Param(0.1 * jax.random.normal(rngs.params(), (instructions, HIDDEN)))
        self.out = Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, frames: Array, instruction: Array) -> Array:
        """Frames [N,S,S,3] u8 and rows [N] -> progress [N] in (0,1)."""
        x = jax.nn.relu(self.pictures(frames) + self.instruction[instruction])
        return jax.nn.sigmoid(self.out(x)[:, 0])


class VideoNet(nnx.Module):
    """The video so far, as ReWiND reads it (arXiv 2505.10911, section 3.2): causal attention over frames' features.

    Only the first frame carries its place, so that time cannot be read off the number of frames.
    """

    def __init__(self, size: int, instructions: int, *, rngs: nnx.Rngs):
        self.pictures = Pictures(size, rngs=rngs)
        self.instruction = nnx.Param(0.1 * jax.random.normal(rngs.params(), (instructions, HIDDEN)))
        self.first = nnx.Param(0.1 * jax.random.normal(rngs.params(), (HIDDEN,)))
        self.blocks = nnx.List(_Block(rngs=rngs) for _ in range(BLOCKS))
        self.norm = LayerNorm(HIDDEN, eps=1e-6, rngs=rngs)
        self.out = Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, frames: Array, instruction: Array) -> Array:
        """Frames [N,C,S,S,3] u8 and rows [N] -> progress [N,C] in (0,1) at every frame."""
        features = self.pictures(frames.reshape(-1, *frames.shape[2:])).reshape(*frames.shape[:2], HIDDEN)
        return self.over(features, instruction)

    def over(self, features: Array, instruction: Array) -> Array:
        """The same from the frames' features [N,C,HIDDEN]."""
        x = features.at[:, 0].add(self.first[...]) + self.instruction[instruction][:, None]
        for block in self.blocks:
            x = block(x)
        return jax.nn.sigmoid(self.out(self.norm(x))[..., 0])


class _Block(nnx.Module):
    """Causal self-attention and a hidden layer, both after a norm and added."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.norms = nnx.List(LayerNorm(HIDDEN, eps=1e-6, rngs=rngs) for _ in range(2))
        self.mix, self.mixed = Linear(HIDDEN, 3 * HIDDEN, rngs=rngs), Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.widen, self.narrow = Linear(HIDDEN, 2 * HIDDEN, rngs=rngs), Linear(2 * HIDDEN, HIDDEN, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        parts = self.mix(self.norms[0](x)).reshape(*x.shape[:2], 3, HEADS, HIDDEN // HEADS)
        mixed = jax.nn.dot_product_attention(*(parts[:, :, number] for number in range(3)), is_causal=True)
        x = x + self.mixed(mixed.reshape(x.shape))
        return x + self.narrow(jax.nn.gelu(self.widen(self.norms[1](x))))


class StateNet(nnx.Module):
    """Standardised state and phase -> progress."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        widths = [inputs, 256, 256, 1]
        self.layers = nnx.List(Linear(a, b, rngs=rngs) for a, b in pairwise(widths))

    def __call__(self, state: Array) -> Array:
        """[N,inputs] -> [N] in (0,1)."""
        for layer in list(self.layers)[:-1]:
            state = jax.nn.gelu(layer(state))
        return jax.nn.sigmoid(self.layers[-1](state)[:, 0])


def fitted(graph: Graph, batches: Callable[[np.random.Generator], Batch], config: RegressorConfig, what: str) -> Params:
    """Parameters that minimise the squared error of progress.

    Args:
        graph: a module of (inputs ...) -> progress.
        batches: draws inputs and, last, the true progress.
        what: is trained, for the progress bar.

    Raises:
        InputError: the loss is not finite.
    """
    rng = np.random.default_rng(config.seed)
    params = graph.init(config.seed)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, config.steps // 10), config.steps, 0.01 * config.learning_rate
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
    state = jax.jit(optimiser.init)(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, *batch: Array) -> tuple[Params, Any, Array]:
        def loss(params: Params) -> Array:
            return jnp.mean((graph.merge(params)(*batch[:-1]) - batch[-1]) ** 2)

        error, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, error

    bar = tqdm(range(config.steps), desc=f"training the {what} regressor", unit="step", mininterval=2.0)
    for number in bar:
        params, state, error = step(params, state, *batches(rng))
        if number % 100 == 0 or number == config.steps - 1:
            if not np.isfinite(error):
                raise InputError(f"the {what} regressor's loss is {error} at step {number}: lower its learning_rate")
            bar.set_postfix(rmse=f"{float(error) ** 0.5:.3f}", refresh=False)
    return params


def kept(graph: Graph, folder: Path | None, name: str, make: Callable[[], Params]) -> Params:
    """Parameters that were made before, from `<folder>/<name>.safetensors`, or those made now."""
    if folder is None:
        return make()
    path = folder / f"{name}.safetensors"
    with exclusive(path):
        if not path.exists():
            made = make()
            with atomic(path) as partial:
                weights.save(partial, made)
            return made
    return {name: jnp.asarray(value) for name, value in weights.load(path, graph.shapes).items()}


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Frame:
    """Reads progress off one frame and the instruction; learns when values are first asked of it."""

    name = "frame"

    def __init__(self, config: RegressorConfig, films: Films):
        self.config, self.films = config, films
        self._trained = _digest(3, self.name, asdict(config), asdict(films.augment), films.fingerprint)
        smooth = films.reading.smooth
        self.fingerprint = _digest(self._trained, smooth) if smooth else self._trained
        self._params: Params | None = None
        self._graph = Graph(lambda rngs: FrameNet(films.size, len(films.instructions), rngs=rngs))
        self._predict = jax.jit(lambda params, *given: self._graph.merge(params)(*given))

    def _batch(self, rng: np.random.Generator) -> Batch:
        chosen = [self.films.films[row] for row in rng.integers(len(self.films.films), size=self.config.batch)]
        places = [rng.integers(len(film.frames)) for film in chosen]
        augment = self.films.augment
        frames = np.stack([augmented(film.frames[place], rng, augment) for film, place in zip(chosen, places)])
        progress = np.array([film.progress[place] for film, place in zip(chosen, places)], np.float32)
        return frames, np.array([film.instruction for film in chosen]), progress

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        if self._params is None:
            name = f"{self.name}-{self._trained[:16]}"
            make = partial(fitted, self._graph, self._batch, self.config, self.name)
            self._params = kept(self._graph, self.films.folder, name, make)
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

    def __init__(self, config: RegressorConfig, films: Films):
        super().__init__(config, films)
        self._graph = Graph(lambda rngs: VideoNet(films.size, len(films.instructions), rngs=rngs))
        self._features = jax.jit(lambda params, frames: self._graph.merge(params).pictures(frames))
        self._over = jax.jit(lambda params, *given: self._graph.merge(params).over(*given)[:, -1])

    def _batch(self, rng: np.random.Generator) -> Batch:
        chosen = [self.films.films[row] for row in rng.integers(len(self.films.films), size=self.config.batch)]
        orders = [so_far(rewound(rng, len(film.frames)), CONTEXT) for film in chosen]
        augment = self.films.augment
        frames = np.stack([augmented(film.frames[order], rng, augment) for film, order in zip(chosen, orders)])
        progress = np.stack([film.progress[order] for film, order in zip(chosen, orders)])
        return frames, np.array([film.instruction for film in chosen]), progress

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
        experts: task -> dataset of expert episodes with states and phases.
        folder: where trained networks are kept; None keeps none.
    """

    name = "floor"

    def __init__(self, config: RegressorConfig, experts: Mapping[str, Dataset], folder: Path | None = None):
        self.config, self.experts, self.folder = config, experts, folder
        self.fingerprint = _digest(1, asdict(config), [dataset.fingerprint for dataset in experts.values()])
        self._known: dict[str, Callable[[np.ndarray], np.ndarray]] = {}

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        for index in range(start, len(dataset)):
            episode = dataset[index]
            predict = self._fit(str(dataset.env_args.get("task")))
            yield Values(np.arange(len(episode), dtype=np.int32), predict(_state(dataset, episode)))

    def _fit(self, task: str) -> Callable[[np.ndarray], np.ndarray]:
        if task not in self._known:
            if task not in self.experts:
                raise InputError(f"the floor was not trained on task {task}, only on {', '.join(self.experts)}")
            dataset = self.experts[task]
            episodes = [episode for episode in dataset if episode.success and not len(episode.lapses)]
            states = np.concatenate([_state(dataset, episode) for episode in episodes])
            progress = np.concatenate([np.linspace(0, 1, len(episode), dtype=np.float32) for episode in episodes])
            mean, deviation = states.mean(0), states.std(0) + 1e-3
            graph = Graph(lambda rngs: StateNet(states.shape[1], rngs=rngs))

            def batches(rng: np.random.Generator) -> Batch:
                rows = rng.integers(len(states), size=self.config.batch)
                return (states[rows] - mean) / deviation, progress[rows]

            make = partial(fitted, graph, batches, self.config, f"{task} floor")
            params = kept(graph, self.folder, f"{self.name}-{task}-{self.fingerprint[:16]}", make)
            forward = jax.jit(lambda state: graph.merge(params)(state))
            self._known[task] = lambda rows: np.concatenate(
                [forward(part) for part in _groups((rows - mean) / deviation)]
            )[: len(rows)].astype(np.float32)
        return self._known[task]


def _state(dataset: Dataset, episode: Episode) -> np.ndarray:
    """State and phase of every control step, [T,inputs] f32."""
    if len(episode.phase) != len(episode) or any(key not in episode.obs for key in STATE):
        raise InputError(f"{dataset.path}: episode {episode.index} lacks phase or {', '.join(STATE)}: collect it again")
    return np.concatenate([*(episode.obs[key] for key in STATE), np.eye(PHASES, dtype=np.float32)[episode.phase]], 1)
