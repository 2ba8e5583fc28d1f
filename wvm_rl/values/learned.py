"""Training of the regressors, and where what they learned is kept."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from wvm_rl.errors import InputError
from wvm_rl.files import atomic, once
from wvm_rl.model import weights
from wvm_rl.model.layers import Array
from wvm_rl.model.weights import Graph, Params

RELEASED = Path(__file__).parent / "released"
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


@dataclass(frozen=True)
class Shelf:
    """Where parameters are kept: those released with this package, and those trained here.

    Released ones are named by version and settings, so that nobody need collect what they learned from. Those trained
    here are named by their datasets, too: code that collects otherwise makes others.

    Attributes:
        settings: JSON-like, of the data that is learned from.
        datasets: names of its files.
        folder: of those trained here; None keeps none.
        released: folder of those released; None: what was released is trained again.
    """

    settings: Any
    datasets: Sequence[str]
    folder: Path | None = None
    released: Path | None = RELEASED

    def place(self, name: str, version: int, *own: Any) -> tuple[Path | None, str]:
        """File of a regressor, None if it is not kept, and a hash of what its parameters depend on.

        Args:
            version: of how it learns and reads.
            own: JSON-like, its other settings.
        """
        stem = f"{name}-{digest(self.settings, version, *own)[:16]}"
        if self.released and (path := self.released / f"{stem}.safetensors").exists():
            return path, hashlib.sha256(path.read_bytes()).hexdigest()
        trained = digest(stem, list(self.datasets))
        return self.folder and self.folder / f"{stem}-{trained[:8]}.safetensors", trained


def digest(*content: Any) -> str:
    """Hash of JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def kept(graph: Graph, path: Path | None, make: Callable[[], Params]) -> Params:
    """Parameters from a file that `make` fills unless it is there, or without a file those made now."""
    if path is None:
        return make()
    target = path

    def write() -> None:
        made = make()
        with atomic(target) as partial:
            weights.save(partial, made)

    loaded = weights.load(once(path, write), graph.shapes)
    return {name: jnp.asarray(value) for name, value in loaded.items()}


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
