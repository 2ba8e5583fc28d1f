"""Tables of the study from its rollouts alone: `python -m experiments.tables`.

    python -m experiments.tables runs=runs/sweep     # of your own runs: writes study.parquet and tables of it there
    python -m experiments.tables score=success       # of success at all, in tables of their own

Reads `experiments/results/study.parquet`, writes `study.md` and `study.tex`, named after it, beside it. Cells are
compared where all settings but method and values are alike; how is in `experiments.comparisons`.
"""

from dataclasses import dataclass
from pathlib import Path

from experiments.comparisons import FEW, Table, bars, compared, leading, pace, values_of, variants
from experiments.gather import BASE, NONE, SCORES, gather
from experiments.grids import Study
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.scoreboard import latex_table, markdown_table

BRACKET = ("shuffled", "clock", "wvm", "oracle")  # values from none to all there is to know


@dataclass
class TablesConfig:
    """Where the rollouts are and where the tables go."""

    study: str = str(Path(__file__).parent / "results" / "study.parquet")
    out: str | None = None  # folder; null: that of the study
    runs: str | None = None  # folder of finished runs, whose rollouts are read in place of the study's
    score: str = SCORES[0]  # of a rollout: success_in_budget | success


def tables(study: Study) -> list[Table]:
    """All tables that the study has rollouts for."""
    base = {"bc": bc} if (bc := study.cell("bc", NONE)) else {}
    agents = [agent for agent in dict.fromkeys(study.rows["agent"]) if agent != "bc"]
    found: list[Table] = []
    for source in study.sources:
        methods = base | {agent: study.cell(agent, source) for agent in study.methods(source)}
        found += compared(f"Methods, {values_of(source)}", study, methods, "bc")
        found += leading(methods, values_of(source))
        if source == study.sources[0]:
            every = base | {agent: cell for agent in agents if (cell := study.cell(agent, source))}
            found.append(pace(study, every, source))
    told = {(agent, source) for source in study.sources for agent in study.methods(source)}
    for agent in agents:
        known = {value: cell for value in BRACKET if (cell := study.cell(agent, value))}
        if len(known) > 1 and not known.keys() <= set(study.sources):  # else it stands in the tables of methods
            found += compared(f"Value sources, {agent}", study, base | known, "bc")
            told |= {(agent, value) for value in known}
    others = {
        f"{agent}, {value}": study.cell(agent, value)
        for agent in agents
        for value in study.values(agent)
        if (agent, value) not in told
    }
    if others:
        found += compared("Other values and advantages", study, base | others, "bc")
    for agent in agents:
        found += [table for source in study.sources for table in variants(study, agent, source)]
    kinds = list(BASE)
    for kind in dict.fromkeys(zip(*(study.rows[name] for name in kinds))):
        where = dict(zip(kinds, kind))
        if where == study.base:
            continue
        cells = {"bc": cell} if (cell := study.cell("bc", NONE, **where)) else {}
        cells |= {
            f"{agent}, {value}": study.cell(agent, value, **where)
            for agent in agents
            for value in study.values(agent, **where)
        }
        title = "{recipe}, {episodes} episodes, from {obs}, {updates} updates".format(**where)
        title += f", {where['policy']} policy" if where["policy"] != study.base["policy"] else ""
        title += f", {where['settings']}" if where["settings"] else ""
        found += compared(title, study, cells, "bc")
    if study.score == SCORES[0] and (judged := bars(study))[2]:  # the score that they were set for
        found.append(judged)
    return found


def markdown(found: list[Table]) -> str:
    """The tables in Markdown."""
    return "\n".join(f"## {title}\n\n{markdown_table([header, *lines])}" for title, header, lines in found)


def latex(found: list[Table]) -> str:
    """The tables in LaTeX, for the package booktabs."""
    return "\n".join(
        f"% {title}\n{latex_table([header, *lines], 'l' + 'r' * (len(header) - 1))}" for title, header, lines in found
    )


def caption(study: Study) -> str:
    """Of how many rollouts and seeds, of which critic, and at which commits."""
    rows = study.rows
    seeds = sorted(set(rows.groupby([*BASE, "agent", "value", "env"])["seed"].nunique()))
    text = f"Score: {study.score}. {len(rows)} rollouts, {' or '.join(map(str, seeds))} training seeds of each cell"
    critics = sorted(set(rows.loc[rows["value"].str.split().str[0] == "wvm", "critic"]))
    text += f", values of critic {', '.join(critics)}" if critics else ""
    text += f", of runs at {', '.join(sorted(set(rows['commit'])))}."
    few = f" Intervals over fewer than {FEW} training seeds are too narrow (`experiments/README.md` says how much)."
    return text + (few if seeds[0] < FEW else "")


def main(config: TablesConfig) -> None:
    """Writes the tables and prints them."""
    path = Path(config.study).expanduser()
    if config.runs is not None:
        folder = Path(config.runs).expanduser()
        path = folder / "study.parquet"
        if gather(sorted(summary.parent for summary in folder.glob("*/summary.json")), path) is None:
            raise InputError(
                f"runs={config.runs} holds no finished run of wvm_rl.train: give the folder that they lie in"
            )
    study = Study(path, config.score)
    found = tables(study)
    folder = Path(config.out).expanduser() if config.out else path.parent
    text = f"# The study\n\n{markdown(found)}\n{caption(study)}\n"
    stem = path.stem if config.score == SCORES[0] else f"{path.stem}-{config.score}"
    for ending, content in (("md", text), ("tex", latex(found))):
        with atomic(folder / f"{stem}.{ending}") as partial:
            partial.write_text(content)
    print(text)


if __name__ == "__main__":
    cli.run(main, TablesConfig, {})
