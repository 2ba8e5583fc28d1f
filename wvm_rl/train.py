"""The main job: episodes -> values -> columns -> policy -> rollouts -> run folder.

python -m wvm_rl.train agent=awr env=lift policy=flow value=wvm seed=0
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from agents.chunks import build
from agents.saved import Saved, save
from agents.trainer import train
from envs.performer import Recording
from wvm_rl import cli, figures, films
from wvm_rl.config import GROUPS, TrainConfig, run_name
from wvm_rl.errors import InputError
from wvm_rl.evaluation import evaluate, initial_states
from wvm_rl.files import exclusive
from wvm_rl.inspect import inspected, warning
from wvm_rl.runs import Run, check, finished_at, read_summary, shared
from wvm_rl.samples import Samples, origin, pictures, prepared
from wvm_rl.summary import described, show, summarise
from wvm_rl.values.wvm import Wvm

ROLLOUTS = "rollouts.jsonl"  # beside the checkpoints, while not all jobs of a program are finished


@dataclass
class Job:
    """One run: its settings, its folder, and what it starts from; jobs of equal values may share their source."""

    config: TrainConfig
    folder: Path
    source: Any = None  # a `wvm_rl.values.base.Source`; None: that of the settings

    def __post_init__(self) -> None:
        self.source = self.source or self.config.value.source()
        self.origin = origin(self.config, self.source)
        self.inputs = {"episodes": self.origin.identity, "values": self.source.fingerprint}
        check(self.folder, described(self.config), self.inputs)

    @property
    def seeds(self) -> range:
        """Of its policies' training."""
        return range(self.config.seed, self.config.seed + self.config.seeds)


def main(config: TrainConfig, folder: Path) -> None:
    """Runs the job, continues an interrupted one, or shows a finished one."""
    job = Job(config, folder)
    with exclusive(folder / "run"):
        if summary := read_summary(folder):
            print(f"this run was finished at commit {finished_at(folder)}; delete its folder to run it again")
        else:
            (summary,) = pipeline([job], folder / "checkpoints")
    show(summary, folder)


def pipeline(jobs: Sequence[Job], checkpoints: Path) -> list[dict[str, Any]]:
    """Episodes -> values -> columns -> policies -> rollouts; returns the summaries.

    The policies of all jobs train and act together: jobs may differ in agent and value, if the conditions of
    all are of one size, or none has any. What is done together counts in equal shares in each one's wall time.
    """
    first = jobs[0].config
    runs = [Run.open(job.folder, described(job.config), job.config.wandb, job.inputs) for job in jobs]
    samples, favours = [], []
    for job, run in zip(jobs, runs):
        if isinstance(job.source, Wvm):
            run.mirror_text("critic", job.source.critic.card)
        try:
            own = prepared(job.config, job.origin, job.source, run.stage)
        except InputError as error:
            if len(jobs) == 1:
                raise
            raise InputError(f"{job.folder.name}: {error}") from error
        figures.summary(job.folder / "figures", own.dataset, own.values)
        samples.append(own)
        favours.append(inspected(own, job.config.value.horizon_k))
        if job.config.informed and (message := warning(favours[-1], own, job.config.trainer.batch)):
            print(f"warning: {job.folder}: {message}", file=sys.stderr)
        if job.config.evaluation.videos:
            films.check_films(job.source, initial_states(job.config))
    ends = np.cumsum([0, *(len(job.seeds) for job in jobs)])
    parts = [slice(*ends[number : number + 2]) for number in range(len(jobs))]  # of all policies, by job

    def log(metrics: list[dict[str, float]]) -> None:
        for run, part in zip(runs, parts):
            own = metrics[part]
            run.log("policy", {name: float(np.mean([each[name] for each in own])) for name in own[0]})

    with shared(runs, "policy"):
        arrays, statistics = build(samples[0].episodes, first.obs.keys, pictures(first, samples[0].dataset))
        trained = train(
            first.acting,
            arrays,
            statistics,
            [columns for each in samples for columns in each.columns],
            first.trainer,
            [seed for job in jobs for seed in job.seeds],
            checkpoints,
            on_metrics=log,
        )
    with shared(runs, "rollouts"):
        asked = [each.asked(position) for each in samples for position in range(len(each.columns))]
        kept = checkpoints.parent / ROLLOUTS
        rows, recordings = evaluate(first, trained, asked, {part.start for part in parts}, kept)
    summaries = []
    for job, run, own, favour, part in zip(jobs, runs, samples, favours, parts):
        observed = {name: getattr(first.obs, name) for name in ("keys", "cameras", "size")}
        save(job.folder, Saved(first.acting, trained.part(part), asked[part], observed))
        summaries.append(leave(job, run, own, favour, rows[part], recordings.get(part.start, {})))
    for run, summary in zip(runs, summaries):  # none before all can: what is finished trains no more with the others
        run.close(summary)
    for run, summary in zip(runs, summaries):
        run.mirror(summary)
    kept.unlink(missing_ok=True)
    return summaries


def leave(
    job: Job,
    run: Run,
    samples: Samples,
    favour: dict[str, Any],
    rows: list[list[dict]],
    recordings: dict[int, Recording],
) -> dict[str, Any]:
    """Writes what a run leaves behind, rollouts and videos, but for the summary, which it returns.

    Args:
        favour: of `wvm_rl.inspect.inspected`.
        rows: of `episodes.parquet`, by training seed.
    """
    config = job.config
    run.write_rows("episodes.parquet", [row for each in rows for row in each])
    with run.stage("videos") if config.evaluation.videos else nullcontext():
        films.leave(job.folder, config.evaluation, config.env, job.source, recordings)
    return summarise(config, samples, favour, rows, job.inputs, run.seconds)


if __name__ == "__main__":
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    cli.run(main, TrainConfig, GROUPS, run_dir="runs/${run_name:}")
