"""Rolls out the policies of a finished run again: `python -m wvm_rl.evaluate run=<folder> evaluation.rollouts=100`.

From more initial states, or, `evaluation.seed=1`, from others; with films (`evaluation.videos=3`) or as a dataset
(`evaluation.keep=20`). What comes of it lies in `<run>/evaluations/<rollouts>-seed<seed>/`: `episodes.parquet` and
`summary.json`, as of the run itself.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from agents.saved import load
from wvm_rl import cli
from wvm_rl.config import EvaluationConfig, TrainConfig
from wvm_rl.errors import InputError
from wvm_rl.evaluation import evaluate, initial_states
from wvm_rl.files import exclusive
from wvm_rl.films import check_films, leave
from wvm_rl.provenance import provenance
from wvm_rl.runs import read_summary, write_json, write_rows
from wvm_rl.summary import outcome, restored, show
from wvm_rl.values.base import Source
from wvm_rl.values.wvm import WvmConfig


@dataclass
class EvaluateConfig:
    """Rolls out the policies of a finished run again."""

    run: str = MISSING  # its folder
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    root: str | None = None  # data folder of initial states; null: the run's


def main(config: EvaluateConfig) -> None:
    """Runs what is missing, or shows what is there.

    Raises:
        InputError: no finished run, or one of other code; what `wvm_rl.train` refuses of rollouts and films.
    """
    run, evaluation = Path(config.run).expanduser(), config.evaluation
    summary = read_summary(run)
    if summary is None:
        raise InputError(f"run={run} holds no finished run: give the folder of one, with its summary.json")
    saved, settings = load(run), restored(run)
    if config.root:
        settings.data.root = config.root
    folder = run / "evaluations" / f"{evaluation.rollouts}-seed{evaluation.seed}"
    with exclusive(folder):
        found = read_summary(folder)
        if not found or evaluation.videos > found["videos"] or evaluation.keep > found["keep"]:
            if found:  # what was made before is made again, from the same rollouts
                more = {name: max(getattr(evaluation, name), found[name]) for name in ("videos", "keep")}
                evaluation = replace(evaluation, **more)
            settings = replace(settings, evaluation=evaluation)
            filmed = folder if found and found["videos"] else None
            watcher = _watcher(settings, summary, filmed) if evaluation.videos else None
            if evaluation.videos:
                check_films(watcher, initial_states(settings))
            start, unfinished = time.perf_counter(), folder / "rollouts.jsonl"
            rows, recordings = evaluate(settings, saved.trained, saved.asked, {0}, unfinished)
            write_rows(folder / "episodes.parquet", [row for each in rows for row in each])
            leave(folder, evaluation, settings.env, watcher, recordings.get(0, {}))
            found = summary | outcome(rows) | {"videos": evaluation.videos, "keep": evaluation.keep}
            found |= {"wall_seconds": {"rollouts": time.perf_counter() - start}, "evaluated by": provenance()}
            write_json(folder / "summary.json", found)
            unfinished.unlink(missing_ok=True)
    show(found, folder)


def _watcher(settings: TrainConfig, summary: dict[str, Any], filmed: Path | None) -> Source | None:
    """The critic of the run, whose curve is drawn in; None for other sources, which cannot judge a rollout.

    Args:
        filmed: folder of an evaluation that has films, which would be made again.

    Raises:
        InputError: it is another one now.
    """
    if not isinstance(settings.value, WvmConfig):
        return None
    source = settings.value.source()
    if source.fingerprint != summary["inputs"]["values"]:
        raise InputError(
            f"value.critic={settings.value.critic} is another critic than the run's: evaluation.videos=0"
            + (f", and delete {filmed}, which has films" if filmed else "")
        )
    return source


if __name__ == "__main__":
    cli.run(main, EvaluateConfig, {})
