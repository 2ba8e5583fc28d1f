"""Rolls out the policies of a finished run again: `python -m wvm_rl.evaluate run=<folder> evaluation.rollouts=100`.

From more initial states, or, `evaluation.seed=1`, from others; with films (`evaluation.videos=3`) or as a dataset
(`evaluation.keep=20`). What comes of it lies in `<run>/evaluations/<rollouts>-seed<seed>/`: `episodes.parquet` and
`summary.json`, as of the run itself.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import MISSING

from agents.saved import load
from envs.simulation import Simulation
from wvm_rl import cli
from wvm_rl.config import EvaluationConfig
from wvm_rl.errors import InputError
from wvm_rl.evaluation import evaluate, initial_states
from wvm_rl.files import exclusive
from wvm_rl.films import as_episodes, check_films, films
from wvm_rl.provenance import provenance
from wvm_rl.runs import read_summary, show, write_json, write_rows
from wvm_rl.summary import outcome, restored


@dataclass
class EvaluateConfig:
    """Rolls out the policies of a finished run again."""

    run: str = MISSING  # its folder
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def main(config: EvaluateConfig) -> None:
    """Runs what is missing, or shows what is there.

    Raises:
        InputError: no finished run, or one of other code; what `wvm_rl.train` refuses of rollouts and films.
    """
    run, evaluation = Path(config.run).expanduser(), config.evaluation
    summary = read_summary(run)
    if summary is None:
        raise InputError(f"run={run} holds no finished run: give the folder of one, with its summary.json")
    saved, settings = load(run), replace(restored(run), evaluation=evaluation)
    folder = run / "evaluations" / f"{evaluation.rollouts}-seed{evaluation.seed}"
    with exclusive(folder):
        found = read_summary(folder)
        if not found or evaluation.videos > found["videos"] or evaluation.keep > found["keep"]:
            source = settings.value.source() if evaluation.videos else None
            if source:
                check_films(source, initial_states(settings))
            start, unfinished = time.perf_counter(), folder / "rollouts.jsonl"
            rows, recordings = evaluate(settings, saved.trained, saved.asked, {0}, unfinished)
            write_rows(folder / "episodes.parquet", [row for each in rows for row in each])
            filmed, kept = (
                {number: each for number, each in recordings.get(0, {}).items() if number < count}
                for count in (evaluation.videos, evaluation.keep)
            )
            if source:
                films(folder / "videos", settings.env, source, filmed)
            if kept:
                as_episodes(folder / "rollouts.hdf5", settings.env, Simulation(settings.env).env_args, kept)
            found = summary | outcome(rows) | {"videos": evaluation.videos, "keep": evaluation.keep}
            found |= {"wall_seconds": {"rollouts": time.perf_counter() - start}, "evaluated by": provenance()}
            write_json(folder / "summary.json", found)
            unfinished.unlink(missing_ok=True)
    show(found, folder)


if __name__ == "__main__":
    cli.run(main, EvaluateConfig, {})
