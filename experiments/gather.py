"""Rollouts of finished runs as rows of one file, of which tables and figures are made."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from wvm_rl.config import GROUPS
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.provenance import provenance
from wvm_rl.runs import finished_at, read_summary, write_json
from wvm_rl.values.base import ValueConfig
from wvm_rl.values.wvm import DEFAULT

CELL = ("env", "recipe", "episodes", "updates", "obs", "agent", "policy", "value")  # name of a run, its seeds aside
TOLD = ("shuffle", "noise", "horizon_k", "scale", "draws", "lower", "critic")  # of values, which `named` words


def gather(folders: Iterable[Path], path: Path, critic: str = DEFAULT) -> pd.DataFrame | None:
    """Writes the rows of the finished runs among these folders and returns them; None if there is none.

    Beside them goes a JSON file with what figures need of every run: its name, favour and learning curve.

    Args:
        path: of the parquet file.
        critic: whose values are called `wvm`; those of others have their names behind it.

    Raises:
        InputError: two runs of one name and training seed, which differ in what no name tells.
    """
    parts, cells, seen = [], [], dict[tuple, Path]()
    for folder in folders:
        if (own := rows(folder, critic)) is None:
            continue
        name = {key: own[key].tolist()[0] for key in CELL}
        for seed in dict.fromkeys(own["seed"].tolist()):
            if (other := seen.setdefault((*name.values(), seed), folder)) != folder:
                raise InputError(f"{other} and {folder} are both {', '.join(map(str, name.values()))}: move one away")
        curve = pd.read_json(folder / "metrics.jsonl", lines=True)
        summary = read_summary(folder) or {}
        loss = {"step": curve["step"].tolist(), "loss": curve["loss"].tolist()}
        parts.append(own)
        cells.append({**name, "favour": summary["favour"], "ess_fraction": summary["ess_fraction"], "curve": loss})
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True).drop(columns=["rollout", "bank"])
    with atomic(path) as partial:
        table.to_parquet(partial, index=False)
    write_json(path.with_suffix(".json"), {"cells": cells, "provenance": provenance()})
    return table


def rows(folder: Path, critic: str = DEFAULT) -> pd.DataFrame | None:
    """Every rollout of a finished run; None if it is not finished."""
    summary = read_summary(folder)
    if summary is None:
        return None
    settings: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    choices = settings["choices"]
    agent = [summary["agent"], *_own("agent", choices["agent"], settings["agent"])]
    agent += [f"ess={settings['match_ess']:g}"] if settings["match_ess"] is not None else []
    return pd.read_parquet(folder / "episodes.parquet").assign(
        env=summary["env"],
        recipe=summary["recipe"],
        episodes=summary["episodes"],
        updates=settings["trainer"]["updates"],
        obs=choices["obs"],
        agent=" ".join(agent),
        policy=" ".join([summary["policy"], *_own("policy", choices["policy"], settings["policy"])]),
        value=named(choices, settings["value"], critic),
        horizon_k=settings["value"]["horizon_k"],
        initial_state=lambda table: table["bank"],
        ess_fraction=summary["ess_fraction"],
        commit=finished_at(folder),
    )


def named(choices: dict[str, str], value: dict[str, Any], critic: str = DEFAULT) -> str:
    """Name of a run's values: of their source, and of how advantages are made of them if not by the defaults."""
    if choices["agent"] == "bc":
        return "none"
    plain = ValueConfig()
    parts = ["shuffled" if value["shuffle"] else choices["value"]]
    parts += [Path(value["critic"]).name] if value.get("critic", critic) != critic else []
    parts += [f"{value['noise']:g}"] if choices["value"] == "noisy" else []
    parts += [f"K={value['horizon_k']}"] if value["horizon_k"] != plain.horizon_k else []
    parts += [value["scale"]] if value["scale"] != plain.scale else []
    parts += [f"{value['draws']} draws"] if value.get("draws") else []
    parts += [f"lower {value['lower']:g}"] if value["lower"] != plain.lower else []
    return " ".join([*parts, *_own("value", choices["value"], value, TOLD)])


def _own(group: str, choice: str, given: dict[str, Any], told: Iterable[str] = ()) -> list[str]:
    """Settings of a choice that are not its defaults, but for those that are told otherwise."""
    kind = GROUPS[group].get(choice)
    usual = {each.name: each.default for each in fields(kind)} if kind else {}
    changed = {name: number for name, number in given.items() if name not in told and number != usual.get(name, number)}
    return [f"{name}={Path(str(number)).name}" for name, number in changed.items()]
