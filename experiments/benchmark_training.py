"""Speed of policy training beside a plain PyTorch loop on this CPU: `python -m experiments.benchmark_training`.

Same flow policy, weights at the start, batch, data, optimiser, schedule and averaging; f32, all cores; intervals of
the two take turns. Then several policies in one program, one after the other (`map`) and at once (`vmap`), beside one
alone. Needs PyTorch (requirements-text.txt). Writes `experiments/results/training_speed.json`, or, of other settings, a
file that names them; timings are only comparable within a run.
"""

import copy
import time
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from agents.base import Columns
from agents.chunks import Data, Statistics
from agents.policies.base import Batch
from agents.policies.flow import FREQUENCIES, FlowConfig
from agents.trainer import TrainerConfig, train
from experiments.benchmark_wan import matmul_peak
from experiments.cells import RESULTS, named
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json

STEPS, EPISODE, OBS, ACTION = 40_000, 400, 32, 7  # control steps of the data and of an episode; sizes


@dataclass
class BenchmarkConfig:
    """How often to measure."""

    intervals: int = 8  # of each, after one to warm up
    updates: int = 250  # an interval
    policies: list[int] = field(default_factory=lambda: [2, 8, 24])  # in one program
    seed: int = 0

    def __post_init__(self) -> None:
        if self.intervals < 3 or self.updates < 1:
            raise InputError(f"intervals={self.intervals} must be at least 3 and updates={self.updates} at least 1")


def torch_library() -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError("torch is missing: pip install torch==2.13.0") from error
    return torch


def made_up(seed: int) -> tuple[Data, Statistics]:
    """Episodes of random numbers, as large as a task's."""
    rng = np.random.default_rng(seed)
    end = np.arange(STEPS) // EPISODE * EPISODE + EPISODE - 1
    obs, actions = (jnp.asarray(rng.standard_normal((STEPS, size)), jnp.float32) for size in (OBS, ACTION))
    ones = [np.ones(size, np.float32) for size in (OBS, ACTION)]
    data = Data(obs, actions, jnp.asarray(end, jnp.int32))
    return data, Statistics(0 * ones[0], ones[0], 0 * ones[1], ones[1])


class TorchLoop:
    """The training loop as one would write it in PyTorch.

    Args:
        params: of our policy, from which it starts.
    """

    def __init__(self, policy: FlowConfig, params: Any, data: Data, weight: np.ndarray, config: TrainerConfig):
        self.torch = torch = torch_library()
        self.policy, self.config = policy, config
        self.data = [torch.from_numpy(np.array(array)) for array in (data.obs, data.actions, data.end)]
        self.weight = torch.from_numpy(weight)
        self.params = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)).requires_grad_(), params)
        self.leaves = jax.tree.leaves(self.params)
        self.average = [leaf.detach().clone() for leaf in self.leaves]
        self.optimiser = torch.optim.AdamW(
            self.leaves, config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        parts = [
            torch.optim.lr_scheduler.LinearLR(self.optimiser, 1e-3, total_iters=config.warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, config.updates - config.warmup),
        ]
        self.schedule = torch.optim.lr_scheduler.SequentialLR(self.optimiser, parts, [config.warmup])
        self.step = 0

    def velocity(self, y: Any, tau: Any, obs: Any) -> Any:
        torch, params = self.torch, self.params
        angle = tau * torch.from_numpy(np.geomspace(1.0, 100.0, FREQUENCIES).astype(np.float32))
        x = torch.cat([y.flatten(1), angle.sin(), angle.cos(), obs], -1)
        h = _linear(params["inner"], x)
        for block in params["blocks"]:
            inner = torch.nn.functional.silu(_linear(block["up"], _norm(block["scale"], h)))
            h = h + _linear(block["down"], inner)
        return _linear(params["outer"], _norm(params["scale"], h)).reshape(y.shape)

    def loss(self, obs: Any, y: Any, valid: Any, eps: Any, tau: Any) -> Any:
        """Of each sample, [B]; as `FlowConfig.loss`."""
        noised = tau[..., None] * y + (1 - tau[..., None]) * eps
        error = (self.velocity(noised, tau, obs) - (y - eps)) ** 2
        return (error.mean(-1) * valid).sum(-1) / valid.sum(-1)

    def run(self, updates: int) -> float:
        """Updates; returns their seconds."""
        torch, config = self.torch, self.config
        obs, actions, end = self.data
        start = time.perf_counter()
        for _ in range(updates):
            index = torch.randint(len(obs), (config.batch,))
            steps = index[:, None] + torch.arange(self.policy.horizon)
            last = end[index][:, None]
            y, valid = actions[torch.minimum(steps, last)], (steps <= last).float()
            eps, tau, weight = torch.randn_like(y), torch.rand(config.batch, 1), self.weight[index]
            loss = (weight * self.loss(obs[index], y, valid, eps, tau)).sum() / (weight.sum() + 1e-6)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.leaves, config.clip)
            self.optimiser.step()
            self.schedule.step()
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [leaf.detach() for leaf in self.leaves], 1 - decay)
            self.step += 1
        return time.perf_counter() - start


