"""Do 95 % intervals of few training seeds hold the truth? Simulated: `python -m experiments.coverage`.

Runs succeed at rates that differ by task, training seed and initial state. Counted is how often the intervals of
`wvm_rl.stats` hold what infinitely many seeds would give: of the interquartile mean and its difference from an equal
method, for these initial states; of one task's rate, and of its difference, for other initial states, too. Writes
`experiments/results/coverage.json`, or, of other numbers, a file that they name.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import trim_mean
from tqdm import tqdm

from experiments.cells import RESULTS, named
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json
from wvm_rl.stats import crossed_mean, iqm, iqm_difference, success_interval

TASKS = np.linspace(0.3, 0.9, 6)  # mean rates
TRUTH = 4000  # seeds and initial states that stand for infinitely many


@dataclass
class CoverageConfig:
    """What is simulated."""

    seeds: list[int] = field(default_factory=lambda: [2, 3, 5, 8])  # of training, a task
    rollouts: int = 20  # a seed, from the same initial states
    runs: float = 0.1  # standard deviation of rates over training seeds
    states: float = 0.3  # and over initial states
    repeats: int = 200

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 2 or min(self.rollouts, self.repeats) < 1:
            raise InputError(f"seeds={self.seeds} must be at least 2 each, rollouts and repeats at least 1")
        for name in ("runs", "states"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must be a standard deviation between 0 and 1")


def successes(rng: np.random.Generator, mean: float, runs: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Rollouts [S,I] of training seeds from initial states that shift the mean rate so much."""
    rates = np.clip(mean + runs[:, None] + states, 0, 1)
    return (rng.random(rates.shape) < rates).astype(float)


def held(config: CoverageConfig, seeds: int, bar: tqdm) -> dict[str, float]:
    """Share of the simulated studies whose interval holds the truth."""
    rng = np.random.default_rng(seeds)
    hits: dict[str, list[bool]] = {"iqm": [], "iqm difference": [], "rate": [], "rate difference": []}

    def runs(count: int) -> np.ndarray:
        return config.runs * rng.normal(size=count)

    def states(count: int) -> np.ndarray:
        return config.states * rng.normal(size=count)

    def hit(name: str, interval: Any, truth: float) -> None:
        hits[name].append(bool(interval[-2] <= truth <= interval[-1]))

    middle = float(TASKS[len(TASKS) // 2])
    rate = successes(rng, middle, runs(TRUTH), states(TRUTH)).mean()
    for _ in range(config.repeats):
        shared = [states(config.rollouts) for _ in TASKS]

        def method(count: int, shared: list[np.ndarray] = shared) -> list[np.ndarray]:
            return [successes(rng, mean, runs(count), each) for mean, each in zip(TASKS, shared)]

        ours, theirs = method(seeds), method(seeds)
        hit("iqm", iqm(ours), trim_mean(np.concatenate([grid.mean(1) for grid in method(TRUTH)]), 0.25))
        hit("iqm difference", iqm_difference(ours, theirs), 0.0)
        single = [successes(rng, middle, runs(seeds), shared[0]) for _ in range(2)]
        hit("rate", success_interval(single[0]), rate)
        hit("rate difference", crossed_mean(single[0] - single[1]), 0.0)
        bar.update()
    return {name: float(np.mean(each)) for name, each in hits.items()}


def main(config: CoverageConfig) -> None:
    with tqdm(total=config.repeats * len(config.seeds), desc="coverage", unit="study") as bar:
        results = {seeds: held(config, seeds, bar) for seeds in config.seeds}
    for seeds, found in results.items():
        print(f"{seeds} seeds:", ", ".join(f"{name} {share:.1%}" for name, share in found.items()))
    name = named("coverage", config, "seeds", "rollouts", "runs", "states", "repeats")
    write_json(RESULTS / f"{name}.json", {"results": results, "provenance": provenance()})


if __name__ == "__main__":
    cli.run(main, CoverageConfig, {})
