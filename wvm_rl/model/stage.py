"""A stage of pretraining: a folder named by what shapes its result, which is made once, by one program at a time."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wvm_rl import sharding
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, exclusive
from wvm_rl.fingerprint import fingerprint
from wvm_rl.model import weights
from wvm_rl.provenance import provenance


@dataclass(frozen=True)
class Stage:
    """Where a stage works and leaves its result.

    Attributes:
        name: of the stage.
        meta: all that shapes its result.
        root: where the folders of stages lie.
    """

    name: str
    meta: dict[str, Any]
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / f"{self.name}-{fingerprint(self.meta)[:10]}"

    @property
    def ended(self) -> bool:
        """Whether the parameters that it ends with are there."""
        return self._params.exists()

    @property
    def _params(self) -> Path:
        return self.folder / "params.safetensors"

    def kept(
        self, make: Callable[[], dict[str, np.ndarray]], shapes: dict[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """The parameters that the stage ends with, made once."""
        path = self._params
        if not sharding.agreed(path.exists()):
            with self.alone():
                if not sharding.agreed(path.exists()):  # nor has who held it made it by now
                    if sharding.is_first():
                        self._begun()
                    made = make()
                    if sharding.is_first():
                        with atomic(path) as part:
                            weights.save(part, made)
                    sharding.meet(f"{path} written")
        return weights.load(path, shapes)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder against other trainings that share the stage.

        Raises:
            InputError: on all of several hosts, whose first cannot hold it: the others could not wait with it.
        """
        with ExitStack() as held:
            problem = None
            try:
                if sharding.is_first():
                    held.enter_context(exclusive(self.folder, wait=jax.process_count() == 1))
            except InputError as error:
                problem = error
            if not sharding.agreed(problem is None):
                raise problem or InputError(f"the first host cannot hold {self.folder}, and says why")
            yield

    def commits(self) -> list[str]:
        """Commits of the code by which the training was begun and gone on with, in the order of their first use."""
        path = self.folder / "commits.json"
        return json.loads(path.read_text()) if path.exists() else []

    def scores(self) -> dict[str, float]:
        """Last row of metrics of the finished training."""
        row = json.loads((self.folder / "metrics.jsonl").read_text().splitlines()[-1])
        return {name: value for name, value in row.items() if name != "stage"}

    def _begun(self) -> None:
        commit = provenance()["commit"]
        if commit not in (known := self.commits()):
            with atomic(self.folder / "commits.json") as part:
                part.write_text(json.dumps([*known, commit]))
