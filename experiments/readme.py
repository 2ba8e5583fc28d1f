"""Tables of the README and of model cards, from committed results: `python -m experiments.readme`.

Fills what stands between `<!-- table: <name> ... -->` and `<!-- end -->`; the rest is written by hand. Names:

    job <agent> ...          what the main job came to, and others like it: `main_job_<agent>.json`, a run's summary
    bench <n> <critic> ...   scores of critics on the seed of their n-th benchmark, from 0 (`bench_<critic>.json`,
                             `bench_<critic>_1.json`, ...), and of the other models in the first critic's file
    pairs <critic>           its differences from other models, all seeds together: `bench_<critic>_pairs.json`
    shifts <critic>          its scores on the shifted split and on what it never saw: `bench_<critic>_shifts.json`
                             and `bench_<critic>_unseen.json`
    study                    success of the study's methods and value sources, by task
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import AGENTS
from experiments.comparisons import paired, per_task, shown
from experiments.grids import Study
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.model.critic_folder import SHIPPED
from wvm_rl.runs import finished_by
from wvm_rl.scoreboard import COLUMNS, cell, markdown_table
from wvm_rl.stats import iqm, iqm_difference, mean_difference
from wvm_rl.values.wvm import DEFAULT

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(<!-- table: (\w+) ?([^\n]*?) -->)\n(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
SCORES = ("Hesitation-RMSE", "Retry-VOC", "Expert-VOC", "Cycle-VOC", "failure AUROC", "lapse AUROC")
COMPARED = ("Hesitation-RMSE", "Retry-VOC", "lapse AUROC")
SHIFTED = ("Hesitation-RMSE", "Retry-VOC", "Expert-VOC", "failure AUROC", "lapse AUROC")
RATES = (("success_rate", "ci95"), ("success_in_budget", "in_budget_ci95"))
OTHERS = {
    "frame": "regressor on one frame",
    "video": "regressor on the video so far",
    "floor": "regressor on the simulator's state (floor)",
    "clock": "clock t/T",
}
SHIFTS = {
    "moved5": "camera turned by 5 degrees",
    "moved10": "camera turned by 10 degrees",
    "moved20": "camera turned by 20 degrees",
    "lit": "other light",
    "textured": "other colours",
    "sawyer": "Sawyer in place of the Panda",
    "ur5e": "UR5e in place of the Panda",
    "jitter": "hesitation that trembles",
    "drift": "hesitation that slides aside",
    "detour": "hesitation that makes a round",
}
UNSEEN = {
    "lemon": "unseen object: a lemon lifted",
    "nut": "unseen task: round nut over its peg",
    "door": "unseen task: door",
}


@dataclass
class ReadmeConfig:
    """Fills the README and the cards of all shipped critics."""


def result(name: str, suffix: str) -> Path:
    """Where a critic's scores lie; suffix: `_<number>` from the second benchmark on, `_pairs`, `_shifts`, `_unseen`."""
    return RESULTS / f"bench_{name}{suffix}.json"


def read(name: str, suffix: str) -> dict[str, Any]:
    """A critic's committed scores, and how they were made as `origin`.

    Raises:
        InputError: there are none.
    """
    return _read(result(name, suffix), "`python -m experiments.ship` puts them there")


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        versions = json.loads(path.with_suffix(".versions.json").read_text())
        return {**json.loads(path.read_text()), "origin": finished_by(versions)}
    except OSError as error:
        raise InputError(f"{path}: no such results; {remedy}") from error


Reader = Callable[[str, str], dict[str, Any]]


def job(reader: Reader, *agents: str) -> str:
    """What runs of `wvm_rl.train` came to, and their commands."""
    rows, made = [["", "rollouts", "success", "within the time budget", "median seconds", "minutes"]], []
    for agent in agents:
        run = _read(RESULTS / f"main_job_{agent}.json", "copy summary.json and versions.json of a run folder there")
        rates = ["{:.2f} [{:.2f}, {:.2f}]".format(run[key], *run[f"success_{end}"]) for key, end in RATES]
        seconds = run["median_seconds_to_success"]
        minutes = sum(run["wall_seconds"].values()) / 60
        rows.append([agent, str(run["rollouts"]), *rates, f"{seconds:.1f}" if seconds else "-", f"{minutes:.0f}"])
        made.append(f"`{run['origin']['command']}` at commit {run['origin']['commit'][:7]}")
    return f"{markdown_table(rows)}\nBy {', '.join(made)}.\n"


