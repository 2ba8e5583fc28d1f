"""Sweeps: which cells share a program, and that each gets the numbers that it would have got alone."""

import pandas as pd
import pytest

from experiments import sweep
from experiments.sweep import Cell, SweepConfig, show
from tests.test_train import job
from wvm_rl.config import EvaluationConfig
from wvm_rl.errors import InputError
from wvm_rl.runs import read_summary
from wvm_rl.train import Job, main, pipeline

pytestmark = pytest.mark.usefixtures("compile_quickly")


def test_cells_that_share_a_program(tmp_path):
    def program(**settings):
        return Cell("x", job(tmp_path, **settings), tmp_path).program

    assert program(agent="bc") == program(agent="awr") == program(agent="awr", seeds=3, match_ess=0.9)
    assert program(agent="rcp") == program(agent="cfg") != program(agent="bc")
    assert program(agent="bc", policy="gaussian") != program(agent="bc") != program(agent="bc", fps=None)


def test_cells_of_a_program_end_as_if_alone(shared, tmp_path, capsys):
    keeping = EvaluationConfig(rollouts=2, workers=1, keep=2)
    configs = {name: job(shared, name, seeds=seeds, evaluation=keeping) for name, seeds in (("bc", 1), ("awr", 2))}
    jobs = [Job(config, tmp_path / "many" / name) for name, config in configs.items()]
    pipeline(jobs, tmp_path / "checkpoints")
    acted = {}
    for name, config in configs.items():
        main(config, tmp_path / "alone" / name)
        one, other = (tmp_path / place / name for place in ("many", "alone"))
        pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "episodes.parquet") for folder in (one, other)))
        acted[name] = (one / "rollouts.hdf5").read_bytes()  # rows are all alike: nobody lifts anything so early
        assert acted[name] == (other / "rollouts.hdf5").read_bytes()
        summaries = [read_summary(folder) for folder in (one, other)]
        for summary in summaries:
            assert set(summary.pop("wall_seconds")) == {"episodes", "values", "policy", "rollouts"}
        assert summaries[0] == summaries[1]
        lines = [
            pd.read_json(folder / "metrics.jsonl", lines=True).drop(columns="updates_per_second")
            for folder in (one, other)
        ]
        pd.testing.assert_frame_equal(*lines)
    assert acted["bc"] != acted["awr"]
    origin = tmp_path / "many" / "bc" / "versions.json"
    origin.write_text(origin.read_text().replace(jobs[0].source.fingerprint, "of another critic"))
    with pytest.raises(InputError, match="input values=of another critic"):
        sweep.jobs([[Cell("bc", configs["bc"], origin.parent)]])
    show([[Cell("bc", configs["bc"], tmp_path / "many" / "bc"), Cell("rcp", configs["awr"], tmp_path / "none")]])
    assert "1 cells remain: 2 policies, 4 rollouts" in capsys.readouterr().out


def test_programs_hold_no_more_policies_than_asked(hydra_ready):
    cells = ["agent=bc value=clock", "agent=awr value=clock", "agent=rcp value=clock", "agent=rabc value=clock"]
    programs = sweep.planned(SweepConfig(envs=["lift"], cells=cells, common="seeds=10", together=29))
    names = [[cell.name for cell in cells] for cells in programs]
    assert names == [["lift-bc-clock", "lift-awr-clock"], ["lift-rabc-clock"], ["lift-rcp-clock"]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["agent=awr +agent.temperature=3"], "unknown key 'agent.temperature'"),
        (["agent=awr hydra.run.dir=elsewhere"], "Hydra's own settings"),
        (["agent=null"], "a group is never null"),
        (["agent=awr", "agent=awr "], "envs and cells give lift-awr twice"),
    ],
)
def test_cells_that_no_run_can_be_are_refused(hydra_ready, cells, message):
    with pytest.raises(InputError, match=message):
        sweep.planned(SweepConfig(envs=["lift"], cells=cells))


def test_cells_that_are_deleted_would_not_find_their_old_policies(hydra_ready, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(
        sweep, "pipeline", lambda _, checkpoints: places.append(checkpoints) or checkpoints.mkdir(parents=True)
    )
    sweep.main(SweepConfig(envs=["lift"], cells=["agent=bc value=clock"], folder=str(tmp_path)))
    assert places and not list((tmp_path / "programs").iterdir())


def test_a_program_that_is_refused_does_not_hold_up_the_others(hydra_ready, tmp_path, monkeypatch, capsys):
    ran = []

    def run(jobs, checkpoints):
        checkpoints.mkdir(parents=True)
        if jobs[0].config.agent.conditions:
            raise InputError("loss is nan")
        ran.extend(job.folder.name for job in jobs)

    monkeypatch.setattr(sweep, "pipeline", run)
    cells = [f"agent={name} value=clock" for name in ("rcp", "awr")]
    with pytest.raises(InputError, match="1 of 2 programs did not run; the first: loss is nan"):
        sweep.main(SweepConfig(envs=["lift"], cells=cells, folder=str(tmp_path)))
    assert [name[:14] for name in ran] == ["lift-awr-clock"] and "refused, the others go on" in capsys.readouterr().err


def test_cells_of_other_advantages_share_a_source(hydra_ready, tmp_path):
    cells = ["agent=awr value=oracle", "agent=awr value=oracle value.horizon_k=40", "agent=awr value=clock"]
    programs = sweep.planned(SweepConfig(envs=["lift"], cells=cells, folder=str(tmp_path)))
    one, other, last = (job.source for jobs in sweep.jobs(programs) for job in jobs)
    assert one is other and last is not one


def test_a_cells_folder_lies_in_the_sweeps(hydra_ready):
    cells = ["agent=awr value=file value.path=../../mine.parquet"]
    [[cell]] = sweep.planned(SweepConfig(envs=["lift"], cells=cells, folder="runs/s"))
    assert cell.folder.parent.as_posix() == "runs/s" and cell.name == "lift-awr-file-.._.._mine.parquet"


def test_a_plan_alone_looks_at_no_run(hydra_ready, monkeypatch, capsys):
    """What committed runs started from may be of other versions: tables are made of them all the same."""
    monkeypatch.setattr(sweep, "jobs", lambda _: pytest.fail("looked at runs"))
    sweep.main(SweepConfig(envs=["lift"], run=False), after=lambda: pytest.fail("ran"))
    assert "2 cells remain: 16 policies, 320 rollouts" in capsys.readouterr().out


def test_settings_are_checked():
    for settings, message in (
        ({"cells": ["agent=bc"] * 2}, "twice"),
        ({"together": 0}, "together=0"),
        ({"envs": []}, "envs"),
    ):
        with pytest.raises(InputError, match=message):
            SweepConfig(**settings)
