"""Trains a policy on weighted samples: data on the device, hundreds of updates per call, exact resume, many seeds."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from agents.base import Columns, fitting
from agents.chunks import Data, Statistics, gather
from agents.policies.base import Batch, Constant, Params, PolicyConfig, Spec, weighted_mean
from wvm_rl import checkpoint
from wvm_rl.errors import InputError
from wvm_rl.fingerprint import fingerprint_of_arrays

SEEDS = 2**32  # those of random keys are below
BATCHINGS = ("auto", "vmap", "map")


@dataclass
class TrainerConfig:
    """How a policy is trained."""

    updates: int = 6_000  # gradient updates; about 40 s for the flow policy on two cores
    batch: int = 256  # samples an update
    learning_rate: float = 3e-3  # peak of the schedule: linear warm-up, then cosine to 0
    warmup: int = 250  # updates of warm-up
    weight_decay: float = 1e-4  # AdamW
    clip: float = 1.0  # largest global norm of the gradient
    ema: float = 0.999  # decay of the averaged weights that act; shorter at the start
    interval: int = 250  # updates a compiled call, and between two logged metrics
    save_every: int = 1500  # updates between two checkpoints, rounded up to whole intervals
    # Several seeds: vmap (at once) | map (one by one, each as alone, to rounding) | auto (map on CPU, else vmap: on two
    # cores it had only 2 and 4 % more updates a second for 2 and 8 seeds).
    batching: str = "auto"

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "interval", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} of the trainer must be at least 1")
        for name in ("warmup", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)} of the trainer must be 0 or more")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)} of the trainer must be above 0")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema={self.ema} of the trainer must be at least 0, for the last weights, and below 1")
        if self.batching not in BATCHINGS:
            raise InputError(f"batching={self.batching} of the trainer is unknown: choose {', '.join(BATCHINGS)}")


class Trained(NamedTuple):
    """A trained policy: averaged weights with a leading axis over `seeds`, and the statistics to act with."""

    params: Params
    statistics: Statistics
    seeds: tuple[int, ...]

    def seed(self, index: int) -> Params:
        """Weights of the seed at position `index`."""
        return jax.tree.map(lambda leaf: leaf[index], self.params)

    def part(self, seeds: slice) -> "Trained":
        """Those of the seeds at these positions."""
        return Trained(jax.tree.map(lambda leaf: leaf[seeds], self.params), self.statistics, self.seeds[seeds])


def train(
    policy: PolicyConfig,
    data: Data,
    statistics: Statistics,
    columns: Sequence[Columns],
    config: TrainerConfig,
    seeds: Sequence[int],
    folder: Path | str | None = None,
    on_metrics: Callable[[list[dict[str, float]]], None] | None = None,
    progress: bool = True,
) -> Trained:
    """Minimises the weighted loss of Eq. E.5 from each seed.

    Weights are data: policies of several methods train in one program, as long as their conditions are of one size,
    or none has any.

    Args:
        columns: weights and conditions, one a seed.
        seeds: of each policy; those of different columns may be equal.
        folder: where checkpoints go; training resumes there, bit for bit. None saves nothing.
        on_metrics: called after every interval with, for each seed, `step`, `loss, grad_norm, ess_fraction,
            learning_rate` averaged over the interval, and `updates_per_second` (all seeds together, compilation apart).

    Raises:
        InputError: columns that do not fit the data, a foreign checkpoint, or a loss that is not finite.
    """
    if not seeds or not all(0 <= seed < SEEDS for seed in seeds):
        raise InputError(f"seeds={list(seeds)} must be numbers between 0 and 2**32 - 1, at least one")
    if len(columns) != len(seeds):
        raise InputError(f"columns of {len(columns)} seeds do not fit {len(seeds)} seeds: give one a seed")
    fitted = [fitting(each, len(data.end)) for each in columns]
    if len({None if each.cond is None else each.cond.shape[1] for each in fitted}) > 1:
        raise InputError(
            "policies whose conditions differ in size are different programs: train them apart (a sweep: together=1)"
        )
    if data.step is not None and not all(each.weight[np.asarray(data.step)].any() for each in fitted):
        raise InputError("the method keeps no sample that has a picture: choose another threshold, or a higher obs.fps")
    weight, cond, hidden = jax.tree.map(lambda *each: jnp.asarray(np.stack(each), jnp.float32), *fitted)
    spec = data.spec._replace(cond=0 if cond is None else cond.shape[2])
    trainer = _trainer(Constant(policy), Constant(config), spec)
    keys = jnp.asarray(seeds, jnp.uint32)
    abstract = jax.eval_shape(trainer.init, keys)
    stored = {"state": abstract, "statistics": statistics}
    meta = {
        "policy": {"name": type(policy).__name__, **dataclasses.asdict(policy)},
        "trainer": dataclasses.asdict(config),
        "seeds": list(seeds),
        "data": fingerprint_of_arrays(jax.tree.leaves((data, weight, cond, hidden))),
    }
    found = checkpoint.restore(folder, stored, meta) if folder is not None else None
    state, step = (found[0]["state"], found[1]) if found else (trainer.init(keys), 0)
    with tqdm(total=config.updates, initial=step, desc="policy", unit="update", disable=not progress) as bar:
        while step < config.updates:
            count = min(config.interval, config.updates - step)
            run = trainer.compiled(count, state, keys, data, weight, cond, hidden)
            start = time.perf_counter()
            state, traces = run(state, keys, data, weight, cond, hidden)
            metrics = _means(traces, step, seeds)
            speed = len(seeds) * count / (time.perf_counter() - start)
            due = step // config.save_every != (step + count) // config.save_every
            step += count
            bar.update(count)
            bar.set_postfix(loss=f"{np.mean([each['loss'] for each in metrics]):.4f}")
            if on_metrics:  # before the checkpoint: what it already holds is not done, nor logged, again
                on_metrics([{"step": step, **each, "updates_per_second": speed} for each in metrics])
            if folder is not None and (due or step == config.updates):
                checkpoint.save(folder, step, {"state": state, "statistics": statistics}, meta)
    return Trained(state["ema"], statistics, tuple(seeds))


def draw(seed: Any, step: Any, count: int, batch: int) -> tuple[Any, Any]:
    """Sample indices [batch] and the loss's random key: a pure function of (seed, step)."""
    index, rng = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    return jax.random.randint(index, (batch,), 0, count), rng