def bench(reader: Reader, number: str, first: str, *others: str) -> str:
    """Pooled scores on one seed."""
    found = {name: reader(name, "" if number == "0" else f"_{number}") for name in (first, *others)}
    seed, *different = dict.fromkeys(content["seed"] for content in found.values())
    if different:
        raise InputError(f"benchmark {number} of {', '.join(found)}: seeds {seed} and {different[0]} make no table")
    rows = [[f"seed {seed}", *SCORES]]
    for name, content in found.items():
        what = "**World Value Model** `{}` (the default)" if name == DEFAULT else "World Value Model `{}`"
        rows.append([what.format(name), *_scores(content["models"]["wvm"], SCORES)])
    beside = found[first]["models"]
    return markdown_table([*rows, *([title, *_scores(beside[model], SCORES)] for model, title in OTHERS.items())])


def pairs(reader: Reader, critic: str) -> str:
    """Differences in pairs of trajectories from other models, all seeds together."""
    content = reader(critic, "_pairs")
    rows = [[f"seeds {', '.join(map(str, content['seeds']))}: `{critic}` minus", *COMPARED]]
    rows += [[OTHERS[name], *_scores(found, COMPARED)] for name, found in content["models"].items() if name in OTHERS]
    return markdown_table(rows)


def shifts(reader: Reader, critic: str) -> str:
    """Scores on the shifted split and on the tasks and objects that the critic never saw, and the commands."""
    content, unseen = reader(critic, "_shifts"), reader(critic, "_unseen")
    if missing := [*(SHIFTS.keys() - content["shifts"].keys()), *(UNSEEN.keys() - unseen["tasks"].keys())]:
        raise InputError(f"{result(critic, '_*')}: no scores of {missing[0]}: run the benchmark with shifts=[all]")
    rows = [["", *SHIFTED], ["as trained for", *_scores(content["models"]["wvm"], SHIFTED)]]
    rows += [[title, *_scores(content["shifts"][name]["wvm"], SHIFTED)] for name, title in SHIFTS.items()]
    rows += [[title, *_scores(unseen["tasks"][name], SHIFTED)] for name, title in UNSEEN.items()]
    made = [f"`{each['origin']['command']}` at commit {each['origin']['commit'][:7]}" for each in (content, unseen)]
    return f"{markdown_table(rows)}\nBy {made[0]}; the last three rows by {made[1]}.\n"


def study(reader: Reader) -> str:
    """Methods with the critic that have run on all tasks, the best first, and what the values of awr are worth."""
    known = Study(RESULTS / "study.parquet")
    bc = known.baseline
    methods = {f"{agent}, wvm": known.cell(agent, "wvm") for agent in AGENTS}
    whole = {name: cell for name, cell in methods.items() if cell.keys() == bc.keys()}
    best = sorted(whole, key=lambda name: -iqm(list(whole[name].values()))[0])
    cells = {"bc": bc} | {name: whole[name] for name in best}
    cells |= {"awr, oracle": known.cell("awr", "oracle"), "awr, wvm shuffled": known.cell("awr", "shuffled")}
    rows = [["", *bc, "all", "minus bc", "means minus bc"]]
    for name, grids in cells.items():
        _, (ours, theirs) = paired(grids, bc)
        gains = [shown(gain(ours, theirs)) if grids is not bc else "" for gain in (iqm_difference, mean_difference)]
        rows.append([name, *(per_task(grid) for grid in ours), shown(iqm(ours)), *gains])
    return markdown_table(rows)


def _scores(scores: Mapping[str, Any], titles: Iterable[str]) -> list[str]:
    return [cell(scores, COLUMNS[title]) for title in titles]


TABLES: dict[str, Callable[..., str]] = {"job": job, "bench": bench, "pairs": pairs, "shifts": shifts, "study": study}


def filled(text: str, reader: Reader = read) -> str:
    """The text with its tables made anew.

    Raises:
        InputError: a table without an end, of an unknown name or with other arguments than it takes, or scores that
            are not there.
    """

    def table(found: re.Match[str]) -> str:
        head, name, critics, end = found.groups()
        if name not in TABLES:
            raise InputError(f"`{head}`: no such table; choose from {', '.join(TABLES)}")
        try:
            inspect.signature(TABLES[name]).bind(reader, *critics.split())
        except TypeError as error:
            raise InputError(f"`{head}`: {error}") from error
        return f"{head}\n\n{TABLES[name](reader, *critics.split())}\n{end}"

    if len(TABLE.findall(text)) != len(re.findall(r"<!-- *(?:table|end)", text)) / 2:
        raise InputError("a table's `<!-- table: ... -->` lacks its `<!-- end -->`, or is written otherwise")
    return TABLE.sub(table, text)


def main(config: ReadmeConfig) -> None:
    """Fills every file that has tables."""
    for path in (README, *sorted(SHIPPED.glob("*/README.md"))):
        text = path.read_text()
        if (new := filled(text)) != text:
            with atomic(path) as partial:
                partial.write_text(new)
            print(f"{path}: tables made anew")


if __name__ == "__main__":
    cli.run(main, ReadmeConfig, {})
