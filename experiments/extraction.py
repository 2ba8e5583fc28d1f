"""Does the critic help? Extraction methods and value sources side by side on `suboptimal` data.

    python -m experiments.extraction                 # lift and can, 8 cells each, 3 training seeds x 50 paired rollouts
    python -m experiments.extraction envs=[lift]

Each cell is one run of `wvm_rl.train` in `runs/extraction/`; finished ones are kept, interrupted ones go on. The
table is made from the run folders alone; it goes to `experiments/results/extraction.md`, every rollout to
`extraction.parquet` beside it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from envs.tasks import TASKS
from experiments.cells import run_module
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.provenance import PACKAGES, provenance
from wvm_rl.runs import read_summary
from wvm_rl.stats import crossed_mean, success_interval

RUNS, RESULTS = Path("runs/extraction"), Path(__file__).parent / "results"
CELLS = {  # name -> overrides; behaviour cloning ignores its values, the clock costs nothing
    "bc": "agent=bc value=clock",
    "awr, oracle": "agent=awr value=oracle",
    "awr, wvm": "agent=awr value=wvm",
    "filtered_bc_binary, wvm": "agent=filtered_bc_binary value=wvm",
    "filtered_bc_percentile, wvm": "agent=filtered_bc_percentile value=wvm",
    "rcp, wvm": "agent=rcp value=wvm",
    "awr, clock": "agent=awr value=clock",
    "awr, wvm shuffled": "agent=awr value=wvm value.shuffle=true",
}


@dataclass
class ExtractionConfig:
    """Which cells to run."""

    envs: list[str] = field(default_factory=lambda: ["lift", "can"])
    cells: list[str] = field(default_factory=lambda: list(CELLS))
    episodes: int = 100
    seeds: int = 3
    rollouts: int = 50  # a seed
    run: bool = True  # false: only the table, from the runs that are finished

    @property
    def scale(self) -> str:
        return f"{self.episodes}x{self.seeds}x{self.rollouts}"

    def __post_init__(self):
        if unknown_envs := set(self.envs) - set(TASKS):
            raise InputError(f"envs has unknown {sorted(unknown_envs)}: choose from {', '.join(TASKS)}")
        if unknown := set(self.cells) - set(CELLS):
            raise InputError(f"cells has unknown {sorted(unknown)}: choose from {'; '.join(CELLS)}")


def main(config: ExtractionConfig) -> None:
    folders = {
        (env, cell): RUNS / f"{env}-{cell.replace(', ', '-').replace(' ', '-')}-{config.scale}"
        for env in config.envs
        for cell in config.cells
    }
    for number, ((env, cell), folder) in enumerate(folders.items()):
        if config.run:
            print(f"### {number + 1} of {len(folders)}: {env}, {cell}", flush=True)
            settings = [
                *(f"env={env}", "data=suboptimal", *CELLS[cell].split()),
                *(f"data.episodes={config.episodes}", f"seeds={config.seeds}"),
                *(f"evaluation.rollouts={config.rollouts}", f"hydra.run.dir={folder}"),
            ]
            run_module("wvm_rl.train", *settings)
    finished = {key: summary for key, folder in folders.items() if (summary := read_summary(folder))}
    if lacking := [env for env in config.envs if (env, "bc") not in finished]:
        raise InputError(f"no finished run of bc on {', '.join(lacking)} in {RUNS}: run it, all others stand beside it")
    rollouts = pd.concat(
        [pd.read_parquet(folders[key] / "episodes.parquet").assign(env=key[0], cell=key[1]) for key in finished]
    )
    ess = {key: summary["ess_fraction"] for key, summary in finished.items()}
    tables = [table(rollouts[rollouts.env == env], ess) for env in config.envs if (rollouts.env == env).any()]
    text = "\n\n".join(tables)
    RESULTS.mkdir(exist_ok=True)
    with atomic(RESULTS / "extraction.md") as partial:
        partial.write_text(f"# Extraction methods and value sources\n\n{text}\n\n{origins(folders, finished)}\n")
    with atomic(RESULTS / "extraction.parquet") as partial:
        rollouts.to_parquet(partial, index=False)
    print(text)


def table(rollouts: pd.DataFrame, ess: dict[tuple[str, str], float]) -> str:
    """Markdown table of one task: success rates, and differences from bc in success within the budget.

    Brackets are 95 % intervals over training seeds and initial states (`wvm_rl.stats`); differences are paired by both.
    """
    env = rollouts.env.iloc[0]
    grids = {
        cell: rows.pivot(index="seed", columns="rollout", values="success_in_budget").astype(float)
        for cell, rows in rollouts.groupby("cell", sort=False)
    }
    for cell, grid in grids.items():
        if not (grid.index.equals(grids["bc"].index) and grid.columns.equals(grids["bc"].columns)):
            raise InputError(f"{env}, {cell}: not the same seeds and rollouts as bc: delete its folder in {RUNS}")
    lines = [
        f"## {env}",
        "",
        "| cell | success in budget | minus bc | success | median s | effective samples |",
        "|---|---|---|---|---|---|",
    ]
    for cell, rows in rollouts.groupby("cell", sort=False):
        grid = grids[cell].to_numpy()
        gain = "" if cell == "bc" else "{:.2f} [{:.2f}, {:.2f}]".format(*crossed_mean(grid - grids["bc"].to_numpy()))
        seconds = np.median(rows.seconds[rows.success]) if rows.success.any() else float("nan")
        rate = "{:.2f} [{:.2f}, {:.2f}]".format(grid.mean(), *success_interval(grid))
        columns = [cell, rate, gain, f"{rows.success.mean():.2f}", f"{seconds:.1f}"]
        lines.append(f"| {' | '.join([*columns, f'{ess[env, str(cell)]:.0%}'])} |")
    return "\n".join(lines)


def origins(folders: dict[tuple[str, str], Path], finished: dict[tuple[str, str], dict]) -> str:
    """Where the cells come from: command, commits and versions they ran on, fingerprints, wall time."""
    versions = [json.loads((folders[key] / "versions.json").read_text()) for key in finished]
    minutes = sum(sum(summary["wall_seconds"].values()) for summary in finished.values()) / 60
    rows = {"command": provenance()["command"], "wall time": f"{minutes:.0f} min"}
    parts = [part for version in versions for part in (version, *version.get("continued", []))]
    for name in ("commit", "python", *PACKAGES):
        rows[name] = ", ".join(sorted({part[name] for part in parts}))
    for source in ("episodes", "values"):
        rows[source] = ", ".join(sorted({summary["inputs"][source] for summary in finished.values()}))
    return "\n".join(f"- {name}: {value}" for name, value in rows.items())


if __name__ == "__main__":
    cli.run(main, ExtractionConfig, {})
