"""Rollouts of finished runs as rows of one file, of which tables and figures are made (`experiments.grids`)."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from agents.trainer import TrainerConfig
from wvm_rl.config import GROUPS, EvaluationConfig
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.provenance import provenance
from wvm_rl.runs import finished_at, material, read_summary, write_json
from wvm_rl.values.base import ValueConfig
from wvm_rl.values.wvm import DEFAULT

SCORES = ("success_in_budget", "success")
BASE = {"recipe": "suboptimal", "episodes": 100, "updates": 3000, "obs": "state", "policy": "flow", "settings": ""}
KEY = (*BASE, "agent", "value")  # what tells the cells of a task apart
CELL = ("env", *KEY)  # name of a run, its seeds aside
TOLD = ("shuffle", "noise", "horizon_k", "scale", "draws", "lower", "critic")  # of values, which `named` words
ELSEWHERE = {  # settings that change no score, or have a place of their own
    "data": ("episodes", "fps", "root", "workers"),
    "trainer": ("updates", "interval", "save_every", "batching"),
    "evaluation": ("rollouts", "workers", "videos", "keep"),
}
NONE = "none"  # the values of bc, which reads none
VALUE = re.compile(r"value\.|choices\.value$")  # settings that bc does not read


def gather(folders: Iterable[Path], path: Path, critic: str | None = None) -> pd.DataFrame | None:
    """Writes the rows of the finished runs among these folders and returns them; None if there is none.

    Beside them goes a JSON file with what figures need of every run: its name, favour and learning curve.

    Args:
        path: of the parquet file.
        critic: whose values are called `wvm`, those of others have their names behind it; null: the one of most runs.

    Raises:
        InputError: two runs of one name and training seed, which differ in what no name tells.
    """
    finished = {folder: settings_of(folder) for folder in folders if read_summary(folder) is not None}
    critics = [critic_of(settings) for settings in finished.values()]
    read = Counter(each for each in critics if each)
    critic = critic or (read.most_common(1)[0][0] if read else DEFAULT)
    parts, cells, seen = [], dict[tuple, dict[str, Any]](), dict[tuple, Path]()
    for folder, settings in finished.items():
        own, summary = rows(folder, critic), read_summary(folder) or {}
        assert own is not None
        name = {key: own[key].tolist()[0] for key in CELL}
        for seed in dict.fromkeys(own["seed"].tolist()):
            if (other := seen.setdefault((*name.values(), seed), folder)) != folder:
                one, two = material(finished[other]), material(settings)
                apart = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
                unread = name["value"] == NONE and apart and all(VALUE.match(key) or _elsewhere(key) for key in apart)
                if not unread:
                    told = ", ".join(apart) or "nothing"
                    raise InputError(f"{other} and {folder} differ in {told}: move one away")
                own = own[own["seed"] != seed]  # the same policy once more, beside other values
        curve = pd.read_json(folder / "metrics.jsonl", lines=True)
        loss = {"step": curve["step"].tolist(), "loss": curve["loss"].tolist()}
        cell = {**name, "favour": summary["favour"], "ess_fraction": summary["ess_fraction"], "curve": loss}
        cells.setdefault(tuple(name.values()), cell)  # of runs that differ in their seeds alone, the first
        parts.append(own)
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True).drop(columns=["rollout", "bank"])
    with atomic(path) as partial:
        table.to_parquet(partial, index=False)
    write_json(path.with_suffix(".json"), {"cells": list(cells.values()), "provenance": provenance()})
    return table


def rows(folder: Path, critic: str = DEFAULT) -> pd.DataFrame | None:
    """Every rollout of a finished run; None if it is not finished."""
    summary = read_summary(folder)
    if summary is None:
        return None
    settings = settings_of(folder)
    choices = settings["choices"]
    agent = [summary["agent"], *_own("agent", choices["agent"], settings["agent"])]
    agent += [f"ess={settings['match_ess']:g}"] if settings["match_ess"] is not None else []
    return pd.read_parquet(folder / "episodes.parquet").assign(
        env=summary["env"],
        recipe=summary["recipe"],
        episodes=summary["episodes"],
        updates=settings["trainer"]["updates"],
        obs=choices["obs"],
        settings=" ".join(other_settings(settings)),
        agent=" ".join(agent),
        policy=" ".join([summary["policy"], *_own("policy", choices["policy"], settings["policy"])]),
        value=named(choices, settings["value"], critic),
        critic=critic_of(settings),
        horizon_k=settings["value"]["horizon_k"],
        initial_state=lambda table: table["bank"],
        ess_fraction=summary["ess_fraction"],
        commit=finished_at(folder),
    )


def settings_of(folder: Path) -> dict[str, Any]:
    """What a run's config.yaml holds."""
    return yaml.safe_load((folder / "config.yaml").read_text())


