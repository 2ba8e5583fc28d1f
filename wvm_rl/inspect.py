"""What a method would learn from, before any training: `python -m wvm_rl.inspect agent=awr env=can data=suboptimal`.

Takes the settings of `wvm_rl.train`. Prints the effective sample size, how much weight falls on what kind of sample,
and how well it tells progress from lapses; draws the weights' histogram. A sample's kind is that of the K control
steps over which its advantage is taken: progress, a lapse's kind, or an edge that has both. Not its episode's quality:
most of an episode with a failed grasp is as good as an expert's.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from agents.base import Columns, effective_fraction
from wvm_rl import cli, figures
from wvm_rl.config import GROUPS, TrainConfig, run_name
from wvm_rl.data.episodes import KINDS, Episode
from wvm_rl.metrics import advantage_labels, wins
from wvm_rl.runs import write_json
from wvm_rl.samples import Samples, origin, prepared
from wvm_rl.stats import auroc, interval

PROGRESS, EDGE = "progress", "edge"
CHANCE = 0.5
RARE = 0.01  # share of samples
TENTHS = 10  # of the samples, by value
FEW = 10  # samples of a batch
AROUND = 5  # control steps before and after the gripper closes
SPARSE = 0.2  # of the average: what samples there should weigh at least
BINS = 20  # of the histograms


def kinds(episode: Episode, horizon: int) -> np.ndarray:
    """Kind of each control step's chunk, [T] of str."""
    steps = np.arange(len(episode))
    found = np.full(len(episode), EDGE, dtype=object)
    found[advantage_labels(len(episode), episode.lapses, steps, horizon) == 0] = PROGRESS
    for number, kind in enumerate(KINDS):
        own = episode.lapses[episode.lapses[:, 0] == number]
        if len(own):
            found[advantage_labels(len(episode), own, steps, horizon) == 1] = kind
    return found


def favour(columns: Columns) -> np.ndarray:
    """How much a sample is favoured, [N]: its weight, or what it is conditioned on where all weigh the same."""
    if columns.cond is not None and np.ptp(columns.weight) == 0:
        return columns.cond[:, 0]
    return columns.weight


def grasps(episode: Episode) -> np.ndarray:
    """Whether the gripper closes at about a control step, [T] of bool; its command, a switch, is an action's last."""
    closed = episode.actions[:, -1] >= 0
    found = np.zeros(len(episode), bool)
    for step in np.flatnonzero(closed[1:] & ~closed[:-1]) + 1:
        found[max(step - AROUND, 0) : step + AROUND] = True
    return found


def inspected(samples: Samples, horizon: int) -> dict[str, Any]:
    """Effective sample size, AUROC of progress against lapses with its interval; shares and histograms by kind.

    And `asked_fraction`, the share of samples with the condition that is asked for when acting, null for a method
    without; `at_grasps`, the mean weight where the gripper closes, in shares of all samples', null if it never does.
    """
    columns = samples.columns[0]
    score = favour(columns)
    labels = np.concatenate([kinds(episode, horizon) for episode in samples.episodes])
    ends = np.cumsum([len(episode) for episode in samples.episodes])[:-1]
    high, low = (
        [each[np.isin(kind, wanted)] for each, kind in zip(np.split(score, ends), np.split(labels, ends))]
        for wanted in ([PROGRESS], list(KINDS))
    )
    counts = np.array([len(each) for each in high]), np.array([len(each) for each in low])
    area, resampled = auroc([(wins(high, low), *counts)], joint=True)
    present = [name for name in (PROGRESS, EDGE, *KINDS) if (labels == name).any()]
    edges = np.linspace(score.min(), max(score.max(), score.min() + 1e-6), BINS + 1)
    agent = samples.agent
    names = [agent.knob.name, *agent.knob.beside] if agent.knob else []
    at_grasps = columns.weight[np.concatenate([grasps(episode) for episode in samples.episodes])]
    return {
        "samples": len(score),
        "ess_fraction": effective_fraction(columns.weight),
        "asked_fraction": float(agent.asked(columns).mean()) if agent.conditions else None,
        "knob": {name: getattr(agent, name) for name in names},
        "at_grasps": float(at_grasps.mean() / columns.weight.mean()) if len(at_grasps) else None,
        "auroc": area,
        "auroc_ci95": list(interval(resampled)),
        "edges": edges.tolist(),
        "kinds": {
            name: {
                "share": float((labels == name).mean()),
                "mean_weight": float(columns.weight[labels == name].mean()),
                "mean_favour": float(score[labels == name].mean()),
                "share_of_weight": float(columns.weight[labels == name].sum() / columns.weight.sum()),
                "histogram": np.histogram(score[labels == name], edges)[0].tolist(),
            }
            for name in present
        },
    }


