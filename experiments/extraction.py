"""Does the critic help? Extraction methods and value sources side by side on `suboptimal` data.

    python -m experiments.extraction                 # lift and can, 8 cells each, 3 training seeds x 50 paired rollouts
    python -m experiments.extraction envs=[lift]

Each cell is one run of `wvm_rl.train` in `runs/extraction/`; finished ones are skipped, interrupted ones go on. The
table is made from the run folders alone; it goes to `experiments/results/extraction.md`, every rollout to
`extraction.parquet` beside it.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.runs import provenance, read_summary
from wvm_rl.stats import clustered_mean

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

    def __post_init__(self):
        if unknown := set(self.cells) - set(CELLS):
            raise InputError(f"cells has unknown {sorted(unknown)}: choose from {'; '.join(CELLS)}")


def main(config: ExtractionConfig) -> None:
    folders = {
        (env, cell): RUNS / f"{env}-{cell.replace(', ', '-').replace(' ', '-')}"
        for env in config.envs
        for cell in config.cells
    }
    for number, ((env, cell), folder) in enumerate(folders.items()):
        if config.run and not read_summary(folder):
            print(f"### {number + 1} of {len(folders)}: {env}, {cell}", flush=True)
            settings = [
                *(f"env={env}", "data=suboptimal", *CELLS[cell].split()),
                *(f"data.episodes={config.episodes}", f"seeds={config.seeds}"),
                *(f"evaluation.rollouts={config.rollouts}", f"hydra.run.dir={folder}"),
            ]
            subprocess.run([sys.executable, "-m", "wvm_rl.train", *settings], check=True)
    summaries = {key: summary for key, folder in folders.items() if (summary := read_summary(folder))}
    finished = {key: folders[key] for key in summaries}
    if not finished:
        raise InputError(f"no finished run in {RUNS}: leave out run=false")
    rollouts = pd.concat(
        [
            pd.read_parquet(folder / "episodes.parquet").assign(env=env, cell=cell)
            for (env, cell), folder in finished.items()
        ]
    )
    ess = {key: summary["ess_fraction"] for key, summary in summaries.items()}
    text = "\n\n".join(table(rollouts[rollouts.env == env], ess) for env in config.envs if (rollouts.env == env).any())
    origin = "\n".join(f"- {name}: {value}" for name, value in provenance().items())
    RESULTS.mkdir(exist_ok=True)
    with atomic(RESULTS / "extraction.md") as partial:
        partial.write_text(f"# Extraction methods and value sources\n\n{text}\n\n{origin}\n")
    with atomic(RESULTS / "extraction.parquet") as partial:
        rollouts.to_parquet(partial, index=False)
    print(text)


def table(rollouts: pd.DataFrame, ess: dict[tuple[str, str], float]) -> str:
    """Markdown table of one task: success rates, and differences from bc in success within the budget.

    Brackets are percentile bootstraps of the seeds' means (with few seeds about their range: too narrow for 95 %);
    differences are paired by training seed and
    initial state.
    """
    env = rollouts.env.iloc[0]
    base = rollouts[rollouts.cell == "bc"].set_index(["seed", "rollout"])["success_in_budget"]
    lines = [
        f"## {env}",
        "",
        "| cell | success in budget | minus bc | success | median s | effective samples |",
        "|---|---|---|---|---|---|",
    ]
    for cell, rows in rollouts.groupby("cell", sort=False):
        in_budget = _interval(*clustered_mean(rows.success_in_budget.to_numpy(), rows.seed.tolist()))
        pairs = rows.set_index(["seed", "rollout"])["success_in_budget"].astype(float).sub(base.astype(float)).dropna()
        seeds = pairs.index.get_level_values("seed").tolist()
        gain = "" if cell == "bc" or pairs.empty else _interval(*clustered_mean(pairs.to_numpy(), seeds))
        seconds = np.median(rows.seconds[rows.success]) if rows.success.any() else float("nan")
        fraction = ess[env, str(cell)]
        lines.append(f"| {cell} | {in_budget} | {gain} | {rows.success.mean():.2f} | {seconds:.1f} | {fraction:.0%} |")
    return "\n".join(lines)


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    cli.run(main, ExtractionConfig, {})
