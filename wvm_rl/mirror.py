"""A run folder's mirror on Weights & Biases; the folder itself needs none."""

import html
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wvm_rl.errors import InputError
from wvm_rl.files import atomic

WANDB_MODES = ("disabled", "offline", "online")
IDENTITY = "wandb_id"  # file that holds the mirror's, which an interrupted run keeps


@dataclass
class WandbConfig:
    """Mirror of the run folder on Weights & Biases."""

    mode: str = "disabled"  # disabled | offline | online
    project: str = "wvm_rl"
    group: str | None = None  # groups runs of a sweep

    def __post_init__(self) -> None:
        if self.mode not in WANDB_MODES:
            raise InputError(f"wandb.mode={self.mode} is unknown: choose one of {', '.join(WANDB_MODES)}")


class Mirror:
    """An open mirror of a run folder."""

    def __init__(self, folder: Path, client: Any, opened: Any):
        self._folder, self._client, self._opened = folder, client, opened

    @staticmethod
    def of(folder: Path, config: WandbConfig, settings: dict[str, Any]) -> "Mirror | None":
        """Opens the folder's mirror, or goes on with it; None if it is disabled.

        Raises:
            InputError: wandb cannot be reached, or refuses.
        """
        if config.mode == "disabled":
            return None
        import wandb as client

        try:
            opened = client.init(
                project=config.project,
                group=config.group,
                mode=config.mode,  # type: ignore[arg-type]  # Hydra's configurations have no literals
                dir=folder,
                id=_identity(folder),
                resume="allow" if config.mode == "online" else None,
                name=folder.name,
                config=settings,
                reinit="create_new",  # runs of one program each have their own
            )
        except client.Error as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"wandb.mode={config.mode}: {reason} (or use wandb.mode=offline)") from error
        opened.define_metric("policy/*", step_metric="policy/step")  # a resumed run logs some steps again
        return Mirror(folder, client, opened)

    @property
    def identity(self) -> str:
        return self._opened.id

    def log(self, metrics: dict[str, Any]) -> None:
        self._opened.log(metrics)

    def text(self, name: str, text: str) -> None:
        """Shows a text as it is."""
        self.log({name: self._client.Html(f"<pre>{html.escape(text)}</pre>")})

    def finish(self, summary: dict[str, Any]) -> None:
        """Hands over summary, figures, videos and tables, and closes the mirror."""
        client = self._client
        self.log({f"figures/{path.stem}": client.Image(str(path)) for path in self._files("figures/*.png")})
        self.log({f"videos/{path.stem}": client.Video(str(path)) for path in self._files("videos/*.mp4")})
        for path in self._files("*.parquet"):
            frame = pd.read_parquet(path)
            plain = [name for name in frame if not frame[name].map(np.ndim).any()]  # its tables hold no arrays
            self.log({path.stem: client.Table(dataframe=frame[plain])})
        self._opened.summary.update(summary)
        self._opened.finish()

    def _files(self, pattern: str) -> list[Path]:
        return sorted(self._folder.glob(pattern))


def _identity(folder: Path) -> str:
    path = folder / IDENTITY
    if not path.exists():
        with atomic(path) as partial:
            partial.write_text(uuid.uuid4().hex[:8])
    return path.read_text()
