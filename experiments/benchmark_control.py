"""Speed of the physics beside robosuite's own step: `python -m experiments.benchmark_control`.

The same random actions from the same start through `envs.simulation.Simulation.step`, which gives robosuite's
states bit for bit (`tests/test_control.py`), and through robosuite's `env.step`, in turns, one process. Observations
are read in both, nothing is drawn. Writes `experiments/results/control_speed.json`, other settings a file of their own;
timings are only comparable within a run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from envs.simulation import Simulation
from envs.tasks import EVERY
from envs.workers import cores
from experiments.benchmark_wvm import measured
from experiments.cells import RESULTS, named
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json


@dataclass
class BenchmarkConfig:
    """What to measure, and how often."""

    tasks: list[str] = field(default_factory=lambda: ["lift", "can", "stack"])
    steps: int = 200  # of control, a turn
    repeats: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in EVERY]:
            raise InputError(f"tasks has unknown {', '.join(unknown)}: choose from {', '.join(EVERY)}")
        if self.repeats < 3 or self.steps < 1 or not self.tasks:
            raise InputError(f"repeats={self.repeats} must be at least 3, steps at least 1, tasks at least one")


def stepping(task: str, config: BenchmarkConfig) -> dict[str, Callable[[], Any]]:
    """Both ways to take the steps; a turn goes on where the last one ended."""
    tasks: dict[str, Any] = EVERY
    ours = Simulation(tasks[task]())
    ours.reset(config.seed)
    theirs = Simulation(tasks[task]())
    theirs.restore(ours.model_file, ours.state)
    actions = np.random.default_rng(config.seed).uniform(-1, 1, (config.steps, 7))

    def take(step: Callable[[np.ndarray], Any]) -> None:
        for action in actions:
            step(action)

    return {f"{task}, here": partial(take, ours.step), f"{task}, robosuite": partial(take, theirs._env.step)}


def main(config: BenchmarkConfig) -> None:
    """Measures, prints and writes."""
    rows, table = {}, Table("task", "steps/s here", "robosuite's", "times", title="control steps on this machine")
    for task in config.tasks:
        here, there = (config.steps / seconds for seconds in measured(stepping(task, config), config.repeats).values())
        rows[task] = {"steps_per_second": here, "robosuites": there, "times_as_fast": here / there}
        table.add_row(task, f"{here:.0f}", f"{there:.0f}", f"{here / there:.2f}")
    Console().print(table)
    target = RESULTS / f"{named('control_speed', config, 'tasks', 'steps', 'repeats', 'seed')}.json"
    write_json(target, {"tasks": rows, "provenance": provenance() | {"cores": cores()}})


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig, {})
