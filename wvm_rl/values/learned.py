"""Training of the regressors, and where what they learned is kept."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from wvm_rl.errors import InputError
from wvm_rl.files import atomic, once
from wvm_rl.fingerprint import fingerprint
from wvm_rl.model import weights
from wvm_rl.model.fit import fit
from wvm_rl.model.layers import Array
from wvm_rl.model.training import Batch, FitConfig, Training
from wvm_rl.model.weights import Graph, Params

RELEASED = Path(__file__).parent / "released"
TRUTH = "progress"  # name of a batch's true values


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
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed} of a regressor must be at least 0 and below 2**32")
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
        folder: of those trained here.
        released: folder of those released; None: what was released is trained again.
    """

    settings: Any
    datasets: Sequence[str]
    folder: Path
    released: Path | None = RELEASED

    def place(self, name: str, version: int, *own: Any) -> tuple[Path, str]:
        """File of a regressor, there or to be trained, and a hash of what its parameters depend on.

        Args:
            version: of how it learns and reads.
            own: JSON-like, its other settings.
        """
        stem = f"{name}-{fingerprint([self.settings, version, *own])[:16]}"
        if self.released and (path := self.released / f"{stem}.safetensors").exists():
            return path, hashlib.sha256(path.read_bytes()).hexdigest()
        trained = fingerprint([stem, list(self.datasets)])
        return self.folder / f"{stem}-{trained[:8]}.safetensors", trained


def kept(graph: Graph, path: Path, make: Callable[[Path], dict[str, Any]]) -> Params:
    """Parameters from a file that `make` fills unless it is there, given a folder for its checkpoints and metrics."""

    def write() -> None:
        work = path.with_suffix("")
        made = make(work)
        with atomic(path) as partial:
            weights.save(partial, made)
        shutil.rmtree(work / "checkpoints")  # its metrics stay

    loaded = weights.load(once(path, write), graph.shapes)
    return {name: jnp.asarray(value) for name, value in loaded.items()}


def fitted(
    graph: Graph, draw: Callable[[np.random.Generator], Batch], config: RegressorConfig, what: str, folder: Path
) -> dict[str, np.ndarray]:
    """Parameters that minimise the squared error of progress.

    Args:
        graph: a module of (named inputs) -> progress.
        draw: a batch, of inputs by name and the true `progress`.
        what: is trained, for the progress bar.
        folder: of checkpoints and metrics; what was begun there goes on.

    Raises:
        InputError: the loss is not finite, or the folder holds another training.
    """

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        given = dict(batch)
        error = jnp.mean((given.pop(TRUTH) - graph.merge(params)(**given)) ** 2)
        return error, {"loss": error, "rmse": jnp.sqrt(error)}

    fitting = FitConfig(
        config.steps,
        config.batch,
        config.learning_rate,
        warmup=max(1, config.steps // 10),
        final=0.01,
        beta2=0.999,
        weight_decay=1e-4,
        average=0,
        save_every=100,
    )
    training = Training(loss, fitting, config.seed)
    start = partial(graph.init, config.seed, training.target)

    def batches(step: int) -> Batch:
        return draw(np.random.default_rng((config.seed, step)))

    return fit(f"{what} regressor", training, start, batches, folder, asdict(config))
