"""Pictures of values: curves with the true progress and shaded lapses, film strips, and the benchmark's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from wvm_rl.data.episodes import KINDS, QUALITIES, Dataset, Episode
from wvm_rl.files import atomic
from wvm_rl.values.oracle import truth

# Okabe and Ito's colours, told apart by the colour-blind too.
PREDICTED, TRUE = "#0072B2", "#000000"
SHADES = {"hesitation": "#E69F00", "retry": "#CC79A7", "failure": "#D55E00"}
SAMPLES = {"progress": PREDICTED, "edge": "0.6", **SHADES}  # kinds of `wvm_rl.inspect`
COLUMN = 3.4  # inches, width of a paper's column
STRIP = 10  # frames in a film strip
OTHERS = ("#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#D55E00")  # of further models in one panel
KINDS_SHOWN = ("hesitation", "retry", "expert", "failure")  # of the benchmark's episodes
BINS = 10  # of a calibration curve
LEGEND = 0.2  # inches of height of the benchmark's legends


def summary(folder: Path, dataset: Dataset, values: Sequence[np.ndarray]) -> None:
    """Draws `value_curves.png` and, if the dataset has frames, `film_strip.png` of an episode with lapses."""
    value_curves(folder, dataset, values)
    if dataset.cameras:
        index = next((episode.index for episode in dataset if episode.quality == "mixed"), 0)
        film_strip(folder / "film_strip.png", dataset, index, dataset.cameras[0], values[index])


def value_curves(folder: Path, dataset: Dataset, values: Sequence[np.ndarray]) -> Path:
    """Draws the values of one episode of each quality, as `value_curves.png`.

    Args:
        values: per episode [T], one a control step.
    """
    chosen: dict[str, Episode] = {}
    for episode in dataset:
        chosen.setdefault(episode.quality, episode)
    episodes = [chosen[quality] for quality in QUALITIES if quality in chosen]
    with plt.rc_context({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(len(episodes), 1, figsize=(COLUMN, 1.05 * len(episodes) + 0.5), squeeze=False)
        for axis, episode in zip(axes[:, 0], episodes):
            curve(axis, dataset, episode, values[episode.index])
            axis.set_title(f"{episode.quality}, episode {episode.index}", loc="left", pad=2)
        return _finish(figure, axes[-1, 0], folder / "value_curves.png")


def film_strip(path: Path, dataset: Dataset, index: int, camera: str, values: np.ndarray) -> Path:
    """Draws frames of an episode above its value curve.

    Args:
        values: [T], one a control step.
    """
    frames, step = dataset.frames(index, camera)
    seconds = len(values) / dataset.control_freq
    middles = (np.arange(STRIP) + 0.5) * seconds / STRIP  # each frame stands above its own moment
    shown = np.abs(step[:, None] / dataset.control_freq - middles).argmin(axis=0)
    with plt.rc_context({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(2.1 * COLUMN, 2.25), height_ratios=(1, 1.5), layout="constrained", sharex=True
        )
        above.imshow(np.concatenate(list(frames[shown]), axis=1), extent=(0, seconds, 0, 1), aspect="auto")
        above.set_axis_off()
        curve(below, dataset, dataset[index], values)
        for middle in middles:
            below.axvline(middle, color="0.85", linewidth=0.5, zorder=0)
        below.set_xlim(0, seconds)
        return _finish(figure, below, path)


def curve(axis: Axes, dataset: Dataset, episode: Episode, values: np.ndarray) -> None:
    """Draws an episode's values, its true progress if that is known, and its lapses."""
    seconds = np.arange(len(values)) / dataset.control_freq
    for kind, first, last in episode.lapses / np.array([1, dataset.control_freq, dataset.control_freq]):
        until = last + 1 / dataset.control_freq
        axis.axvspan(first, until, color=SHADES[KINDS[int(kind)]], alpha=0.3, lw=0)
    if "expert_steps" in dataset.env_args:
        axis.plot(seconds, truth(episode, dataset.env_args["expert_steps"]), "--", color=TRUE, lw=0.8)
    axis.plot(seconds, values, color=PREDICTED, lw=1.2)
    axis.set(ylim=(-0.03, 1.05), xlim=(0, seconds[-1]), ylabel="value", yticks=(0, 0.5, 1))


# The benchmark, from the rows of `wvm_rl.scores.trajectories`


