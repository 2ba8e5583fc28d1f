"""Cells of a study of critics: each trains one and scores it, with this project's own commands."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.fingerprint import fingerprint
from wvm_rl.model.critic import Critic
from wvm_rl.model.critic_folder import SHIPPED, folder_of
from wvm_rl.model.pool import CHUNK_WINDOWS
from wvm_rl.model.training import FitConfig
from wvm_rl.provenance import provenance
from wvm_rl.runs import finished_at, write_json
from wvm_rl.scores import by_trajectory
from wvm_rl.stats import stratified_mean

RESULTS = Path(__file__).parent / "results"
SCORES = ("hesitation_rmse", "retry_voc", "expert_voc", "cycle_voc", "frozen_range", "failure_auroc", "lapse_auroc")
PAPERS_READING = ("reading.prefixes=0", "reading.smooth=0")  # of every critic: what it learned is compared
PAIRED = ("hesitation_rmse", "retry_voc", "expert_voc")  # whose differences are taken trajectory by trajectory

Cell = dict[str, Any]


def check(config: Any, **least: int) -> None:
    """Raises InputError for a budget that a cell's commands would refuse, or a machine whose name names no folder."""
    beyond = FitConfig.warmup + 1
    least = {"vae_steps": beyond, "pool": CHUNK_WINDOWS, "steps": beyond, "batch": 1} | least
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise InputError(f"{name}={getattr(config, name)} must be at least {bound}")
    if config.machine is not None and (config.machine in ("", "..") or Path(config.machine).name != config.machine):
        raise InputError(f"machine={config.machine} must be a plain name: it becomes a folder's")


def named_machine(config: Any) -> str:
    """The machine on which cells are to run.

    Raises:
        InputError: it has no name.
    """
    if config.machine is None:
        raise InputError("machine=<name> must name this machine: its cells lie apart; run=false needs none")
    return config.machine


def run_module(module: str, *settings: str) -> None:
    """Runs a command of this project in a process of its own."""
    if subprocess.run([sys.executable, "-m", module, *settings]).returncode:
        raise InputError(f"python -m {module} {' '.join(settings)} failed, see above; finished cells are kept")


@dataclass
class Cells:
    """Cells of a study: a critic of given settings, scored with given ones, each once a machine.

    Most machines round otherwise, and training drives it apart: the same command gives another VAE and other weights
    there (`experiments/README.md`). So each has its own cells, which are compared with others of the same machine, and
    count as trainings of their own unless they are the same to the bit (`trainings`). Records lie in
    `<results>/<name>/<machine>/` and are committed; critics and full scores in `<runs>/<name>/<machine>/`.
    """

    name: str
    results: Path = RESULTS
    runs: Path = Path("runs")

    def seeds(self, name: str) -> list[int]:
        """The seeds n of which there are records `<name>-<n>-<digest>.json`, of any machine and budget."""
        found = (self.results / self.name).glob(f"*/{name}-*-*.json")
        return sorted({int(path.stem.removeprefix(f"{name}-").split("-")[0]) for path in found})

    @property
    def machines(self) -> list[str]:
        """Names of the machines that have finished cells."""
        return sorted(folder.name for folder in (self.results / self.name).glob("*/"))

    def __call__(
        self, machine: str, cell: str, training: list[str], scoring: list[str], run: bool = True
    ) -> Cell | None:
        """Scores of a cell, pooled and by trajectory, with its critic's fingerprint, the commit and its settings.

        None if it is not finished and may not run.

        Args:
            machine: name of the one that this is, or of one whose records are there.
            cell: its name; a digest of the settings is added.
            training: settings of `wvm_rl.pretrain`.
            scoring: settings of `wvm_rl.bench`.
        """
        record = self.results / self.name / machine / f"{cell}-{_digest([*training, *scoring])}.json"
        if record.exists():
            return json.loads(record.read_text())
        if not run:
            return None
        critic = self.runs / self.name / machine / f"{cell}-{_digest(training)}"
        if not (critic / "config.json").exists():
            run_module("wvm_rl.pretrain", *training, *PAPERS_READING, f"out={critic}")
        folder = critic.with_name(f"{critic.name}-bench-{_digest(scoring)}")
        if not (folder / "bench.json").exists():
            run_module("wvm_rl.bench", "models=[wvm]", *scoring, f"critic={critic}", f"hydra.run.dir={folder}")
        content = json.loads((folder / "bench.json").read_text())
        scores = {score: content[score] for score in SCORES}
        scores |= {"critic": content["critic"], "commit": finished_at(folder)}
        rows = pd.read_parquet(folder / "trajectories.parquet").to_dict("records")
        scores["trajectories"] = {score: by_trajectory(rows, score) for score in PAIRED}
        write_json(record, scores | {"training": [*training, *PAPERS_READING], "scoring": scoring})
        return json.loads(record.read_text())


