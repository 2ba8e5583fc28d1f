"""A run folder: everything one job leaves behind, from which tables and figures are made."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from wvm_rl.errors import InputError
from wvm_rl.files import atomic, forget
from wvm_rl.fingerprint import fingerprint
from wvm_rl.mirror import Mirror, WandbConfig
from wvm_rl.provenance import provenance

STAGES = "stages.json"  # wall time of the stages so far, while a run is not finished
# Settings that do not change a run's result.
IMMATERIAL = ("hydra", "defaults", "wandb", "data.root", "data.workers", "evaluation.workers", "root", "workers")


@dataclass
class Run:
    """An open run folder.

    Attributes:
        folder: where it lies.
        seconds: wall time of each stage so far.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    _mirror: Mirror | None = None
    _logged: set[str] = field(default_factory=set)

    @staticmethod
    def open(folder: Path, settings: dict[str, Any], wandb: WandbConfig, inputs: dict[str, str]) -> "Run":
        """Creates the folder with `versions.json` and `config.yaml`, or continues the interrupted run there.

        Args:
            settings: of the run, as `config.yaml` holds them.
            inputs: name -> fingerprint of what the run starts from; a line of `versions.json` each.
        """
        check(folder, settings, inputs)
        run = Run(folder, _read_json(folder / STAGES))
        begun = (folder / "config.yaml").exists()  # written last
        origin, earlier = provenance(), _read_json(folder / "versions.json") if begun else {}
        last = finished_by(earlier)
        if earlier and origin != {name: last.get(name) for name in origin}:
            earlier["continued"] = [*earlier.get("continued", []), origin]
        write_json(folder / "versions.json", earlier or {**origin, "inputs": inputs})
        with atomic(folder / "config.yaml") as partial:
            partial.write_text(yaml.safe_dump(_plain(settings), sort_keys=False))
        run._mirror = Mirror.of(folder, wandb, _plain(settings))
        return run

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Announces a stage and takes its time; what a killed one had taken is lost, an interrupted one adds up."""
        return shared([self], name)

    def log(self, stage: str, metrics: dict[str, float]) -> None:
        """Appends a line to `metrics.jsonl`; `metrics` has a `step`.

        A resumed run repeats the steps after its last checkpoint; the earlier lines of those are dropped.
        """
        path = self.folder / "metrics.jsonl"
        if stage not in self._logged:
            forget(path, stage, metrics["step"])
        self._logged.add(stage)
        with path.open("a") as file:
            file.write(json.dumps(_plain({"stage": stage, **metrics})) + "\n")
        if self._mirror:
            self._mirror.log({f"{stage}/{name}": value for name, value in metrics.items()})

    def mirror_text(self, name: str, text: str) -> None:
        """Hands a text, such as a model card, to wandb."""
        if self._mirror:
            self._mirror.text(name, text)

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        write_rows(self.folder / name, rows)

    def finish(self, summary: dict[str, Any], name: str = "summary.json") -> None:
        """Closes the run and mirrors it."""
        self.close(summary, name)
        self.mirror(summary)

    def close(self, summary: dict[str, Any], name: str = "summary.json") -> None:
        """Writes the summary, last."""
        write_json(self.folder / name, summary)
        (self.folder / STAGES).unlink(missing_ok=True)

    def mirror(self, summary: dict[str, Any]) -> None:
        """Hands summary, figures, videos and tables to wandb."""
        if self._mirror:
            self._mirror.finish(_plain(summary))


@contextmanager
def shared(runs: Sequence[Run], name: str) -> Iterator[None]:
    """A stage of several runs at once, whose time counts in equal shares."""
    print(f"== {name}", flush=True)
    start = time.perf_counter()
    try:
        yield
    finally:
        share = (time.perf_counter() - start) / len(runs)
        for run in runs:
            run.seconds[name] = run.seconds.get(name, 0.0) + share
            write_json(run.folder / STAGES, run.seconds)


def material(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings, flat as `group.key`, that a run's result depends on."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if (key := prefix + name) in IMMATERIAL:
            continue
        flat |= material(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return flat


def digest(settings: dict[str, Any]) -> str:
    """Eight hex digits that name the settings a run's result depends on."""
    return fingerprint(material(settings))[:8]


def finished_by(versions: dict[str, Any]) -> dict[str, Any]:
    """Command, commit and versions that finished a run, of its `versions.json`: its last continuation's, if any."""
    return versions.get("continued", [versions])[-1]


def finished_at(folder: Path) -> str:
    """Commit at which a run was finished."""
    return finished_by(_read_json(folder / "versions.json"))["commit"]


def check(folder: Path, settings: dict[str, Any], inputs: dict[str, str]) -> None:
    """Refuses to continue or show a run of other settings, or of other episodes or another critic at the same place.

    Raises:
        InputError: names the setting or input that differs.
    """
    if not (folder / "config.yaml").exists():
        return
    config = folder / "config.yaml"
    before = material(_parsed(config, yaml.safe_load, config.read_bytes()))
    now = material(yaml.safe_load(yaml.safe_dump(_plain(settings))))
    before |= {f"input {name}": value for name, value in _read_json(folder / "versions.json").get("inputs", {}).items()}
    now |= {f"input {name}": value for name, value in inputs.items()}
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise InputError(
                f"{folder} holds a run with {name}={before.get(name)}, now it is {now.get(name)}: choose another "
                "folder (hydra.run.dir=..., of a sweep or study folder=...) or delete it"
            )


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a parquet file, whole or not at all."""
    with atomic(path) as partial:
        pd.DataFrame(rows).to_parquet(partial, index=False)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all; NaN becomes null."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(_plain(content), indent=1) + "\n")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Summary of a finished run, None if there is none.

    Raises:
        InputError: the file is damaged.
    """
    return _read_json(folder / "summary.json") or None


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a run's file, empty if there is none."""
    return _parsed(path, json.loads, path.read_bytes()) if path.exists() else {}


def _parsed(path: Path, parse: Callable[[bytes], Any], content: bytes) -> dict[str, Any]:
    try:
        parsed = parse(content)
    except (ValueError, yaml.YAMLError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InputError(f"{path} is damaged: delete {path.parent} and run again")
    return parsed


def _plain(value: Any) -> Any:
    """JSON-able copy: paths as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