def critic_of(settings: dict[str, Any]) -> str:
    """The critic that a run's method reads, empty if it reads none."""
    read = settings["choices"]["agent"] != "bc" and settings["choices"]["value"] == "wvm"
    return settings["value"]["critic"] if read else ""


def other_settings(settings: dict[str, Any]) -> list[str]:
    """Settings of task, episodes, training and evaluation that are not the defaults and have no column of their own."""
    kinds = {group: GROUPS[group].get(settings["choices"][group]) for group in ("env", "data", "obs")}
    kinds |= {"trainer": TrainerConfig, "evaluation": EvaluationConfig}
    return [
        each
        for group, kind in kinds.items()
        for each in _changed(_usual(kind), settings[group], ELSEWHERE.get(group, ()), f"{group}.")
    ]


def named(choices: dict[str, str], value: dict[str, Any], critic: str = DEFAULT) -> str:
    """Name of a run's values: of their source, and of how advantages are made of them if not by the defaults."""
    if choices["agent"] == "bc":
        return NONE
    plain = ValueConfig()
    source = choices["value"]
    parts = [source] if not value["shuffle"] else ["shuffled"] if source == "wvm" else ["shuffled", source]
    parts += [Path(value["critic"]).name] if value.get("critic", critic) != critic else []
    parts += [f"{value['noise']:g}"] if choices["value"] == "noisy" else []
    parts += [f"K={value['horizon_k']}"] if value["horizon_k"] != plain.horizon_k else []
    parts += [value["scale"]] if value["scale"] != plain.scale else []
    parts += [f"{value['draws']} draws"] if value.get("draws") else []
    parts += [f"lower {value['lower']:g}"] if value["lower"] != plain.lower else []
    return " ".join([*parts, *_own("value", choices["value"], value, TOLD)])


def _elsewhere(key: str) -> bool:
    """Whether a setting changes no score."""
    group, _, name = key.partition(".")
    return name in ELSEWHERE.get(group, ()) and name != "rollouts"


def _own(group: str, choice: str, given: dict[str, Any], told: Iterable[str] = ()) -> list[str]:
    """Settings of a choice that are not its defaults, but for those that are told otherwise."""
    found = _changed(_usual(GROUPS[group].get(choice)), given, told, "")
    return [f"path={Path(each).name}" if each.startswith("path=") else each for each in found]


def _usual(kind: Any) -> dict[str, Any]:
    """Default of every setting of a kind of configuration, none of one that this code does not know."""
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in (fields(kind) if is_dataclass(kind) else ())
    }


def _changed(usual: dict[str, Any], given: dict[str, Any], told: Iterable[str], prefix: str) -> list[str]:
    """`name=value` of the settings that are not the usual ones; names that these lack are of other code."""
    found = []
    for name, default in usual.items():
        if name not in told and name in given:
            if is_dataclass(default):
                found += _changed(vars(default), given[name], (), f"{prefix}{name}.")
            elif default is MISSING or json.loads(json.dumps(default)) != given[name]:
                found.append(f"{prefix}{name}={given[name]}")
    return found
