"""The cells of a study as grids of scores, training seeds x initial states, of the rows that `gather` wrote."""

from pathlib import Path

import numpy as np
import pandas as pd

from envs.tasks import TASKS
from experiments.gather import BASE, KEY, NONE, SCORES
from wvm_rl.errors import InputError

NAMED = ("env", "agent", "value", "critic", "seed", "initial_state", "seconds")  # columns that rows must have, too
CONTROLS = ("shuffled", "clock", "noisy")  # sources that methods are not compared under


class Study:
    """Scores of the study's runs.

    Args:
        path: of the rows that `gather` wrote.
        score: of a rollout, one of `SCORES`.

    Raises:
        InputError: no such file, or cells of one kind and task that cannot be paired.
    """

    def __init__(self, path: Path, score: str = SCORES[0]):
        if score not in SCORES:
            raise InputError(f"score={score}: choose from {', '.join(SCORES)}")
        try:
            self.rows = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no rollouts to read; run `python -m experiments.study` first") from error
        if missing := [name for name in (*BASE, *NAMED, *SCORES) if name not in self.rows]:
            raise InputError(f"{path} lacks column {missing[0]}: name what `python -m experiments.study` wrote")
        for (task, *_), rows in self.rows.groupby(["env", *BASE]):
            cells = rows.groupby(["agent", "value"])
            found = {name: set(zip(cell["seed"], cell["initial_state"])) for name, cell in cells}
            every = set().union(*found.values())
            if lacking := [name for name, own in found.items() if own != every]:
                seed, state = min(every - found[lacking[0]])
                raise InputError(
                    f"{path}: {', '.join(lacking[0])} of {task} has no rollout of seed {seed} from initial state "
                    f"{state}, which others of its kind have: run it alike, or move those away"
                )
        there = set(self.rows["env"])
        self.tasks = [task for task in TASKS if task in there] + sorted(there - set(TASKS))
        self.score, self.base = score, self._base()
        self._cells: dict[tuple, dict[str, np.ndarray]] = {}
        for (*key, task), rows in self.rows.groupby([*KEY, "env"], sort=False):
            grid = rows.pivot(index="seed", columns="initial_state", values=score).to_numpy(float)
            self._cells.setdefault(tuple(key), {})[task] = grid

    def cell(self, agent: str, value: str, **where: object) -> dict[str, np.ndarray]:
        """Task -> successes [S,I] of the training seeds S from the initial states I."""
        found = self._cells.get(tuple({**self.base, **where, "agent": agent, "value": value}[name] for name in KEY), {})
        return {task: found[task] for task in self.tasks if task in found}

    def _base(self) -> dict[str, object]:
        """What most runs have in common: as in the study, else as most rollouts of bc."""
        bc = self.rows[self.rows["agent"] == "bc"]
        kinds = bc[list(BASE)].value_counts(sort=True)
        if not len(kinds) or tuple(BASE.values()) in kinds.index:
            return BASE
        return dict(zip(BASE, kinds.index[0]))

    @property
    def baseline(self) -> dict[str, np.ndarray]:
        """The cell of bc, beside which all others stand.

        Raises:
            InputError: it has no run.
        """
        if not (found := self.cell("bc", "none")):
            raise InputError("there is no run of agent=bc yet: all others stand beside it")
        return found

    @property
    def sources(self) -> list[str]:
        """Values that methods are compared under, the critic's first: its own, and what two methods at least have."""
        methods: dict[str, set[str]] = {}
        for *key, agent, value in self._cells:
            if dict(zip(BASE, key)) == self.base and value.split()[0] not in (NONE, *CONTROLS):
                methods.setdefault(value, set()).add(agent.split()[0])  # not of one method's settings
        known = [value for value, names in methods.items() if len(names) > 1 and value != "wvm"]
        return [*(["wvm"] if "wvm" in methods else []), *known]

    def methods(self, value: str) -> list[str]:
        """Methods but bc that were run with these values; with settings of its own one that was not run without."""
        found = [agent for agent in dict.fromkeys(self.rows["agent"]) if agent != "bc" and self.cell(agent, value)]
        return [agent for agent in found if (plain := agent.split()[0]) == agent or plain not in found]

    def values(self, agent: str, **where: object) -> list[str]:
        """Value sources that the study has for a method."""
        return [value for *key, value in self._cells if dict(zip(KEY, key)) == {**self.base, **where, "agent": agent}]