def trainings(cells: Iterable[Cell]) -> list[Cell]:
    """Those of different critics: two machines that round alike make the same one, which tells nothing twice."""
    return list({cell["critic"]: cell for cell in cells}.values())


def named(stem: str, config: Any, *settings: str) -> str:
    """Name of a study's tables: `stem` and those settings that are not the defaults, which have tables of their own."""
    default = type(config)()
    changed = [name for name in settings if getattr(config, name) != getattr(default, name)]
    values = {name: getattr(config, name) for name in changed}
    return "-".join(
        [
            stem,
            *(
                f"{name}-{'+'.join(map(str, value)) if isinstance(value, list) else value}"
                for name, value in values.items()
            ),
        ]
    )


def result_name(critic: Critic, given: str) -> str:
    """Name by which results of a critic are kept: a shipped one's own, else a part of its fingerprint."""
    return given if folder_of(given).parent == SHIPPED else critic.fingerprint[:8]


def _digest(settings: list[str]) -> str:
    return fingerprint(settings)[:8]


def titles(scores: Iterable[str]) -> list[str]:
    """Heads of a table's columns of scores."""
    return [name.replace("_", " ") for name in scores]


def averaged(cells: Sequence[Cell]) -> list[str]:
    """Entries of a table's row: means of SCORES over trainings, ± the standard deviation if there are several."""
    columns = [np.array([cell[score] for cell in cells], float) for score in SCORES]  # undefined ones are null, and NaN
    spreads = [f" ± {column.std(ddof=1):.3f}" if len(column) > 1 else "" for column in columns]
    pairs = zip(columns, spreads)
    return [f"{column.mean():.3f}{spread}" if np.isfinite(column).all() else "-" for column, spread in pairs]


def differences(pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """Entries of a table's row: the first's minus the second's scores of PAIRED, each with its 95 % interval.

    Args:
        pairs: cells scored on the same episodes, over which differences are averaged; the interval resamples
            trajectories within tasks, and says nothing of other trainings. That is what the standard deviation over
            pairs tells, given where there are several.
    """
    columns = []
    for score in PAIRED:
        both = [[cell["trajectories"][score] for cell in pair] for pair in pairs]
        gaps = [np.array([np.subtract(first[task], second[task]) for first, second in both]) for task in both[0][0]]
        mean, low, high = stratified_mean([gap.mean(0) for gap in gaps])  # per task [pair, trajectory]
        ends = f" [{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else ""
        several = len(pairs) > 1 and np.isfinite(mean)
        spread = f" ± {np.mean([gap.mean(1) for gap in gaps if gap.size], 0).std(ddof=1):.3f}" if several else ""
        columns.append(f"{mean:+.3f}{ends}{spread}" if np.isfinite(mean) else "-")
    return columns


def publish(path: Path, title: str, text: str, content: dict[str, Any], commits: set[str]) -> None:
    """Writes `<path>.md` and `<path>.json`, with the provenance of the table and the commits of its cells."""
    origin = provenance() | {"cells at": ", ".join(sorted(commits))}
    lines = [f"# {title}", "", text, "", *(f"- {name}: {value}" for name, value in origin.items())]
    with atomic(path.with_name(f"{path.name}.md")) as partial:
        partial.write_text("\n".join(lines) + "\n")
    write_json(path.with_name(f"{path.name}.json"), content | {"provenance": origin})
