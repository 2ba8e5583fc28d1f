"""The main job: episodes -> values -> columns -> policy -> rollouts -> run folder.

python -m wvm_rl.train agent=awr env=lift policy=flow value=wvm seed=0
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from agents.acting import actor
from agents.base import effective_fraction
from agents.chunks import build
from agents.trainer import Trained, train
from envs.bank import bank
from envs.collect import CollectConfig, dataset_path
from envs.rollout import ROWS, Recording, rollouts
from envs.tasks import POLICY_KEYS
from wvm_rl import cli, figures
from wvm_rl.config import GROUPS, TrainConfig, run_name
from wvm_rl.files import exclusive
from wvm_rl.films import as_episodes, films
from wvm_rl.runs import Run, check, read_summary, show
from wvm_rl.samples import Samples, collection, prepared
from wvm_rl.stats import success_interval
from wvm_rl.values.base import Source
from wvm_rl.values.wvm import Wvm


def main(config: TrainConfig, folder: Path) -> None:
    """Runs the job, continues an interrupted one, or shows a finished one."""
    source = config.value.source()
    settings = collection(config, source)
    inputs = {"episodes": dataset_path(settings).name, "values": source.fingerprint}
    check(folder, described(config), inputs)
    with exclusive(folder / "run"):
        if summary := read_summary(folder):
            print("this run is finished; delete its folder to run it again")
        else:
            summary = pipeline(config, folder, settings, source, inputs)
    show(summary, folder)


def pipeline(
    config: TrainConfig, folder: Path, settings: CollectConfig, source: Source, inputs: dict[str, str]
) -> dict[str, Any]:
    """Episodes -> values -> columns -> policy -> rollouts; returns the summary."""
    run = Run.open(folder, described(config), config.wandb, inputs)
    if isinstance(source, Wvm):
        run.mirror_text("critic", source.critic.card)
    samples = prepared(config, settings, source, run.stage)
    figures.summary(folder / "figures", samples.dataset, samples.values)
    with run.stage("policy"):
        arrays, statistics = build(samples.episodes, POLICY_KEYS)
        trained = train(
            config.policy,
            arrays,
            statistics,
            samples.columns,
            config.trainer,
            range(config.seed, config.seed + config.seeds),
            folder / "checkpoints",
            on_metrics=lambda metrics: run.log("policy", metrics),
        )
    with run.stage("rollouts"):
        rows, recordings = evaluate(config, trained, samples)
        run.write_rows("episodes.parquet", rows)
    filmed, kept = (
        {number: recording for number, recording in recordings.items() if number < count}
        for count in (config.evaluation.videos, config.evaluation.keep)
    )
    if filmed:
        with run.stage("videos"):
            films(folder / "videos", config.env, config.value, filmed)
    if kept:
        as_episodes(folder / "rollouts.hdf5", config.env, samples.dataset.env_args, kept)
    summary = summarise(config, samples, rows, inputs, run.seconds)
    run.finish(summary)
    return summary


def described(config: TrainConfig) -> dict[str, Any]:
    """The content of `config.yaml`: which choice of every group, and all settings."""
    choices = {group: _choice(registry, getattr(config, group)) for group, registry in GROUPS.items()}
    return {"choices": choices, **asdict(config)}


def evaluate(config: TrainConfig, trained: Trained, samples: Samples) -> tuple[list[dict], dict[int, Recording]]:
    """Rolls out every training seed from the same initial states: rows of `episodes.parquet`, and recordings."""
    evaluation, rows, recordings = config.evaluation, [], {}
    workers = evaluation.workers or os.cpu_count() or 1
    states = bank(config.env, evaluation.seed, evaluation.rollouts, config.data.root, workers)
    for position, seed in enumerate(trained.seeds):
        act = actor(
            config.policy,
            trained.seed(position),
            trained.statistics,
            rows=ROWS,
            asked=samples.asked(position),
            seed=evaluation.seed,
        )
        record = range(max(evaluation.videos, evaluation.keep)) if position == 0 else ()
        table, recorded = rollouts(config.env, states, act, evaluation.rollouts, workers, record=record)
        rows += [{"seed": seed, **row} for row in table]
        recordings |= recorded
    return rows, recordings


def summarise(
    config: TrainConfig, samples: Samples, rows: list[dict], inputs: dict[str, str], seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of `summary.json`."""
    success, in_budget = (
        np.reshape([row[name] for row in rows], (config.seeds, -1)) for name in ("success", "success_in_budget")
    )
    columns, knob = samples.columns, samples.agent.knob
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
        "knob": {knob[0]: getattr(samples.agent, knob[0])} if knob else {},
        "samples": len(columns[0].weight),
        "kept_fraction": float(np.mean([each.weight > 0 for each in columns])),
        "ess_fraction": float(np.mean([effective_fraction(each.weight) for each in columns])),
        "wall_seconds": seconds,
        "inputs": inputs,
    }


def _choice(registry: dict[str, type], config: Any) -> str:
    return next(name for name, choice in registry.items() if choice is type(config))


if __name__ == "__main__":
    OmegaConf.register_new_resolver("run_name", run_name)
    cli.run(main, TrainConfig, GROUPS, run_dir="runs/${run_name:}")
