"""Tables of the README and of model cards, from committed results: `python -m experiments.readme`.

Fills what stands between `<!-- table: <name> <critics> -->` and `<!-- end -->`; the rest is written by hand. Names:

    bench <critic> ...   scores of critics on the seeds of `bench_<critic>.json` and `bench_<critic>_1.json`, and of
                         the other models in the first critic's files
    shifts <critic>      its scores on the shifted split and on what it never saw: `bench_<critic>_shifts.json` and
                         `bench_<critic>_unseen.json`
    study                success of what the study's bars compare, by task
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.tables import JUDGED, Study, compared
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.model.critic import SHIPPED
from wvm_rl.scoreboard import COLUMNS, cell
from wvm_rl.values.wvm import DEFAULT

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(<!-- table: (\w+) ?(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
SCORES = ("Hesitation-RMSE", "Retry-VOC", "Expert-VOC", "Cycle-VOC", "failure AUROC", "lapse AUROC")
SHIFTED = ("Hesitation-RMSE", "Retry-VOC", "Expert-VOC", "lapse AUROC")
OTHERS = {
    "frame": "regressor on one frame",
    "video": "regressor on the video so far",
    "floor": "regressor on the simulator's state (floor)",
    "clock": "clock t/T",
}
SHIFTS = {
    "moved5": "camera turned by 5 degrees",
    "moved10": "by 10 degrees",
    "moved20": "by 20 degrees",
    "lit": "other light",
    "textured": "other colours",
    "sawyer": "Sawyer in place of the Panda",
    "ur5e": "UR5e in place of the Panda",
    "jitter": "hesitation that trembles",
    "drift": "that slides aside",
    "detour": "that makes a round",
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
    """Where a critic's scores lie; suffix: of its benchmarks, `_<number>` from the second on, `_shifts`, `_unseen`."""
    return RESULTS / f"bench_{name}{suffix}.json"


def read(name: str, suffix: str) -> dict[str, Any]:
    """A critic's committed scores.

    Raises:
        InputError: there are none.
    """
    try:
        return json.loads(result(name, suffix).read_text())
    except OSError as error:
        raise InputError(
            f"{result(name, suffix)}: no such scores; `python -m experiments.ship` puts them there"
        ) from error


def bench(*critics: str) -> list[list[str]]:
    """Rows of the pooled scores, seed by seed."""
    rows: list[list[str]] = []
    for suffix in ("", "_1"):
        found = [read(name, suffix) for name in critics]
        rows.append([f"**seed {found[0]['seed']}**", *([""] * len(SCORES) if rows else SCORES)])
        for name, content in zip(critics, found):
            what = "**World Value Model** `{}` (the default)" if name == DEFAULT else "World Value Model `{}`"
            rows.append([what.format(name), *_scores(content["models"]["wvm"], SCORES)])
        rows += [[title, *_scores(found[0]["models"][model], SCORES)] for model, title in OTHERS.items()]
    return rows


def shifts(critic: str) -> list[list[str]]:
    """Rows of the shifted split and of the tasks and objects that the critic never saw."""
    content, unseen = read(critic, "_shifts"), read(critic, "_unseen")
    rows = [["", *SHIFTED], ["as trained for", *_scores(content["models"]["wvm"], SHIFTED)]]
    rows += [[title, *_scores(content["shifts"][name]["wvm"], SHIFTED)] for name, title in SHIFTS.items()]
    return rows + [[title, *_scores(unseen["tasks"][name], SHIFTED)] for name, title in UNSEEN.items()]


def study() -> list[list[str]]:
    """Rows of what the bars compare."""
    known = Study(RESULTS / "study.parquet")
    cells = {"bc": known.baseline} | {f"{agent}, wvm": known.cell(agent, "wvm") for agent in JUDGED}
    cells |= {"awr, oracle": known.cell("awr", "oracle"), "awr, wvm shuffled": known.cell("awr", "shuffled")}
    (_, header, lines), *_ = compared("", known, cells, "bc")
    shown = {title: title for title in ("", *known.tasks, "minus bc")} | {"these, IQM": "all"}
    columns = [(number, shown[title]) for number, title in enumerate(header) if title in shown]
    return [[title for _, title in columns], *([line[number] for number, _ in columns] for line in lines)]


def _scores(scores: Mapping[str, Any], titles: Iterable[str]) -> list[str]:
    return [cell(scores, COLUMNS[title]) for title in titles]


TABLES = {"bench": bench, "shifts": shifts, "study": study}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its header."""
    header, *lines = rows
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, ["---"] * len(header), *lines))


def filled(text: str) -> str:
    """The text with its tables made anew.

    Raises:
        InputError: a table of an unknown name, or scores that are not there.
    """

    def table(found: re.Match[str]) -> str:
        head, name, critics, end = found.groups()
        if name not in TABLES:
            raise InputError(f"`{head.strip()}`: no such table; choose from {', '.join(TABLES)}")
        return f"{head}\n{markdown(TABLES[name](*critics.split()))}\n{end}"

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
