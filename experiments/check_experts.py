"""Measures the scripted experts on fresh seeds: `python -m experiments.check_experts tasks=[lift] episodes=100`.

Prints, for every task, how many first draws succeed and how long they take; writes `experiments/results/experts.json`,
or, of other numbers, a file that they name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from envs.recipes import RECIPES
from envs.tasks import CONTROL_FREQUENCY, EVERY
from envs.workers import Workers, cores
from experiments.cells import RESULTS, named
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json


@dataclass
class CheckConfig:
    """Which experts to measure."""

    tasks: list[str] = field(default_factory=lambda: list(EVERY))
    episodes: int = 100  # a task
    seed: int = 1000  # no dataset uses it

    def __post_init__(self) -> None:
        if not self.tasks or not set(self.tasks) <= set(EVERY):
            raise InputError(f"tasks=[{','.join(self.tasks)}] must name one task or more of {', '.join(EVERY)}")
        for name, least in (("episodes", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} must be at least {least}")


def performer(task: str, seed: int) -> Callable[[int], tuple[bool, int]]:
    """Builds a worker's answer: episode -> (its first draw went as planned, control steps)."""
    from envs.recording import draw
    from envs.simulation import Simulation

    simulation, recipe = Simulation(EVERY[task]()), RECIPES["expert"]()  # type: ignore[call-arg]

    def answer(index: int) -> tuple[bool, int]:
        episode, as_planned = draw(simulation, recipe, seed, index, attempt=0)
        return as_planned, len(episode)

    return answer


def measured(rows: list[tuple[bool, int]]) -> dict[str, Any]:
    """What first draws came to: successes, and their seconds, where there are any."""
    success, steps = np.array(rows).T
    found: dict[str, Any] = {"success": int(success.sum()), "episodes": len(rows)}
    if success.any():
        seconds = steps[success > 0] / CONTROL_FREQUENCY
        found |= {
            "seconds_mean": round(float(seconds.mean()), 2),
            "seconds_cv": round(float(seconds.std() / seconds.mean()), 3),
            "seconds_range": [round(float(seconds.min()), 1), round(float(seconds.max()), 1)],
        }
    return found


def main(config: CheckConfig) -> None:
    results = {}
    for task in config.tasks:
        rows = []
        bar = tqdm(total=config.episodes, desc=task, unit="ep")
        with bar, Workers(performer, (task, config.seed), cores()) as workers:
            for _, row in workers.map(range(config.episodes)):
                rows.append(row)
                bar.update()
        results[task] = measured(rows)
        print(task, results[task])
    name = named("experts", config, "tasks", "episodes", "seed")
    write_json(RESULTS / f"{name}.json", {"results": results, "provenance": provenance()})


if __name__ == "__main__":
    from experiments.check_experts import performer  # workers look functions up by module name, not in `__main__`

    cli.run(main, CheckConfig, {})
