"""What in the critic matters: the paper's Table 4 (PAPER.md section 4) at the size of `tiny`.

    python -m experiments.ablations                          # every variant, 3 seeds of the model's training
    python -m experiments.ablations variants=[full,p0] seeds=1

A cell pretrains one variant with one seed (`wvm_rl.pretrain`; VAE and windows are shared where the variant leaves them
alone) and scores it (`wvm_rl.bench`). Finished cells are kept, interrupted ones go on. Means and spreads over seeds go
to `experiments/results/ablations.md`, all numbers to `ablations.json` beside it.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json

RUNS, RESULTS = Path("runs/ablations"), Path(__file__).parent / "results"
VARIANTS = {  # name -> what it is, and overrides of the recipe
    "full": ("the recipe", ""),
    "no_video_loss": ("value loss alone", "loss.video=0"),
    "video_first": ("both streams, after as many updates of the video stream alone", "video_steps={steps}"),
    "video_frozen": (
        "the video stream frozen after updates on the video loss alone",
        "video_steps={steps} frozen=true",
    ),
    "p0": ("the true prefix always", "loss.random_prefix=0"),
    "p1": ("a random prefix always", "loss.random_prefix=1"),
    "hl_gaussian": ("histogram head", "wvm.value.head=hl_gaussian"),
    "regression": ("scalar head", "wvm.value.head=regression"),
    "no_rewind": ("rising windows only", "windows.rewind=0"),
    "fps2": ("2 frames a second", "wvm.fps=2 data.fps=10"),
    "fps10": ("10 frames a second", "wvm.fps=10 data.fps=10"),
    "no_text": ("no instruction", "data.text=false"),
}
SCORES = ("hesitation_rmse", "retry_voc", "expert_voc", "cycle_voc", "frozen_range", "failure_auroc", "lapse_auroc")


@dataclass
class AblationsConfig:
    """Which cells to run, and how long each trains."""

    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    seeds: int = 3  # of the model's training
    vae_steps: int = 2000  # updates of the VAE, which most variants share
    pool: int = 32_000  # encoded windows, likewise
    steps: int = 1200  # updates of the model, at most 15 minutes of two cores
    episodes: int = 39  # a task, on which a cell is scored
    run: bool = True  # false: only the table, from the cells that are finished

    def __post_init__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise InputError(f"variants has unknown {', '.join(unknown)}: choose from {', '.join(VARIANTS)}")
        for name in ("seeds", "vae_steps", "pool", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")


def place(config: AblationsConfig, variant: str, seed: int) -> Path:
    """Folder of one cell."""
    return RUNS / f"{variant}-{seed}-{config.vae_steps}-{config.pool}-{config.steps}-{config.episodes}"


def cell(config: AblationsConfig, variant: str, seed: int) -> dict[str, Any]:
    """Trains and scores one cell, unless it is finished; its `bench.json`."""
    folder = place(config, variant, seed)
    critic, bench = folder / "critic", folder / "bench"
    if not (bench / "bench.json").exists():
        if not (critic / "config.json").exists():
            budget = [f"vae.steps={config.vae_steps}", f"pool={config.pool}", f"model.steps={config.steps}"]
            changes = VARIANTS[variant][1].format(steps=config.steps).split()
            run_module("wvm_rl.pretrain", *budget, f"model_seed={seed}", *changes, f"out={critic}")
        measure = ["models=[wvm]", f"episodes={config.episodes}", f"critic={critic}", f"hydra.run.dir={bench}"]
        run_module("wvm_rl.bench", *measure)
    return json.loads((bench / "bench.json").read_text())


def run_module(module: str, *settings: str) -> None:
    """Runs a command of this project in a process of its own."""
    if subprocess.run([sys.executable, "-m", module, *settings]).returncode:
        raise InputError(f"python -m {module} {' '.join(settings)} failed, see above; finished cells are kept")


def main(config: AblationsConfig) -> None:
    keys = [(variant, seed) for seed in range(config.seeds) for variant in config.variants]
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in config.variants}
    for number, (variant, seed) in enumerate(keys):
        finished = place(config, variant, seed) / "bench" / "bench.json"
        if config.run or finished.exists():
            print(f"### {number + 1} of {len(keys)}: {variant}, seed {seed}", flush=True)
            found[variant].append(cell(config, variant, seed))
    numbers = {
        variant: [{score: content[score] for score in SCORES} | {"critic": content["critic"]} for content in contents]
        for variant, contents in found.items()
        if contents
    }
    if not numbers:
        raise InputError(f"no finished cell in {RUNS}: run some with run=true")
    origin = provenance()
    budget = f"{config.vae_steps} updates of the VAE, {config.pool} windows, {config.steps} updates of the model"
    text = f"# Ablations\n\n{table(numbers)}\n\nMean and, over seeds, standard deviation; {budget}.\n\n"
    text += "\n".join(f"- {name}: {value}" for name, value in origin.items())
    with atomic(RESULTS / "ablations.md") as partial:
        partial.write_text(text + "\n")
    write_json(RESULTS / "ablations.json", {"budget": budget, "variants": numbers, "provenance": origin})
    print(table(numbers))


def table(numbers: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a line a variant, mean over its seeds and their standard deviation."""
    lines = [f"| variant | what | seeds | {' | '.join(name.replace('_', ' ') for name in SCORES)} |"]
    lines.append("|" + "---|" * (3 + len(SCORES)))
    for variant, seeds in numbers.items():
        columns = [np.array([seed[score] for seed in seeds]) for score in SCORES]
        spreads = [f" ± {column.std(ddof=1):.3f}" if len(column) > 1 else "" for column in columns]
        cells = [f"{column.mean():.3f}{spread}" for column, spread in zip(columns, spreads)]
        lines.append(f"| {variant} | {VARIANTS[variant][0]} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, AblationsConfig, {})
