"""Runs a training: resumable after a kill, to the same bits as an uninterrupted run."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from wvm_rl import checkpoint, sharding
from wvm_rl.errors import InputError
from wvm_rl.files import forget
from wvm_rl.model.training import Batch, Training
from wvm_rl.model.weights import Params

LOG_EVERY = 20  # steps whose mean is one row of metrics


class Metrics:
    """Rows of a JSON-lines file; opened at a step, it forgets what an interrupted run wrote after it."""

    def __init__(self, path: Path, stage: str, step: int):
        self.path, self.stage = path, stage
        path.parent.mkdir(parents=True, exist_ok=True)
        if sharding.is_first():
            forget(path, stage, step + 1)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends a row.

        Raises:
            InputError: a value is not finite; training must stop there.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(
                    f"{self.stage}: {name} is {value} at step {step}: training stopped, what was saved is sound; "
                    "lower the learning rate or look at the data"
                )
        if sharding.is_first():
            with self.path.open("a") as file:
                file.write(json.dumps({"stage": self.stage, "step": step, **values}) + "\n")


def fit(
    stage: str,
    training: Training,
    start: Callable[[], Params],
    batches: Callable[[int], Batch],
    folder: Path,
    meta: dict[str, Any],
    check: Callable[[Params], dict[str, float]] | None = None,
    trains: Callable[[str], bool] = lambda name: True,
) -> dict[str, np.ndarray]:
    """Runs a training and returns all parameters: of those that trained their running mean, if there is one.

    Args:
        stage: name in metrics and progress bar.
        training: the update.
        start: makes the first parameters, laid out as `training.target` says.
        batches: the batch of a step: a pure function of the step, the same in every process.
        folder: of checkpoints/ and metrics.jsonl.
        meta: what the checkpoints belong to.
        check: measured on the mean parameters at every checkpoint, for the metrics.
        trains: whether the parameter of a name trains; the others stay and are in no checkpoint.

    Raises:
        InputError: a foreign checkpoint, or a loss that is not finite.
    """
    config = training.config
    params = start()
    frozen = {name: params[name] for name in params if not trains(name)}
    params = {name: params[name] for name in params if trains(name)}
    update = training.compiled(params)
    restored = checkpoint.restore(folder / "checkpoints", training.abstract(params), meta)
    state, done = restored or (training.start(params), 0)
    del params  # no longer valid, or not needed
    metrics = Metrics(folder / "metrics.jsonl", stage, done)
    save_every = math.ceil(config.save_every / LOG_EVERY) * LOG_EVERY
    rows, since = [], time.monotonic()
    bar = tqdm(
        range(done, config.steps),
        desc=stage,
        initial=done,
        total=config.steps,
        unit="step",
        mininterval=2.0,
        disable=not sharding.is_first(),
    )
    with jax.set_mesh(training.mesh):
        for step in bar:
            state, parts = update(state, frozen, training.place(batches(step)), jnp.asarray(step, jnp.int32))
            rows.append(parts)
            last = step + 1 == config.steps
            saves = (step + 1) % save_every == 0 or last
            if len(rows) == LOG_EVERY or last:
                means = {name: float(np.mean([float(row[name]) for row in rows])) for name in ["loss", *rows[0]]}
                rate = len(rows) * config.batch / (time.monotonic() - since)
                if saves and check:
                    means |= check(frozen | state.get("mean", state["params"]))
                rate_now = float(training.schedule(step))
                metrics.add(step + 1, {**means, "learning_rate": rate_now, "samples_per_second": rate})
                bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
                rows, since = [], time.monotonic()
            if saves:
                checkpoint.save(folder / "checkpoints", step + 1, state, meta)
    return {name: sharding.whole(array) for name, array in (frozen | state.get("mean", state["params"])).items()}