def bench_curves(path: Path, rows: Sequence[Mapping[str, Any]], models: Sequence[str], per_second: int) -> Path:
    """Draws values on the first episode of each kind (rows) and task (columns), after the paper's Figure 4.

    Args:
        models: the first stands out.
        per_second: control steps a second.
    """
    plain = [row for row in rows if row["clip"] == "bench" and row["model"] in models]
    tasks = list(dict.fromkeys(row["task"] for row in plain))
    kinds = [kind for kind in KINDS_SHOWN if any(row["kind"] == kind for row in plain)]
    with plt.rc_context({"font.size": 6, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(
            len(kinds),
            len(tasks),
            figsize=(1.25 * len(tasks) + 0.5, 1.0 * len(kinds) + 0.4),
            squeeze=False,
            sharey=True,
        )
        for line, kind in zip(axes, kinds):
            for axis, task in zip(line, tasks):
                own = [row for row in plain if (row["kind"], row["task"]) == (kind, task)]
                shown = [row for row in own if row["episode"] == min(row["episode"] for row in own)]
                for row in sorted(shown, key=lambda row: models.index(row["model"]), reverse=True):
                    _panel(axis, row, _colour(models, row["model"]), per_second)
            line[0].set_ylabel(kind)
        for axis, task in zip(axes[0], tasks):
            axis.set_title(task, pad=2)
        return _labelled(figure, axes[-1], models, "time (s)", path)


def _panel(axis: Axes, row: Mapping[str, Any], colour: str, per_second: int) -> None:
    seconds = np.asarray(row["step"]) / per_second
    if row["kind"] in SHADES and row["last"] >= 0 and not axis.patches:
        axis.axvspan(row["first"] / per_second, (row["last"] + 1) / per_second, color="0.9", lw=0)
    if row["truth"] is not None and not any(line.get_linestyle() == "--" for line in axis.lines):
        axis.plot(seconds, row["truth"], "--", color=TRUE, lw=0.7)
    axis.plot(seconds, row["value"], color=colour, lw=1.2 if colour == PREDICTED else 0.6)
    axis.set(ylim=(-0.03, 1.05), yticks=(0, 0.5, 1))


def calibration(path: Path, rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Path:
    """Draws the mean true value against the predicted one, in bins of it, one panel a task."""
    known = [row for row in rows if row["clip"] == "bench" and row["truth"] is not None and row["model"] in models]
    tasks = list(dict.fromkeys(row["task"] for row in known))
    with plt.rc_context({"font.size": 6, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(
            1,
            len(tasks),
            figsize=(1.25 * len(tasks) + 0.5, 2.0),
            squeeze=False,
            sharey=True,
            sharex=True,
        )
        for axis, task in zip(axes[0], tasks):
            axis.plot([0, 1], [0, 1], "--", color=TRUE, lw=0.7)
            for model in reversed(models):
                own = [row for row in known if (row["task"], row["model"]) == (task, model)]
                value, true = (np.concatenate([np.asarray(row[name]) for row in own]) for name in ("value", "truth"))
                place = np.minimum((value * BINS).astype(int), BINS - 1)
                found = [(value[place == b].mean(), true[place == b].mean()) for b in range(BINS) if (place == b).any()]
                colour = _colour(models, model)
                axis.plot(*zip(*found), color=colour, lw=1.2 if colour == PREDICTED else 0.6, marker=".", ms=2)
            axis.set_title(task, pad=2)
            axis.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes[0, 0].set_ylabel("true value")
        return _labelled(figure, axes[-1], models, "predicted value", path)


def weights(path: Path, found: Mapping[str, Any]) -> Path:
    """Draws how a method's favour is spread within each kind of sample, from what `wvm_rl.inspect` found."""
    with plt.rc_context({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axis = plt.subplots(figsize=(COLUMN, 2.0), layout="constrained")
        for kind, row in found["kinds"].items():
            counts = np.array(row["histogram"])
            label = f"{kind}, {row['share']:.0%}"
            axis.stairs(counts / counts.sum(), found["edges"], color=SAMPLES[kind], lw=1.2, label=label)
        axis.set(xlabel="weight, or condition", ylabel="share of a kind's samples")
        axis.legend(frameon=False, fontsize=6)
        return _saved(figure, path)


def _colour(models: Sequence[str], model: str) -> str:
    return (PREDICTED, *OTHERS)[models.index(model)]


def _labelled(figure: plt.Figure, last: Sequence[Axes], models: Sequence[str], below: str, path: Path) -> Path:
    for axis in last:
        axis.set_xlabel(below)
    handles: list[Any] = [plt.Line2D([], [], color=TRUE, lw=0.7, ls="--")]
    handles += [plt.Line2D([], [], color=_colour(models, model), lw=1.2) for model in models]
    names = ["true", *models]
    figure.legend(handles, names, loc="upper center", ncols=len(names), frameon=False, fontsize=6)
    figure.tight_layout(rect=(0, 0, 1, 1 - LEGEND / figure.get_figheight()))
    return _saved(figure, path)


def _finish(figure: plt.Figure, last: Axes, path: Path) -> Path:
    last.set_xlabel("time (s)")
    handles: list[Any] = [plt.Line2D([], [], color=PREDICTED, lw=1.2), plt.Line2D([], [], color=TRUE, lw=0.8, ls="--")]
    handles += [plt.Rectangle((0, 0), 1, 1, color=shade, alpha=0.3) for shade in SHADES.values()]
    figure.legend(handles, ["value", "true", *SHADES], loc="outside upper center", ncols=5, frameon=False, fontsize=6)
    if figure.get_layout_engine() is None:
        figure.tight_layout(rect=(0, 0, 1, 0.97))
    return _saved(figure, path)


def _saved(figure: plt.Figure, path: Path) -> Path:
    with atomic(path) as partial:
        figure.savefig(partial, dpi=200, format="png")
    plt.close(figure)
    return path
