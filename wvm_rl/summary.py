"""The content of a run folder's `config.yaml` and `summary.json`, and its outcome as it is printed."""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from agents.base import effective_fraction
from wvm_rl.config import GROUPS, TrainConfig
from wvm_rl.errors import InputError
from wvm_rl.samples import Samples
from wvm_rl.stats import success_interval


def described(config: TrainConfig) -> dict[str, Any]:
    """The content of `config.yaml`: which choice of every group, and all settings."""
    choices = {group: _choice(registry, getattr(config, group)) for group, registry in GROUPS.items()}
    return {"choices": choices, **asdict(config)}


def restored(folder: Path) -> TrainConfig:
    """The settings of a run, from its `config.yaml`.

    Raises:
        InputError: no such file, or one of other code.
    """
    path = folder / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text())
        choices = content.pop("choices")
        node = OmegaConf.structured(TrainConfig)
        for group, registry in GROUPS.items():
            node[group] = OmegaConf.structured(registry[choices[group]])
        _set(node, content)
        settings: Any = OmegaConf.to_object(node)
    except OSError as error:
        raise InputError(f"{path} is not there: give the folder of a run of wvm_rl.train") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not of this code ({reason}): use the commit in its versions.json") from error
    return settings


def _set(node: Any, content: dict[str, Any]) -> None:
    """Sets a configuration to what was written: of free dictionaries no default comes back."""
    for key, value in content.items():
        if isinstance(value, dict) and is_dataclass(OmegaConf.get_type(node, key)):
            _set(node[key], value)
        else:
            node[key] = value


def outcome(rows: Sequence[Sequence[dict]]) -> dict[str, Any]:
    """What rollouts came to, of rows of `episodes.parquet` by training seed."""
    success, in_budget = ([[row[name] for row in own] for own in rows] for name in ("success", "success_in_budget"))
    times = [row["seconds"] for own in rows for row in own if row["success"]]
    return {
        "rollouts": sum(map(len, rows)),
        "success_rate": float(np.mean(success)),
        "success_ci95": success_interval(np.array(success)),
        "success_in_budget": float(np.mean(in_budget)),
        "success_in_budget_ci95": success_interval(np.array(in_budget)),
        "median_seconds_to_success": float(np.median(times)) if times else None,
    }


def summarise(
    config: TrainConfig,
    samples: Samples,
    favour: dict[str, Any],
    rows: Sequence[Sequence[dict]],
    inputs: dict[str, str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        favour: of `wvm_rl.inspect.inspected`.
        rows: of `episodes.parquet`, by training seed.
        inputs: name -> fingerprint of what the run started from.
        seconds: of each stage.
    """
    columns = samples.columns
    return {
        "env": config.env.name,
        "agent": _choice(GROUPS["agent"], config.agent),
        "policy": _choice(GROUPS["policy"], config.policy),
        "value": _choice(GROUPS["value"], config.value) + (" (shuffled)" if config.value.shuffle else ""),
        "recipe": _choice(GROUPS["data"], config.data),
        "episodes": len(samples.episodes),
        "seed": config.seed,
        "seeds": config.seeds,
        **outcome(rows),
        "knob": favour["knob"],
        "asked_fraction": favour["asked_fraction"],
        "samples": len(columns[0].weight),
        "kept_fraction": float(np.mean([each.weight > 0 for each in columns])),
        "ess_fraction": float(np.mean([effective_fraction(each.weight) for each in columns])),
        "favour": {name: favour[name] for name in ("auroc", "auroc_ci95", "edges", "kinds")},
        "wall_seconds": seconds,
        "inputs": inputs,
    }


def _choice(registry: dict[str, type], config: Any) -> str:
    return next(name for name, choice in registry.items() if choice is type(config))


def show(summary: dict[str, Any], folder: Path) -> None:
    """Prints a run's outcome as a small table."""
    low, high = summary["success_ci95"]
    seconds = summary["median_seconds_to_success"]
    table = Table(show_header=False, title=_title(summary))
    table.add_row("success", f"{summary['success_rate']:.2f}  (95 % interval {low:.2f} to {high:.2f})")
    low, high = summary["success_in_budget_ci95"]
    table.add_row("success in budget", f"{summary['success_in_budget']:.2f}  ({low:.2f} to {high:.2f})")
    table.add_row("median time to success", "none succeeded" if seconds is None else f"{seconds:.1f} s")
    table.add_row("rollouts", f"{summary['rollouts']} from {summary['seeds']} training seed(s)")
    table.add_row("samples kept", f"{summary['kept_fraction']:.0%} of {summary['samples']} control steps")
    table.add_row("effective sample size", f"{summary['ess_fraction']:.0%}")
    if (asked := summary.get("asked_fraction")) is not None:
        table.add_row("samples with the condition asked for", f"{asked:.0%}")
    if summary["knob"]:
        table.add_row("agent", ", ".join(f"{name}={value:.4g}" for name, value in summary["knob"].items()))
    for stage, wall in summary["wall_seconds"].items():
        table.add_row(f"seconds: {stage}", f"{wall:.1f}")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"run folder: {folder}", markup=False, highlight=False)


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['env']}: {summary['agent']} with {summary['policy']} policy, values from {summary['value']}"