def _linear(layer: Any, x: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"]


def _norm(scale: Any, x: Any) -> Any:
    x = x - x.mean(-1, keepdim=True)
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * scale


def difference(policy: FlowConfig, loop: TorchLoop, params: Any, data: Data, seed: int) -> float:
    """Largest relative difference of a sample's loss between the two, on random weights and the same noise."""
    rng = jax.random.key(seed)
    lively = jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(rng, leaf.shape), params)
    own = copy.copy(loop)
    own.params = jax.tree.map(lambda leaf: loop.torch.tensor(np.array(leaf)), lively)
    obs, y = data.obs[:64], data.actions[: 64 * policy.horizon].reshape(64, policy.horizon, -1)
    valid = jnp.ones(y.shape[:2])
    ours = np.asarray(policy.loss(lively, Batch(obs, y, valid), rng))
    draws = jax.random.split(rng)
    eps, tau = jax.random.normal(draws[0], y.shape), jax.random.uniform(draws[1], (64, 1))
    theirs = own.loss(*(loop.torch.from_numpy(np.array(each)) for each in (obs, y, valid, eps, tau))).numpy()
    return float(np.abs(ours / theirs - 1).max())


def ours(
    policy: FlowConfig,
    data: Data,
    statistics: Statistics,
    config: TrainerConfig,
    count: int,
    weight: np.ndarray,
    **turn: Any,
) -> tuple[np.ndarray, float]:
    """Updates a second of `count` policies in each interval but the first, and seconds until it began."""
    speeds: list[float] = []
    start, began = time.perf_counter(), [0.0]

    def on_metrics(rows: list[dict[str, float]]) -> None:
        if not speeds:
            began[0] = time.perf_counter() - start - count * config.interval / rows[0]["updates_per_second"]
        speeds.append(rows[0]["updates_per_second"])
        if "between" in turn:
            turn["between"]()

    columns = [Columns(weight)] * count
    train(policy, data, statistics, columns, config, range(count), on_metrics=on_metrics, progress=False)
    return np.array(speeds[1:]), began[0]


def main(config: BenchmarkConfig) -> None:
    torch = torch_library()
    policy = FlowConfig()
    data, statistics = made_up(config.seed)
    weight = np.random.default_rng(config.seed).uniform(0, 2, STEPS).astype(np.float32)
    updates = config.updates * (1 + config.intervals)
    trainer = replace(TrainerConfig(), updates=updates, interval=config.updates)
    params = policy.init(jax.random.key(config.seed), data.spec)
    loop = TorchLoop(policy, params, data, weight, trainer)
    apart = difference(policy, loop, params, data, config.seed)
    seconds: list[float] = []
    one, compiling = ours(
        policy, data, statistics, trainer, 1, weight, between=lambda: seconds.append(loop.run(config.updates))
    )
    theirs = config.updates / np.array(seconds[1:])
    kernels = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    peak = matmul_peak()
    share = 6 * kernels * trainer.batch * float(np.median(one)) / peak
    ratio = one / theirs
    rows: list[dict[str, Any]] = [
        {"what": "PyTorch, one policy", "updates_per_second": float(np.median(theirs)), "times": 1.0},
        {
            "what": "one policy",
            "updates_per_second": float(np.median(one)),
            "times": float(np.median(ratio)),
            "quartiles": np.quantile(ratio, [0.25, 0.75]).tolist(),
            "compile_seconds": compiling,
            "share_of_peak": share,
        },
    ]
    for count in config.policies:
        for batching in ("map", "vmap"):
            many, compiling = ours(policy, data, statistics, replace(trainer, batching=batching), count, weight)
            again, _ = ours(policy, data, statistics, trainer, 1, weight)  # beside it: machines change their pace
            rows.append(
                {
                    "what": f"{count} policies, {batching}",
                    "updates_per_second": float(np.median(many)),
                    "times_one_alone": float(np.median(many) / np.median(again)),
                    "compile_seconds": compiling,
                }
            )
    table = Table(title=f"policy training, updates a second of all policies; matmul peak {peak / 1e9:.0f} GFLOP/s")
    for column in ("what", "updates/s", "times PyTorch", "per policy, times one alone", "compile s"):
        table.add_column(column)
    for row in rows:
        compared = (f"{row[name]:.2f}" if name in row else "" for name in ("times", "times_one_alone"))
        compiled = f"{row['compile_seconds']:.1f}" if "compile_seconds" in row else ""
        table.add_row(row["what"], f"{row['updates_per_second']:.0f}", *compared, compiled)
    Console(width=140).print(table)
    print(f"one policy: {share:.0%} of the matmul peak; losses of the two differ by at most {apart:.1e} of a sample's")
    content = {"rows": rows, "matmul_peak": peak, "loss_difference": apart, "config": vars(config)}
    target = RESULTS / f"{named('training_speed', config, 'intervals', 'updates', 'policies', 'seed')}.json"
    write_json(target, content | {"provenance": provenance() | {"torch": torch.__version__}})


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig, {})
