"""The study: every rollout a row, named as its table needs it."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from experiments import comparisons, plot, study, sweep, tables
from experiments.gather import BASE, gather, named, rows
from experiments.grids import Study
from experiments.study import PARTS, StudyConfig, sweeps
from tests.test_train import job
from wvm_rl.errors import InputError
from wvm_rl.train import Job, pipeline
from wvm_rl.values import VALUES

pytestmark = pytest.mark.usefixtures("compile_quickly")

COLUMNS = {"env", "recipe", "episodes", "updates", "obs", "agent", "policy", "value", "horizon_k", "seed"}
COLUMNS |= {"initial_state", "success", "success_in_budget", "seconds", "commit"}


@pytest.fixture(scope="module")
def finished(shared, tmp_path_factory, compile_quickly):
    """Folder of three small runs: bc, awr with noisy values, and with shuffled ones."""
    root = tmp_path_factory.mktemp("runs")
    settings = {
        "noisy": {"agent": "awr", "value": VALUES["noisy"](noise=0.1)},
        "bc": {"agent": "bc"},
        "shuffled": {"agent": "awr", "value": VALUES["oracle"](shuffle=True)},
    }
    pipeline([Job(job(shared, **each), root / name) for name, each in settings.items()], root / "checkpoints")
    return root


def test_rows_name_the_cell_of_every_rollout(finished):
    names = {}
    for name in ("noisy", "bc", "shuffled"):
        table = rows(finished / name)
        assert set(table) >= COLUMNS and len(table) == 2 and list(table["initial_state"]) == [0, 1]
        names[name] = table["value"][0]
    assert names == {"noisy": "noisy 0.1", "bc": "none", "shuffled": "shuffled oracle"}
    assert rows(finished) is None
    other = asdict(VALUES["wvm"](horizon_k=40, scale="rank", lower=1.0, draws=8))
    chosen = {"agent": "awr", "value": "wvm"}
    assert named(chosen, other) == "wvm K=40 rank 8 draws lower 1"
    assert named(chosen, other | {"critic": "runs/mine"}) == "wvm mine K=40 rank 8 draws lower 1"
    assert named(chosen | {"value": "noisy"}, asdict(VALUES["noisy"](lag=0.5))) == "noisy 0.05 lag=0.5"


def test_own_runs_have_tables_and_figures(finished, tmp_path, capsys):
    """Of whatever settings most runs of bc have."""
    for name in ("bc", "noisy", "shuffled"):
        shutil.copytree(finished / name, tmp_path / name)
    path = tmp_path / "noisy" / "config.yaml"
    path.write_text(path.read_text().replace("tau: 10.0", "tau: 5.0"))

    def copied(name, kind, old, new):
        path = shutil.copytree(finished / kind, tmp_path / name) / "config.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    copied("late", "noisy", "lag: 0.0", "lag: 0.5")  # has no place among levels of noise
    copied("slow", "noisy", "batch: 32", "batch: 64")  # nor beside a bc of other batches
    copied("few", "shuffled", "expert: 0.25", "expert: 0.5")  # another mapping of a recipe
    copied("again", "bc", "horizon_k: 20", "horizon_k: 40")  # which bc does not read
    copied("seen", "bc", "seed: 0\n  fps: 0", "seed: 0\n  fps: 5")  # nor the frames of its episodes
    tables.main(tables.TablesConfig(runs=str(tmp_path)))
    told = capsys.readouterr().out
    assert "awr tau=5.0, noisy 0.1" in told and "awr, noisy 0.1 lag=0.5" in told and "12 rollouts" in told
    alone = told.split("batch=64")[1].split("##")[0]
    assert "awr, noisy 0.1" in alone and "minus bc" not in alone and "data.recipe.shares={'expert': 0.5" in told
    assert (tmp_path / "study.tex").exists()
    plot.main(plot.PlotConfig(study=str(tmp_path / "study.parquet")))
    assert (tmp_path / "study-figures" / "noise.png").exists()
    copied("more", "bc", "rollouts: 2", "rollouts: 3")
    with pytest.raises(InputError, match=r"more differ in evaluation\.rollouts, .*: move one away"):
        tables.main(tables.TablesConfig(runs=str(tmp_path)))
    shutil.rmtree(tmp_path / "more")
    shutil.copytree(finished / "shuffled", tmp_path / "twin")
    with pytest.raises(InputError, match=r"shuffled and .*twin differ in nothing: move one away"):
        tables.main(tables.TablesConfig(runs=str(tmp_path)))
    with pytest.raises(InputError, match="holds no finished run"):
        tables.main(tables.TablesConfig(runs=str(tmp_path / "bc")))
    assert gather([], tmp_path / "none.parquet") is None


def test_parts_name_known_methods_and_can_be_chosen():
    for _, cells in PARTS.values():
        assert len(set(cells)) == len(cells)
        assert all(part.partition("=")[2] in AGENTS for cell in cells for part in cell.split() if "agent=" in part)
    (one,) = sweeps(StudyConfig(parts=["oracle"], envs=["can", "milk"], seeds=2))
    assert one.envs == ["can"] and one.common == "trainer.updates=3000 seeds=2 evaluation.rollouts=20"
    with pytest.raises(InputError, match="parts has unknown all: choose from bars, updates"):
        StudyConfig(parts=["all"])


def study_of(tmp_path, rates):
    """A study of two tasks, 4 seeds and 10 initial states, whose cells (agent, value) succeed at given rates."""
    rng = np.random.default_rng(0)
    shared = BASE | {"commit": "c0ffee", "critic": "tiny"}
    rows = [
        shared
        | {"env": env, "agent": agent, "value": value, "seed": seed, "initial_state": state, "success_in_budget": hit}
        | {"success": bool(hit or state), "seconds": (10 if hit else 20) + len(agent)}
        for (agent, value), rate in rates.items()
        for env in ("lift", "can")
        for seed in range(4)
        for state, hit in enumerate(rng.random(10) < rate)
    ]
    path = tmp_path / "study.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_tables_are_made_from_rollouts_alone(tmp_path, capsys, monkeypatch):
    rates = {("bc", "none"): 0.4, ("awr", "wvm"): 0.95, ("awr", "oracle"): 0.95, ("awr", "shuffled"): 0.4}
    rates |= {("rcp", "wvm"): 0.9, ("awr", "noisy 0.1"): 0.6, ("rcp", "wvm K=40"): 0.9, ("rcp bins=5", "wvm K=40"): 0.4}
    rates |= {("awr", "file path=a"): 0.9, ("rcp", "file path=a"): 0.9, ("awr", "iql"): 0.9, ("awr tau=5", "iql"): 0.9}
    path = study_of(tmp_path, rates)
    rows = pd.read_parquet(path)
    more = rows[rows["value"].isin(["none", "oracle"])].assign(updates=6000, success=False)
    pd.concat([rows, more]).to_parquet(path)
    tables.main(tables.TablesConfig(study=str(path)))
    text = (tmp_path / "study.md").read_text()
    pace = text.split("## Success at all, and its median seconds, values of the critic")[1].split("##")[0]
    own = rows[(rows["agent"] == "rcp") & (rows["value"] == "wvm") & (rows["env"] == "lift")]
    assert f"| rcp | {own['success'].mean():.2f}, 13.0 s |" in pace and "| bc | 0." in pace and ", 22.0 s |" in pace
    assert "| awr, wvm minus bc | 2 | 0." in text
    assert "above 0 | open: 4 training seeds are too few to tell, 5 are needed |" in text
    monkeypatch.setattr(comparisons, "FEW", 4)
    assert "above 0 | met so far |" in tables.markdown(tables.tables(Study(path)))
    assert "| share of awr's gain with the oracle, wvm | 2 |" in text
    late = tables.markdown(tables.tables(Study(path, "success")))
    assert f"| rcp | {own['success'].mean():.2f} [" in late
    assert "## Bars" not in late  # which were set for the time budget
    assert "## Methods, values of file path=a: minus bc" in text and "values of iql" not in text
    assert "## Value sources, awr: minus bc, task by task" in text
    best = text.split("## The best method, values of the critic")[1].split("##")[0]
    assert best.count("| awr minus ") == 2 and "| awr minus rcp | 2 | 0.0" in best
    sharper = text.split("## rcp with other settings, minus the plain one, values of the critic")[1].split("##")[0]
    assert sharper.count("| rcp") == 2 and "| rcp bins=5, wvm K=40 | 2 | -0." in sharper
    assert "awr with other settings" not in text
    assert "## Other values and advantages" in text and "| awr, noisy 0.1 |" in text
    assert "## suboptimal, 100 episodes, from state, 6000 updates: minus bc, task by task" in text
    assert r"awr, wvm minus bc & 2" in (tmp_path / "study.tex").read_text()
    told = (
        "1120 rollouts, 4 training seeds of each cell, values of critic tiny, of runs at c0ffee. Intervals over fewer"
    )
    assert told in capsys.readouterr().out
    found = Study(path).cell("awr", "wvm")
    assert {task: grid.shape for task, grid in found.items()} == {"lift": (4, 10), "can": (4, 10)}
    moved = (rows["env"] == "can") & (rows["agent"] == "rcp")
    rows.assign(seed=rows["seed"] + moved).to_parquet(tmp_path / "others.parquet")
    with pytest.raises(InputError, match=r"others\.parquet: .* of can has no rollout of seed 4 from initial state 0"):
        Study(tmp_path / "others.parquet")
    with pytest.raises(InputError, match=r"none\.parquet: no rollouts to read"):
        Study(tmp_path / "none.parquet")
    rows.drop(columns="env").to_parquet(tmp_path / "run.parquet")
    with pytest.raises(InputError, match="lacks column env"):
        Study(tmp_path / "run.parquet")


def test_figures_are_drawn_from_the_studys_files_alone(tmp_path, monkeypatch):
    rates = {("bc", "none"): 0.4, ("awr", "wvm"): 0.9, ("awr", "oracle"): 0.95, ("awr", "shuffled"): 0.4}
    path = study_of(tmp_path, rates | {("awr", "noisy 0.1"): 0.6, ("rcp", "wvm"): 0.8})
    kinds = {"progress": {"share": 0.8, "histogram": [1, 9]}, "hesitation": {"share": 0.2, "histogram": [3, 1]}}
    favour = {"auroc": 0.9, "edges": [0, 1, 2], "kinds": kinds}
    curve = {"step": [1, 2], "loss": [1.0, 0.5]}
    names = [(agent, value, env) for agent, value in rates for env in ("lift", "can")]
    cells = [
        {**BASE, "agent": agent, "value": value, "env": env, "favour": favour, "curve": curve}
        for agent, value, env in names
    ]
    with pytest.raises(InputError, match=r"study\.json is missing"):
        plot.main(plot.PlotConfig(study=str(path)))
    path.with_suffix(".json").write_text(json.dumps({"cells": cells}))
    found = {}

    @contextmanager
    def looked_at(folder, name, *rest, **layout):
        with drawn(folder, name, *rest, **layout) as axes:
            yield axes
            every = np.ravel(axes)
            found[name] = {kind: sum(len(getattr(axis, kind)) for axis in every) for kind in ("containers", "patches")}
            lines = [line for axis in every for line in axis.lines]
            found[name]["points"] = [tuple(point) for line in lines for point in line.get_xydata()]

    drawn = plot.drawn
    monkeypatch.setattr(plot, "drawn", looked_at)
    plot.main(plot.PlotConfig(study=str(path)))
    bars = {name: found[name]["containers"] for name in ("methods", "bracket", "noise", "gain")}
    assert bars == {"methods": 6, "bracket": 3, "noise": 1, "gain": 6}  # an error bar a cell and task
    np.testing.assert_allclose(found["noise"]["points"][:2], [(0.0, 0.95), (0.1, 0.6)], atol=0.1)
    assert found["curves"]["points"] == [(1, 1.0), (2, 0.5)] * 4 + [(1, 1.0), (2, 1.0)] * 4  # below, beside bc
    assert found["weights"]["patches"] == 2
    noisy = study_of(tmp_path, {("bc", "none"): 0.4, ("awr", "noisy 0.1"): 0.9})
    assert plot.source_of(Study(noisy)) == "noisy 0.1"
    for name in found:
        for kind in ("pdf", "png"):
            assert (tmp_path / "study-figures" / f"{name}.{kind}").exists()


def test_settings_of_its_own_stand_apart_from_the_plain_method(tmp_path):
    agents = ("cfg", "cfg optimal=0.1", "awr tau=5")
    path = study_of(tmp_path, {("bc", "none"): 0.4} | {(agent, "wvm"): 0.9 for agent in agents})
    assert Study(path).methods("wvm") == ["cfg", "awr tau=5"]  # which was not run without
    text = tables.markdown(tables.tables(Study(path)))
    plain, others = (
        text.split(f"## {title}\n")[1].split("##")[0]
        for title in ("Methods, values of the critic", "Other values and advantages")
    )
    assert "| cfg |" in plain and "| awr tau=5 |" in plain and "| cfg optimal=0.1 |" not in plain
    assert "| cfg optimal=0.1, wvm |" in others and "| cfg, wvm |" not in others
    assert "| cfg optimal=0.1 | " in text.split("median seconds")[1]  # its pace


def test_a_cell_of_fewer_tasks_is_compared_on_those(tmp_path):
    path = study_of(tmp_path, {("bc", "none"): 0.4, ("awr", "wvm"): 0.9, ("awr", "oracle"): 0.9})
    rows = pd.read_parquet(path)
    rows[(rows["value"] != "oracle") | (rows["env"] == "can")].to_parquet(path)
    (_, _, lines), (_, _, apart) = comparisons.compared(
        "x", known := Study(path), {"bc": known.cell("bc", "none"), "oracle": known.cell("awr", "oracle")}, "bc"
    )
    assert lines[1][1] == "" and lines[1][3] == "1" and lines[1][4].startswith("0.") and lines[1][5].startswith("0.")
    assert apart == [["oracle", "", apart[0][2]]] and apart[0][2].startswith("0.")


def test_other_parts_go_on_after_a_refused_program(monkeypatch):
    ran = []

    def refused(part, after):
        ran.append(part.envs)
        raise sweep.RefusedError(f"number {len(ran)}")

    monkeypatch.setattr(sweep, "main", refused)
    monkeypatch.setattr(study, "gathered", lambda config: None)
    with pytest.raises(InputError, match="number 1"):
        study.main(StudyConfig(parts=["oracle", "limits"]))
    assert ran == [["lift", "can"], ["cereal"]]


def test_rows_are_those_of_all_parts_and_tables_and_figures_follow(
    finished, tmp_path, monkeypatch, capsys, hydra_ready
):
    monkeypatch.setattr(study, "RUNS", tmp_path / "study")
    monkeypatch.setattr(study, "RESULT", tmp_path / "study.parquet")
    for name, wanted in (("recipe", "mixed"), ("episodes", 4), ("updates", 20)):
        monkeypatch.setitem(BASE, name, wanted)
    cells = ["data=suboptimal agent=bc value=clock", "data=suboptimal agent=awr value=wvm"]
    for name in PARTS:
        monkeypatch.setitem(PARTS, name, (("lift",), cells[:1]))
    monkeypatch.setitem(PARTS, "bars", (("lift", "can"), cells[:1]))
    monkeypatch.setitem(PARTS, "methods", (("can",), cells))
    asked = StudyConfig(parts=["bars"], envs=["lift"], rollouts=2, run=False)
    study.main(asked)
    assert "no run is finished" in capsys.readouterr().out
    of_all = study.folders(None, 8, 2)
    assert len(of_all) == 3
    for name, run in (("bc", "bc"), ("awr", "noisy")):
        (folder,) = (each for each in of_all if each.name.startswith(f"can-suboptimal-{name}-"))
        shutil.copytree(finished / run, folder)
    study.main(asked)
    assert "4 rollouts in" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("study-*")} == {
        f"study-8x2{ending}"
        for ending in (".parquet", ".json", ".md", ".tex", "-success.md", "-success.tex", "-figures")
    }
