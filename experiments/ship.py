"""Ships a critic: `python -m experiments.ship critic=<folder> bench=[<run>, ...] notes=<file> name=<name>`.

Its folder becomes `wvm_rl/critics/<name>`, with the benchmark's tables and figures in its card; the benchmarks' numbers
go to `experiments/results/bench_<name>*.json`, and how it differs from the other models in the trajectories of all of
them to `bench_<name>_pairs.json`. The notes are Markdown, written by hand after a look at both: where it
fails. They may have tables that `experiments.readme` fills.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import MISSING

from experiments.readme import filled, read, result
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.model.critic import Critic
from wvm_rl.model.critic_folder import SHIPPED
from wvm_rl.provenance import provenance
from wvm_rl.report import unshifted
from wvm_rl.runs import finished_by, write_json
from wvm_rl.scoreboard import caption, markdown
from wvm_rl.scores import compared

PARTS = ("bench", "versions")  # files of a run folder
FIGURES = ("curves.png", "calibration.png")
SCORES, AFTER = "## Scores", "## Versions"  # the card's section of scores stands before that of versions


@dataclass
class ShipConfig:
    """A critic and what is known of it."""

    critic: str = MISSING  # folder that `wvm_rl.pretrain` left
    bench: list[str] = field(default_factory=list)  # run folders of `wvm_rl.bench`; the first gives the figures
    shifts: str | None = None  # run folder of `wvm_rl.bench shifts=[all]`
    unseen: str | None = None  # of `wvm_rl.bench tasks=[lemon,nut,door]`
    notes: str = MISSING  # Markdown file
    name: str = MISSING  # among the shipped critics; a new one, as a released one stays as it was


def section(folders: list[Path], notes: str) -> str:
    """Tables of the benchmarks, each with the command that made it, and the notes."""
    lines = [SCORES, ""]
    for folder in folders:
        content, versions = (_json(folder / f"{name}.json") for name in PARTS)
        origin = finished_by(versions)
        lines += [f"`{origin['command']}` at commit `{origin['commit']}`:", "", markdown(content)]
    lines += [f"![{name}]({name})" for name in FIGURES]
    lines += ["", "The first episode of each kind and task, and the mean true value by the predicted one.", "", notes]
    return "\n".join(lines).rstrip() + "\n\n"


def pooled_pairs(folders: list[Path]) -> dict[str, Any]:
    """Differences of the critic from the other models, over the trajectories of all benchmarks together.

    Returns:
        `seeds` of the benchmarks; `models`, name -> `wvm_rl.scores.compared`.
    """
    seeds = [_json(folder / "bench.json")["seed"] for folder in folders]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"bench names two benchmarks of one seed ({seeds}): its trajectories would count twice")
    runs = [unshifted(pd.read_parquet(folder / "trajectories.parquet").to_dict("records")) for folder in folders]
    subject, *others = (name for name in runs[0] if all(name in run for run in runs))
    rows = {name: [row for run in runs for row in run[name]] for name in (subject, *others)}
    return {
        "seeds": seeds,
        "models": {name: compared(rows[subject], rows[name]) for name in others},
    }


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def main(config: ShipConfig) -> None:
    """Checks that scores and critic belong together, then writes."""
    critic, folders = Critic.load(config.critic), [Path(folder) for folder in config.bench]
    if not folders:
        raise InputError("bench=[] names no run folder: run `python -m wvm_rl.bench critic=<folder>` first")
    target = SHIPPED / config.name
    if target.exists() and Critic.load(target).fingerprint != critic.fingerprint:
        raise InputError(f"name={config.name} is that of another critic, which stays as released: choose another")
    named = {f"_{number}" if number else "": folder for number, folder in enumerate(folders)}
    named |= {f"_{part}": Path(at) for part, at in (("shifts", config.shifts), ("unseen", config.unseen)) if at}
    if missing := [name for name in FIGURES if not (folders[0] / "figures" / name).exists()]:
        raise InputError(f"{folders[0]}/figures holds no {missing[0]}: run the benchmark to its end")
    for folder in named.values():
        wanted = ("bench.json", "versions.json", *(["trajectories.parquet"] if folder in folders else []))
        if missing := [name for name in wanted if not (folder / name).exists()]:
            raise InputError(f"{folder} holds no {missing[0]}: run the benchmark to its end")
        if not _json(folder / "versions.json")["inputs"]["critic"].startswith(critic.fingerprint):
            raise InputError(f"{folder} scored another critic than {config.critic}")
    if not Path(config.notes).is_file():
        raise InputError(f"notes={config.notes} is no file")
    card, notes = critic.card, Path(config.notes).read_text()
    if AFTER not in card:
        raise InputError(f"{config.critic}/README.md: not a card that wvm_rl.pretrain wrote")
    found = {suffix: {name: _json(folder / f"{name}.json") for name in PARTS} for suffix, folder in named.items()}
    found["_pairs"] = {"bench": pooled_pairs(folders), "versions": provenance()}

    def scores(name: str, suffix: str) -> dict[str, Any]:
        """Those that are to be committed, else those that are."""
        if name != config.name or suffix not in found:
            return read(name, suffix)
        return {**found[suffix]["bench"], "origin": finished_by(found[suffix]["versions"])}

    before, after = card.split(AFTER, 1)
    critic.card = filled(before.partition(SCORES)[0] + section(folders, notes) + AFTER + after, scores)
    critic.save(target, beside=[folders[0] / "figures" / name for name in FIGURES])
    for suffix, parts in found.items():
        path = result(config.name, suffix)
        write_json(path, parts["bench"])
        write_json(path.with_suffix(".versions.json"), parts["versions"])
    print(f"{target}: {caption(found['']['bench'])}")


if __name__ == "__main__":
    cli.run(main, ShipConfig, {})
