"""The main job: episodes -> values -> columns -> policy -> rollouts -> run folder.

python -m wvm_rl.train agent=awr env=lift policy=flow value=wvm seed=0
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from agents.base import effective_fraction
from agents.chunks import build
from agents.trainer import train
from envs.collect import dataset_path
from envs.rollout import Recording
from wvm_rl import cli, figures
from wvm_rl.config import GROUPS, TrainConfig, run_name
from wvm_rl.evaluation import evaluate
from wvm_rl.files import exclusive
from wvm_rl.films import as_episodes, films
from wvm_rl.inspect import inspected, warning
from wvm_rl.runs import Run, check, read_summary, shared, show
from wvm_rl.samples import Samples, collection, pictures, prepared
from wvm_rl.stats import success_interval
from wvm_rl.values.wvm import Wvm


@dataclass
class Job:
    """One run: its settings, its folder, and what it starts from; jobs of equal values may share their source."""

    config: TrainConfig
    folder: Path
    source: Any = None  # a `wvm_rl.values.base.Source`; None: that of the settings

    def __post_init__(self) -> None:
        self.source = self.source or self.config.value.source()
        self.settings = collection(self.config, self.source)
        self.inputs = {"episodes": dataset_path(self.settings).name, "values": self.source.fingerprint}
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
            print("this run is finished; delete its folder to run it again")
        else:
            (summary,) = pipeline([job], folder / "checkpoints")
    show(summary, folder)


def pipeline(jobs: Sequence[Job], checkpoints: Path) -> list[dict[str, Any]]:
    """Episodes -> values -> columns -> policies -> rollouts; returns the summaries.

    The policies of all jobs train and act together: jobs may differ in agent and value, and only if all of them are
    conditioned, or none. What is done together counts in equal shares in each one's wall time.
    """
    first = jobs[0].config
    runs = [Run.open(job.folder, described(job.config), job.config.wandb, job.inputs) for job in jobs]
    samples, favours = [], []
    for job, run in zip(jobs, runs):
        if isinstance(job.source, Wvm):
            run.mirror_text("critic", job.source.critic.card)
        own = prepared(job.config, job.settings, job.source, run.stage)
        figures.summary(job.folder / "figures", own.dataset, own.values)
        samples.append(own)
        favours.append(inspected(own, job.config.value.horizon_k))
        told = job.config.agent.reads_advantage and not job.config.value.shuffle
        if told and (message := warning(favours[-1], own.columns[0])):
            print(f"warning: {job.folder}: {message}", file=sys.stderr)
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
        rows, recordings = evaluate(first, trained, asked, {part.start for part in parts})
    return [
        finish(job, run, own, favour, [row for each in rows[part] for row in each], recordings.get(part.start, {}))
        for job, run, own, favour, part in zip(jobs, runs, samples, favours, parts)
    ]


def finish(
    job: Job,
    run: Run,
    samples: Samples,
    favour: dict[str, Any],
    rows: list[dict],
    recordings: dict[int, Recording],
) -> dict[str, Any]:
    """Writes what a run leaves behind: rollouts, videos, and last the summary, which it returns.

    Args:
        favour: of `wvm_rl.inspect.inspected`.
        rows: of `episodes.parquet`.
    """
    config = job.config
    run.write_rows("episodes.parquet", rows)
    filmed, kept = (
        {number: recording for number, recording in recordings.items() if number < count}
        for count in (config.evaluation.videos, config.evaluation.keep)
    )
    if filmed:
        with run.stage("videos"):
            films(job.folder / "videos", config.env, job.source, filmed)
    if kept:
        as_episodes(job.folder / "rollouts.hdf5", config.env, samples.dataset.env_args, kept)
    summary = summarise(config, samples, favour, rows, job.inputs, run.seconds)
    run.finish(summary)
    return summary


def described(config: TrainConfig) -> dict[str, Any]:
    """The content of `config.yaml`: which choice of every group, and all settings."""
    choices = {group: _choice(registry, getattr(config, group)) for group, registry in GROUPS.items()}
    return {"choices": choices, **asdict(config)}


def summarise(
    config: TrainConfig,
    samples: Samples,
    favour: dict[str, Any],
    rows: list[dict],
    inputs: dict[str, str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of `summary.json`."""
    success, in_budget = (
        np.reshape([row[name] for row in rows], (config.seeds, -1)) for name in ("success", "success_in_budget")
    )
    columns = samples.columns
    times = [row["seconds"] for row in rows if row["success"]]
    return {
        "env": config.env.name,
        "agent": _choice(GROUPS["agent"], config.agent),
        "policy": _choice(GROUPS["policy"], config.policy),
        "value": _choice(GROUPS["value"], config.value) + (" (shuffled)" if config.value.shuffle else ""),
        "recipe": config.data.recipe.name,
        "episodes": config.data.episodes,
        "seed": config.seed,
        "seeds": config.seeds,
        "rollouts": len(rows),
        "success_rate": float(np.mean(success)),
        "success_ci95": success_interval(success),
        "success_in_budget": float(np.mean(in_budget)),
        "success_in_budget_ci95": success_interval(in_budget),
        "median_seconds_to_success": float(np.median(times)) if times else None,
        "knob": favour["knob"],
        "samples": len(columns[0].weight),
        "kept_fraction": float(np.mean([each.weight > 0 for each in columns])),
        "ess_fraction": float(np.mean([effective_fraction(each.weight) for each in columns])),
        "favour": {name: favour[name] for name in ("auroc", "auroc_ci95", "edges", "kinds")},
        "wall_seconds": seconds,
        "inputs": inputs,
    }


def _choice(registry: dict[str, type], config: Any) -> str:
    return next(name for name, choice in registry.items() if choice is type(config))


if __name__ == "__main__":
    OmegaConf.register_new_resolver("run_name", run_name)
    cli.run(main, TrainConfig, GROUPS, run_dir="runs/${run_name:}")