def warning(found: dict[str, Any], samples: Samples, batch: int) -> str | None:
    """What speaks against training on this in batches of so many samples; None if nothing does."""
    columns, told = samples.columns[0], list[str]()
    by_value = np.argsort(np.concatenate(samples.values), kind="stable")

    def lacking_in(counts: np.ndarray) -> int:
        return sum(tenth.mean() < RARE for tenth in np.array_split(counts[by_value], TENTHS))

    if columns.cond is not None:
        near = samples.agent.asked(columns)
        if near.mean() < RARE:
            told.append(
                f"{near.mean():.2%} of the samples have the condition that is asked for when acting: the policy hardly "
                "learns it"
            )
        elif 2 * (lacking := lacking_in(near)) > TENTHS:  # it learns how to act there from other conditions
            told.append(
                f"the condition that is asked for when acting is missing in {lacking} of {TENTHS} tenths of the "
                "progress: are the values too coarse?"
            )
    if (at_grasps := found["at_grasps"]) is not None and at_grasps < SPARSE:
        told.append(
            f"where the gripper closes samples weigh {at_grasps:.2g} of the average: the policy hardly learns to "
            "grasp, be less strict"
        )
    if lacking := lacking_in(columns.weight / columns.weight.mean()):
        told.append(
            f"hardly any samples count in {lacking} of {TENTHS} tenths of the progress: the policy does not learn to "
            "act there, be less strict"
        )
    if (counting := found["ess_fraction"] * batch) < FEW:
        told.append(f"only about {counting:.1f} of a batch's {batch} samples count: keep more, or raise trainer.batch")
    if np.ptp(favour(columns)) == 0:
        told.append("all samples are favoured alike: the values carry no ranking information for this method")
    elif found["auroc_ci95"][0] <= CHANCE:  # false where no lapse is recorded
        told.append(f"progress is told from lapses no better than by chance (AUROC {found['auroc']:.2f})")
    return "; ".join(told) or None


def show(found: dict[str, Any]) -> None:
    """Prints the findings."""
    table = Table(title="samples by what their next control steps are")
    for column in ("kind", "share of samples", "mean weight", "mean favour", "share of weight"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for name, row in found["kinds"].items():
        table.add_row(name, *(f"{row[key]:.2f}" for key in ("share", "mean_weight", "mean_favour", "share_of_weight")))
    console = Console(soft_wrap=True)
    console.print(table)
    if found["at_grasps"] is not None:
        console.print(f"mean weight where the gripper closes, times the average: {found['at_grasps']:.2f}")
    knob = "".join(f", agent.{name}={value:.4g}" for name, value in found["knob"].items())
    console.print(f"effective sample size {found['ess_fraction']:.0%} of {found['samples']}{knob}")
    if found["asked_fraction"] is not None:
        console.print(f"{found['asked_fraction']:.0%} have the condition that is asked for when acting")
    low, high = found["auroc_ci95"]
    known = f"{found['auroc']:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(found["auroc"]) else "no lapse is recorded"
    console.print(f"AUROC of favour, progress against lapses: {known}")


def main(config: TrainConfig, folder: Path) -> None:
    """Prints and draws; leaves `inspect.json` and `figures/weights.png`."""

    def stage(name: str) -> AbstractContextManager[None]:
        print(f"== {name}", flush=True)
        return nullcontext()

    source = config.value.source()
    samples = prepared(config, origin(config, source), source, stage)
    found = inspected(samples, config.value.horizon_k)
    show(found)
    if message := warning(found, samples, config.trainer.batch) if config.informed else None:
        print(f"warning: {message}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "inspect.json", found | {"warning": message})
    figures.weights(folder / "figures" / "weights.png", found)
    print(f"{folder}/figures/weights.png")


if __name__ == "__main__":
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    cli.run(main, TrainConfig, GROUPS, run_dir="runs/inspect-${run_name:}")
