"""Trains named parameters with AdamW: resumable after a kill, to the same bits as an uninterrupted run."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from wvm_rl import checkpoint
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.model.layers import Array
from wvm_rl.model.weights import Params

LOG_EVERY = 20  # steps whose mean is one row of metrics
Batch = dict[str, Any]


@dataclass
class FitConfig:
    """AdamW with warm-up and cosine decay; the paper's betas, clip and decay (Table A.1)."""

    steps: int  # updates
    batch: int  # samples an update
    learning_rate: float  # peak
    warmup: int = 100  # updates
    final: float = 0.1  # learning rate at the end, as a share of the peak
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0  # global norm of the gradient
    average: float = 0.999  # decay of the parameters' running mean, which is what is released
    save_every: int = 500  # updates between two checkpoints, rounded up to whole rows of metrics

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.save_every) < 1 or self.warmup < 0 or self.warmup > self.steps:
            raise InputError(
                f"steps={self.steps}, batch={self.batch}, save_every={self.save_every} must be at least 1 "
                f"and warmup={self.warmup} within the steps"
            )
        if self.learning_rate <= 0 or self.clip <= 0:
            raise InputError(f"learning_rate={self.learning_rate} and clip={self.clip} must be positive")
        for name in ("average", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.final <= 1 or not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"final={self.final} must lie in [0, 1] and weight_decay={self.weight_decay} be 0 or more")


class Metrics:
    """Rows of a JSON-lines file; opened at a step, it forgets what an interrupted run wrote after it."""

    def __init__(self, path: Path, stage: str, step: int):
        self.path, self.stage = path, stage
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = (
            [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
        )
        kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
        with atomic(path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends a row.

        Raises:
            InputError: a value is not finite; training must stop there.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(
                    f"{self.stage}: {name} is {value} at step {step}: training stopped, its last checkpoint is sound; "
                    "lower the learning rate or look at the data"
                )
        with self.path.open("a") as file:
            file.write(json.dumps({"stage": self.stage, "step": step, **values}) + "\n")


def fit(
    stage: str,
    loss: Callable[[Params, Batch, Array], tuple[Array, dict[str, Array]]],
    start: Callable[[], Params],
    batches: Callable[[int], Batch],
    config: FitConfig,
    seed: int,
    folder: Path,
    meta: dict[str, Any],
    check: Callable[[Params], dict[str, float]] | None = None,
) -> dict[str, np.ndarray]:
    """Minimises `loss` and returns the running mean of the parameters.

    Args:
        stage: name in metrics and progress bar.
        loss: (params, batch, key) -> scalar and its parts.
        start: makes the first parameters.
        batches: the batch of a step: a pure function of the step.
        config: optimiser.
        seed: of the noise; the key of a step is a pure function of (seed, step).
        folder: of checkpoints/ and metrics.jsonl.
        meta: what the checkpoints belong to.
        check: measured on the mean parameters at every checkpoint, for the metrics.

    Raises:
        InputError: a foreign checkpoint, or a loss that is not finite.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, config.steps, config.final * config.learning_rate
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, config.beta1, config.beta2, weight_decay=config.weight_decay),
    )
    key = jax.random.key(seed)

    def update(state: dict[str, Any], batch: Batch, step: Array) -> tuple[dict[str, Any], dict[str, Array]]:
        gradient = jax.grad(loss, has_aux=True)
        grads, parts = gradient(state["params"], batch, jax.random.fold_in(key, step))
        updates, optimiser_state = optimiser.update(grads, state["optimiser"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        decay = jnp.minimum(config.average, (1.0 + step) / (10.0 + step))
        mean = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, state["mean"], params)
        parts = {**parts, "gradient_norm": optax.tree.norm(grads)}
        return {"params": params, "mean": mean, "optimiser": optimiser_state}, parts

    params = start()
    fresh = {"params": params, "mean": jax.tree.map(jnp.copy, params), "optimiser": optimiser.init(params)}
    state, done = checkpoint.restore(folder / "checkpoints", fresh, meta) or (fresh, 0)
    metrics = Metrics(folder / "metrics.jsonl", stage, done)
    save_every = math.ceil(config.save_every / LOG_EVERY) * LOG_EVERY
    jitted = jax.jit(update, donate_argnums=0)
    rows, since = [], time.monotonic()
    bar = tqdm(range(done, config.steps), desc=stage, initial=done, total=config.steps, unit="step", mininterval=2.0)
    for step in bar:
        state, parts = jitted(state, batches(step), jnp.asarray(step, jnp.int32))
        rows.append(parts)
        last = step + 1 == config.steps
        if len(rows) == LOG_EVERY or last:
            means = {name: float(np.mean([float(row[name]) for row in rows])) for name in ["loss", *rows[0]]}
            rate = len(rows) * config.batch / (time.monotonic() - since)
            if (step + 1) % save_every == 0 or last:
                means |= check(state["mean"]) if check else {}
            metrics.add(step + 1, {**means, "learning_rate": float(schedule(step)), "samples_per_second": rate})
            bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            rows, since = [], time.monotonic()
        if (step + 1) % save_every == 0 or last:
            checkpoint.save(folder / "checkpoints", step + 1, state, meta)
    return jax.tree.map(np.asarray, state["mean"])
