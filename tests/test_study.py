"""The study: every rollout a row, named as its table needs it."""

import pytest

from agents import AGENTS
from experiments import study
from experiments.study import PARTS, StudyConfig, sweeps
from tests.test_train import job
from wvm_rl.errors import InputError
from wvm_rl.train import main
from wvm_rl.values import VALUES

COLUMNS = {"env", "recipe", "episodes", "obs", "agent", "policy", "value", "horizon_k", "seed", "initial_state"}
COLUMNS |= {"success", "success_in_budget", "seconds", "commit"}


def test_rows_name_the_cell_of_every_rollout(tmp_path):
    main(job(tmp_path, agent="awr", value=VALUES["noisy"](noise=0.1)), tmp_path / "noisy")
    main(job(tmp_path, agent="bc"), tmp_path / "bc")
    main(job(tmp_path, agent="awr", value=VALUES["oracle"](shuffle=True)), tmp_path / "shuffled")
    names = {}
    for name in ("noisy", "bc", "shuffled"):
        table = study.rows(tmp_path / name)
        assert set(table) >= COLUMNS and len(table) == 2 and list(table["initial_state"]) == [0, 1]
        names[name] = table["value"][0]
    assert names == {"noisy": "noisy 0.1", "bc": "none", "shuffled": "shuffled"}
    assert study.rows(tmp_path) is None


def test_parts_name_known_methods_and_can_be_chosen():
    for _, cells in PARTS.values():
        assert len(set(cells)) == len(cells)
        assert all(part.partition("=")[2] in AGENTS for cell in cells for part in cell.split() if "agent=" in part)
    (one,) = sweeps(StudyConfig(parts=["oracle"], envs=["can", "milk"], seeds=2))
    assert one.envs == ["can"] and one.common == "seeds=2 evaluation.rollouts=20"
    with pytest.raises(InputError, match="parts has unknown all: choose from methods"):
        StudyConfig(parts=["all"])