@cache
def _trainer(policy: Constant, config: Constant, spec: Spec) -> "_Trainer":
    return _Trainer(policy.config, config.config, spec)


class _Trainer:
    """The pure functions of one training: `init` and `run`, batched over seeds."""

    def __init__(self, policy: PolicyConfig, config: TrainerConfig, spec: Spec):
        self.policy, self.config, self.spec = policy, config, spec
        warmup = min(config.warmup, config.updates // 2)
        self.schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.updates)
        self.optimiser = optax.chain(
            optax.clip_by_global_norm(config.clip),
            optax.adamw(self.schedule, weight_decay=config.weight_decay),
        )
        on_cpu = jax.default_backend() == "cpu"
        self.batching = ("map" if on_cpu else "vmap") if config.batching == "auto" else config.batching
        self._programs: dict[Any, Any] = {}

    def init(self, seeds: Any) -> Any:
        """State at step 0, every leaf with a leading axis over seeds [S]."""

        def one(seed: Any) -> Any:
            params = self.policy.init(jax.random.fold_in(jax.random.key(seed), 2**32 - 1), self.spec)
            if self.spec.cond and jnp.shape(params.get("cond", 0)) != (self.spec.cond,):  # by which acting knows it
                raise InputError(f"{type(self.policy).__name__}.init must return `cond` of spec.cond={self.spec.cond}")
            ema = jax.tree.map(jnp.copy, params)  # a buffer of its own: the state is donated
            return {"params": params, "ema": ema, "optimiser": self.optimiser.init(params), "step": jnp.int32(0)}

        return jax.jit(jax.vmap(one))(seeds)

    def compiled(self, count: int, *args: Any) -> Any:
        """`count` updates of all seeds as one compiled program that reuses the state's memory.

        Threefry gives two random numbers a hash here, not one as for arrays that span devices: half the hashes.
        """
        key = (count, str(jax.tree.map(jnp.shape, args)))
        if key not in self._programs:
            with jax.threefry_partitionable(False):
                run = jax.jit(partial(self.run, count), donate_argnums=0)
                self._programs[key] = run.lower(*args).compile()
        return self._programs[key]

    def run(
        self, count: int, state: Any, seeds: Any, data: Data, weight: Any, cond: Any, hidden: Any
    ) -> tuple[Any, Any]:
        """`count` updates of every seed: (state, traces [S, count])."""

        def one(row: Any) -> tuple[Any, Any]:
            state, seed, *columns = row
            return jax.lax.scan(partial(self.update, seed, data, Columns(*columns)), state, length=count)

        rows = state, seeds, weight, cond, hidden
        return jax.vmap(one)(rows) if self.batching == "vmap" else jax.lax.map(one, rows)

    def update(self, seed: Any, data: Data, columns: Columns, state: Any, _: None) -> tuple[Any, Any]:
        """One gradient update of one seed."""
        row, rng = draw(seed, state["step"], data.samples, self.config.batch)
        obs, index = data.sample(row)
        actions, valid = gather(data, index, self.policy.horizon)
        cond = known = None
        if columns.cond is not None:
            cond = columns.cond[index]
            rng, mask = jax.random.split(rng)
            known = jax.random.bernoulli(mask, 1 - columns.hidden, (len(index),)).astype(jnp.float32)
        batch = Batch(obs, actions, valid, cond, known)
        w = columns.weight[index]
        loss, gradient = jax.value_and_grad(lambda p: weighted_mean(w, self.policy.loss(p, batch, rng)))(
            state["params"]
        )
        change, optimiser = self.optimiser.update(gradient, state["optimiser"], state["params"])
        params = optax.apply_updates(state["params"], change)
        step = state["step"]
        decay = jnp.minimum(self.config.ema, (1.0 + step) / (10.0 + step))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state["ema"], params)
        trace = {
            "loss": loss,
            "grad_norm": optax.tree.norm(gradient),
            "ess_fraction": jnp.sum(w) ** 2 / (len(w) * jnp.sum(w * w) + 1e-6),
            "learning_rate": self.schedule(step),
        }
        return {"params": params, "ema": ema, "optimiser": optimiser, "step": step + 1}, trace


def _means(traces: dict[str, Any], step: int, seeds: Sequence[int]) -> list[dict[str, float]]:
    """Means over an interval for each seed; stops at the first number that is not finite."""
    traces = {name: np.asarray(trace) for name, trace in traces.items()}
    broken = ~np.isfinite(traces["loss"]) | ~np.isfinite(traces["grad_norm"])
    if broken.any():
        update = int(np.argmax(broken.any(0)))
        policy = int(np.argmax(broken[:, update]))
        which = f"seed {seeds[policy]}, policy {policy + 1} of {len(seeds)}"
        raise InputError(
            f"training stopped at update {step + update + 1} ({which}): the loss is not finite; "
            "lower the learning rate or look for outliers in the data"
        )
    return [{name: float(trace[index].mean()) for name, trace in traces.items()} for index in range(len(seeds))]
