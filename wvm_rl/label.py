"""Labels a dataset with values: `python -m wvm_rl.label dataset=episodes.hdf5 value=wvm`.

They lie beside the dataset as `<dataset>.<source>-<hash of its fingerprint>.parquet` (`wvm_rl.data.sidecar`) and are
computed once.
"""

import json
import shutil
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from tqdm import tqdm

from wvm_rl import cli
from wvm_rl.data import sidecar
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, exclusive
from wvm_rl.values import VALUES
from wvm_rl.values.base import Source, ValueConfig, Values


@dataclass
class LabelConfig:
    """Labels one dataset."""

    defaults: list[Any] = field(default_factory=lambda: [{"value": "wvm"}, "_self_"])
    value: Any = MISSING
    dataset: str = MISSING  # path of the episodes


def label(dataset: Dataset, source: Source, progress: bool = True) -> list[np.ndarray]:
    """Values of every episode at its control steps, [T] f32 each; see `tracks`."""
    return [track.progress for track in tracks(dataset, source, progress)]


def tracks(dataset: Dataset, source: Source, progress: bool = True) -> list[sidecar.Track]:
    """Values and standard deviations of every episode at its control steps.

    Read from the sidecar if its fingerprints are those of this dataset and this source, else computed and written.
    Finished episodes survive a kill in `<sidecar>.parts/`.

    Args:
        progress: show a bar.

    Raises:
        InputError: the source cannot value these episodes, or the folder cannot be written to.
    """
    path = sidecar.beside(dataset.path, source.name, source.fingerprint)
    belongs = {"dataset": dataset.fingerprint, "source": source.name, "critic": source.fingerprint}
    found = sidecar.read(path, dataset.lengths, belongs)
    if found is None:
        with exclusive(path):
            if (found := sidecar.read(path, dataset.lengths, belongs)) is None:
                _compute(dataset, source, path, belongs, progress)
                found = sidecar.read(path, dataset.lengths, belongs)
    assert found is not None
    return found


def at_steps(values: Values, length: int) -> sidecar.Track:
    """Values and deviations at control steps 0 .. length-1: linear between frames, constant beyond the outer ones."""
    steps = np.arange(length)
    std = np.full(len(values.step), np.nan) if values.std is None else values.std
    return sidecar.Track(*(np.interp(steps, values.step, each).astype(np.float32) for each in (values.value, std)))


def _compute(dataset: Dataset, source: Source, path: Path, belongs: dict[str, Any], progress: bool) -> None:
    """Writes the sidecar, going on after the episodes that an interrupted labelling of the same kind has left."""
    parts = path.with_suffix(".parts")
    done = _finished(parts, belongs)
    values = source.values(dataset, done)
    first = list(islice(values, 1))  # may refuse the dataset, before anything is written
    _begin(parts, belongs)
    lengths, description = dataset.lengths, f"values: {source.name}"
    bar = tqdm(total=len(dataset), initial=done, desc=description, unit="ep", disable=not progress)
    with bar:
        for index, each in enumerate(chain(first, values), start=done):
            _check(f"{dataset.path}: value={source.name}", each, index, lengths)
            track = at_steps(each, lengths[index])
            sidecar.write_part(parts / f"{index:06d}.parquet", index, track)
            bar.update()
    if (count := _finished(parts, belongs)) < len(dataset):
        raise InputError(f"{dataset.path}: value={source.name} gave values of {count} of {len(dataset)} episodes")
    info = {"fps": dataset.control_freq, "prompts": sorted({episode.instruction for episode in dataset})}
    sidecar.join(path, [parts / f"{index:06d}.parquet" for index in range(len(dataset))], belongs, info)
    shutil.rmtree(parts)


def _check(name: str, values: Values, index: int, lengths: list[int]) -> None:
    """Raises InputError unless a source's values of an episode are progress at its control steps."""
    if index >= len(lengths):
        raise InputError(f"{name} gave values of more than the {len(lengths)} episodes")
    step, value = np.asarray(values.step), np.asarray(values.value)
    std = step if values.std is None else np.asarray(values.std)
    if step.ndim != 1 or not len(step) or not value.shape == std.shape == step.shape:
        shapes = f"step {step.shape}, value {value.shape}, std {std.shape}"
        raise InputError(f"{name} gave arrays of other lengths in episode {index} ({shapes}): one number a step")
    if not (step[0] >= 0 and step[-1] < lengths[index] and (np.diff(step) > 0).all()):
        raise InputError(
            f"{name} gave steps that do not rise within the {lengths[index]} of episode {index}: each once, in order"
        )
    if not np.isfinite(value).all():
        raise InputError(f"{name} is not finite in episode {index}: check the source")
    if value.min() < -1e-3 or value.max() > 1 + 1e-3:
        raise InputError(f"{name} lies in [{value.min():g}, {value.max():g}] in episode {index}: must be within [0, 1]")


def _finished(parts: Path, belongs: dict[str, Any]) -> int:
    """Episodes that an interrupted labelling of the same kind has left; parts of another kind are dropped."""
    note = parts / "notes.json"
    if parts.exists() and not (note.exists() and json.loads(note.read_text()) == belongs):
        shutil.rmtree(parts)
    return len(list(parts.glob("[0-9]*.parquet")))


def _begin(parts: Path, belongs: dict[str, Any]) -> None:
    if not parts.exists():
        with atomic(parts) as partial:
            partial.mkdir()
            (partial / "notes.json").write_text(json.dumps(belongs))


def command(config: LabelConfig) -> None:
    for each in fields(ValueConfig):
        if getattr(config.value, each.name) != each.default:
            raise InputError(f"value.{each.name} is of advantages, labels are values: leave it to wvm_rl.train")
    dataset, source = Dataset(Path(config.dataset).expanduser()), config.value.source()
    values = label(dataset, source)
    path, count = sidecar.beside(dataset.path, source.name, source.fingerprint), sum(len(value) for value in values)
    print(f"{path}: {count} control steps of {len(values)} episodes")


if __name__ == "__main__":
    cli.run(command, LabelConfig, {"value": VALUES})
