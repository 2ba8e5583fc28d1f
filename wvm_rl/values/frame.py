"""A per-frame regressor: the baseline that sees one picture and no time.

A small convolutional network from one frame and the instruction to the expert's progress t / (T-1). Trained on the
same expert episodes as the critic that it stands beside. Where progress can be read off one picture it is hard to
beat; where two moments look alike (before and after the release) it cannot tell them apart.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.values.base import Values

WIDTHS = (24, 48, 64, 96)  # channels after each halving of the picture
HIDDEN = 128
BATCH_OUT = 64  # frames valued at once
Params = dict[str, jax.Array]


@dataclass
class FrameConfig:
    """Training of the per-frame regressor."""

    steps: int = 1500  # optimiser steps, about three minutes of two cores
    batch: int = 128  # frames a step
    learning_rate: float = 1e-3  # peak of a cosine, after a tenth of the steps
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 10), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"frame.{name}={getattr(self, name)} must be at least {least}")
        if self.learning_rate <= 0:
            raise InputError(f"frame.learning_rate={self.learning_rate} must be positive")


class Frame:
    """The regressor as value source; it learns from the expert datasets when values are first asked of it.

    Args:
        experts: datasets of expert episodes, frames of the same camera and size.
    """

    name = "frame"

    def __init__(self, config: FrameConfig, experts: Sequence[Dataset], camera: str):
        self.config, self.experts, self.camera = config, experts, camera
        content = [1, asdict(config), camera, [dataset.fingerprint for dataset in experts]]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        self._params: Params | None = None
        self._instructions: list[str] = []
        self._predict = jax.jit(predict)

    def fit(self) -> None:
        """Trains the network on every frame of the experts' episodes."""
        frames, progress, instruction = self._examples()
        rng = np.random.default_rng(self.config.seed)
        params: Any = init(rng, frames.shape[1], len(self._instructions))
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, self.config.learning_rate, max(1, self.config.steps // 10), self.config.steps
        )
        optimiser = optax.adam(schedule)
        state = jax.jit(optimiser.init)(params)

        @jax.jit
        def step(params: Params, state: Any, *batch: jax.Array) -> tuple[Params, Any, jax.Array]:
            error, gradient = jax.value_and_grad(loss)(params, *batch)
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(params, updates), state, error

        bar = tqdm(range(self.config.steps), desc="training the per-frame regressor", unit="step")
        for number in bar:
            rows = rng.integers(len(frames), size=self.config.batch)
            params, state, error = step(params, state, frames[rows], instruction[rows], progress[rows])
            if number % 100 == 0 or number == self.config.steps - 1:
                if not np.isfinite(error):
                    raise FloatingPointError(f"the per-frame regressor's loss is {error} at step {number}")
                bar.set_postfix(rmse=f"{float(error) ** 0.5:.3f}", refresh=False)
        self._params = params

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        if self._params is None:
            self.fit()
        for index in range(start, len(dataset)):
            frames, step = dataset.frames(index, self.camera)
            sentence = dataset[index].instruction
            if sentence not in self._instructions:
                raise InputError(f"{dataset.path}: the per-frame regressor was not trained on `{sentence}`")
            row = self._instructions.index(sentence)
            yield Values(step, self._value(frames, row))

    def _value(self, frames: np.ndarray, instruction: int) -> np.ndarray:
        padded = np.zeros((-(-len(frames) // BATCH_OUT) * BATCH_OUT, *frames.shape[1:]), np.uint8)
        padded[: len(frames)] = frames
        rows = np.full(BATCH_OUT, instruction)
        parts = [self._predict(self._params, part, rows) for part in padded.reshape(-1, BATCH_OUT, *frames.shape[1:])]
        return np.concatenate(parts)[: len(frames)].astype(np.float32)

    def _examples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames [N,S,S,3] u8, progress [N] f32 and instruction [N] of all experts' successful episodes."""
        frames, progress, instruction = [], [], []
        for dataset in self.experts:
            for episode in dataset:
                if episode.quality != "expert" or not episode.success:
                    raise InputError(
                        f"{dataset.path}: episode {episode.index} is no expert's success: use recipe=expert"
                    )
                images, step = dataset.frames(episode.index, self.camera)
                if episode.instruction not in self._instructions:
                    self._instructions.append(episode.instruction)
                frames.append(images)
                progress.append((step / max(len(episode) - 1, 1)).astype(np.float32))
                instruction.append(np.full(len(step), self._instructions.index(episode.instruction)))
        return np.concatenate(frames), np.concatenate(progress), np.concatenate(instruction)


def init(rng: np.random.Generator, size: int, instructions: int) -> dict[str, np.ndarray]:
    """He-normal weights for frames [S,S,3] and a number of instructions."""

    def normal(scale: float, *shape: int) -> np.ndarray:
        return (np.sqrt(scale) * rng.standard_normal(shape)).astype(np.float32)

    params, channels = {}, 3
    for layer, width in enumerate(WIDTHS):
        params[f"conv{layer}"] = normal(2 / (9 * channels), 3, 3, channels, width)
        params[f"shift{layer}"] = np.zeros(width, np.float32)
        channels, size = width, -(-size // 2)
    inputs = size * size * channels
    params["hidden"] = normal(2 / inputs, inputs, HIDDEN)
    params["instruction"] = normal(0.01, instructions, HIDDEN)
    params["out"] = normal(1 / HIDDEN, HIDDEN)
    params["bias"] = np.zeros((), np.float32)
    return params


def predict(params: Params, frames: jax.Array, instruction: jax.Array) -> jax.Array:
    """Progress [B] in (0,1) of frames [B,S,S,3] u8 under instructions [B]."""
    x = frames.astype(jnp.float32) / 127.5 - 1
    for layer in range(len(WIDTHS)):
        x = jax.lax.conv_general_dilated(
            x, params[f"conv{layer}"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + params[f"shift{layer}"])
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["hidden"] + params["instruction"][instruction])
    return jax.nn.sigmoid(x @ params["out"] + params["bias"])


def loss(params: Params, frames: jax.Array, instruction: jax.Array, progress: jax.Array) -> jax.Array:
    """Mean squared error of progress."""
    return jnp.mean((predict(params, frames, instruction) - progress) ** 2)
