"""The content of a run folder's `config.yaml` and `summary.json`."""

from dataclasses import asdict
from typing import Any

import numpy as np

from agents.base import effective_fraction
from wvm_rl.config import GROUPS, TrainConfig
from wvm_rl.samples import Samples
from wvm_rl.stats import success_interval


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
    """The content of `summary.json`.

    Args:
        favour: of `wvm_rl.inspect.inspected`.
        rows: of `episodes.parquet`, seed by seed.
        inputs: name -> fingerprint of what the run started from.
        seconds: of each stage.
    """
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
        "recipe": _choice(GROUPS["data"], config.data),
        "episodes": len(samples.episodes),
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
