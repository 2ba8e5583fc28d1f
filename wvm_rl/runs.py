"""A run folder: everything one job leaves behind, from which tables and figures are made (DESIGN.md)."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from wvm_rl.errors import InputError
from wvm_rl.files import atomic

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "chex", "numpy", "mujoco", "robosuite", "h5py")
WANDB_MODES = ("disabled", "offline", "online")


@dataclass
class WandbConfig:
    """Mirror of the run folder on Weights & Biases."""

    mode: str = "disabled"  # disabled | offline | online
    project: str = "wvm_rl"
    group: str | None = None  # groups runs of a sweep

    def __post_init__(self):
        if self.mode not in WANDB_MODES:
            raise InputError(f"wandb.mode={self.mode} is unknown: choose one of {', '.join(WANDB_MODES)}")


def provenance() -> dict[str, Any]:
    """Where results come from: command, commit (with `+` if the tree is changed), Python and package versions."""
    here = Path(__file__).parent

    def git(*command: str) -> str:
        try:
            return subprocess.run(
                ["git", *command], cwd=here, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    commit = git("rev-parse", "HEAD") or "unknown"
    module = sys.modules["__main__"].__spec__
    command = " ".join(["python", "-m", module.name if module else Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": command,
        "commit": commit + ("+" if git("status", "--porcelain") else ""),
        "python": sys.version.split()[0],
        **{name: version(name) for name in PACKAGES},
    }


@dataclass
class Run:
    """An open run folder.

    Attributes:
        folder: where it lies.
        seconds: wall time of each stage so far.
    """

    folder: Path
    wandb: WandbConfig = field(default_factory=WandbConfig)
    seconds: dict[str, float] = field(default_factory=dict)
    _mirror: Any = None
    _logged: set[str] = field(default_factory=set)

    @staticmethod
    def open(folder: Path, config: Any, wandb: WandbConfig) -> "Run":
        """Creates the folder with `config.yaml` and `versions.json`, or continues the interrupted run there."""
        run = Run(folder, wandb)
        with atomic(folder / "config.yaml") as partial:
            partial.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))
        write_json(folder / "versions.json", provenance())
        if wandb.mode != "disabled":
            import wandb as client

            run._mirror = client.init(
                project=wandb.project,
                group=wandb.group,
                mode=wandb.mode,  # type: ignore[arg-type]  # Hydra's configurations have no literals
                dir=folder,
                name=folder.name,
                config=_plain(asdict(config)),
            )
        return run

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announces a stage and takes its time."""
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def log(self, stage: str, metrics: dict[str, float]) -> None:
        """Appends a line to `metrics.jsonl`; `metrics` has a `step`.

        A resumed run repeats the steps after its last checkpoint; the earlier lines of those are dropped.
        """
        path = self.folder / "metrics.jsonl"
        if stage not in self._logged and path.exists():
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            lines = [json.loads(line) for line in whole]  # a kill may have cut the last one short
            kept = [line for line in lines if line["stage"] != stage or line["step"] < metrics["step"]]
            with atomic(path) as partial:
                partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._logged.add(stage)
        with path.open("a") as file:
            file.write(json.dumps(_plain({"stage": stage, **metrics})) + "\n")
        if self._mirror:
            self._mirror.log({f"{stage}/{name}": value for name, value in metrics.items()})

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.folder / name, content)

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        with atomic(self.folder / name) as partial:
            pd.DataFrame(rows).to_parquet(partial, index=False)

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`, last, and hands summary, figures and videos to wandb."""
        write_json(self.folder / "summary.json", summary)
        if self._mirror:
            import wandb as client

            files = sorted(self.folder.glob("figures/*.png"))
            self._mirror.log({f"figures/{path.stem}": client.Image(str(path)) for path in files})
            videos = sorted(self.folder.glob("videos/*.mp4"))
            self._mirror.log({f"videos/{path.stem}": client.Video(str(path)) for path in videos})
            self._mirror.log({"episodes": client.Table(dataframe=pd.read_parquet(self.folder / "episodes.parquet"))})
            self._mirror.summary.update(_plain(summary))
            self._mirror.finish()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all; NaN becomes null."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(_plain(content), indent=1) + "\n")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Summary of a finished run, None if there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "summary.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: delete {folder} and run again") from error


def show(summary: dict[str, Any], folder: Path) -> None:
    """Prints a run's outcome as a small table."""
    low, high = summary["success_ci95"]
    seconds = summary["median_seconds_to_success"]
    table = Table(show_header=False, title=f"{summary['env']}: {summary['agent']}, values from {summary['value']}")
    table.add_row("success", f"{summary['success_rate']:.2f}  (95 % interval {low:.2f} to {high:.2f})")
    table.add_row("success in budget", f"{summary['success_in_budget']:.2f}")
    table.add_row("median time to success", "none succeeded" if seconds is None else f"{seconds:.1f} s")
    table.add_row("rollouts", f"{summary['rollouts']} from {summary['seeds']} training seed(s)")
    table.add_row("samples kept", f"{summary['kept_fraction']:.0%} of {summary['samples']} control steps")
    table.add_row("effective sample size", f"{summary['ess_fraction']:.0%}")
    for stage, wall in summary["wall_seconds"].items():
        table.add_row(f"seconds: {stage}", f"{wall:.1f}")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"run folder: {folder}", markup=False, highlight=False)


def _plain(value: Any) -> Any:
    """JSON-able copy: paths as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
