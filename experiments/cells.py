"""Cells of a study of critics: each trains one and scores it, with this project's own commands."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json

SCORES = ("hesitation_rmse", "retry_voc", "expert_voc", "cycle_voc", "frozen_range", "failure_auroc", "lapse_auroc")


def run_module(module: str, *settings: str) -> None:
    """Runs a command of this project in a process of its own."""
    if subprocess.run([sys.executable, "-m", module, *settings]).returncode:
        raise InputError(f"python -m {module} {' '.join(settings)} failed, see above; finished cells are kept")


def trained(runs: Path, name: str, settings: list[str]) -> Path:
    """Folder of the critic that `wvm_rl.pretrain` makes of these settings, made once."""
    folder = runs / f"{name}-{_digest(settings)}"
    if not (folder / "config.json").exists():
        run_module("wvm_rl.pretrain", *settings, f"out={folder}")
    return folder


def scored(critic: Path, settings: list[str]) -> dict[str, Any]:
    """Scores of a critic by `wvm_rl.bench` with these settings, made once; with its fingerprint and the commit."""
    folder = _bench(critic, settings)
    if not (folder / "bench.json").exists():
        run_module("wvm_rl.bench", "models=[wvm]", *settings, f"critic={critic}", f"hydra.run.dir={folder}")
    content = json.loads((folder / "bench.json").read_text())
    commit = json.loads((folder / "versions.json").read_text())["commit"]
    return {score: content[score] for score in SCORES} | {"critic": content["critic"], "commit": commit}


def finished(runs: Path, name: str, training: list[str], scoring: list[str]) -> bool:
    """Whether a cell has been trained and scored."""
    return (_bench(runs / f"{name}-{_digest(training)}", scoring) / "bench.json").exists()


def _bench(critic: Path, settings: list[str]) -> Path:
    return critic.with_name(f"{critic.name}-bench-{_digest(settings)}")


def _digest(settings: list[str]) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


def header(*first: str) -> list[str]:
    """Head of a Markdown table of scores."""
    return [
        f"| {' | '.join(first)} | {' | '.join(name.replace('_', ' ') for name in SCORES)} |",
        "|" + "---|" * (len(first) + len(SCORES)),
    ]


def publish(path: Path, title: str, text: str, content: dict[str, Any], commits: set[str]) -> None:
    """Writes `<path>.md` and `<path>.json`, with the provenance of the table and the commits of its cells."""
    origin = provenance() | {"cells at": ", ".join(sorted(commits))}
    lines = [f"# {title}", "", text, "", *(f"- {name}: {value}" for name, value in origin.items())]
    with atomic(path.with_suffix(".md")) as partial:
        partial.write_text("\n".join(lines) + "\n")
    write_json(path.with_suffix(".json"), content | {"provenance": origin})
