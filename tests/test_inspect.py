"""What a method would learn from, by hand."""

import json

import numpy as np
import pytest

from agents.awr import AWRConfig
from agents.base import Columns
from agents.bc import BCConfig
from agents.cfg import CFGConfig
from tests.synthetic import dataset, episode
from tests.test_train import job
from wvm_rl import inspect
from wvm_rl.advantage import advantage
from wvm_rl.inspect import favour, grasps, inspected, kinds, warning
from wvm_rl.samples import Samples

pytestmark = pytest.mark.usefixtures("compile_quickly")

HORIZON = 5


@pytest.fixture
def samples(tmp_path):
    """Three episodes of 100 steps, each still for 20, under values that see it."""
    data = dataset(tmp_path / "d.hdf5", [episode(index, 100, [("hesitation", 40, 59)]) for index in range(3)])
    value = np.interp(np.arange(100), [0, 40, 60, 99], [0, 0.5, 0.5, 1])
    values = [value] * 3
    delta = advantage(values, HORIZON)

    def of(agent):
        return Samples(data, list(data), values, delta, agent, [agent.columns(delta, values, list(data))])

    return of


def test_a_samples_kind_is_that_of_its_chunk(samples):
    found = kinds(samples(BCConfig()).episodes[0], HORIZON)
    assert (found[:36] == "progress").all() and (found[36:40] == "edge").all()
    assert (found[40:56] == "hesitation").all() and (found[56:60] == "edge").all() and (found[60:] == "progress").all()


def test_weights_are_split_by_kind(samples):
    awr = samples(AWRConfig())
    found = inspected(awr, HORIZON)
    assert found["auroc"] > 0.98 and found["knob"] == {"tau": 10.0, "clip": 2.0} and warning(found, awr, 32) is None
    still = found["kinds"]["hesitation"]
    assert (still["share"], still["mean_weight"]) == pytest.approx((0.16, 1.0))
    assert found["kinds"]["progress"]["mean_weight"] > 1.2
    assert sum(row["share_of_weight"] for row in found["kinds"].values()) == pytest.approx(1)


def test_no_information_is_warned_of(samples):
    bc, cfg = samples(BCConfig()), samples(CFGConfig(optimal=0.5))
    assert "favoured alike" in warning(inspected(bc, HORIZON), bc, 32)
    assert inspected(cfg, HORIZON)["auroc"] > 0.7  # by what it is conditioned on
    shares = [inspected(each, HORIZON)["asked_fraction"] for each in (bc, cfg)]
    assert shares == [None, (cfg.columns[0].cond > 0).mean()]
    noise = Columns(np.random.default_rng(0).random(300).astype(np.float32))
    bc.columns[0] = noise
    assert "no better than by chance" in warning(inspected(bc, HORIZON), bc, 32)
    assert favour(noise) is noise.weight


def test_conditions_and_samples_that_are_too_few_are_warned_of(samples):
    cfg = samples(CFGConfig(optimal=0.5))
    assert warning(inspected(cfg, HORIZON), cfg, 32) is None
    (columns,), never = cfg.columns, -np.ones((300, 1), np.float32)
    cfg.columns[0] = columns._replace(cond=np.where(np.arange(300)[:, None] < 2, 1, never))
    assert "0.67% of the samples have the condition" in warning(inspected(cfg, HORIZON), cfg, 32)
    early = np.concatenate(cfg.values)[:, None] < 0.25
    cfg.columns[0] = columns._replace(cond=np.where(early, 1, never))
    assert "is missing in 8 of 10 tenths of the progress" in warning(inspected(cfg, HORIZON), cfg, 32)
    near = np.random.default_rng(0).uniform(0.99, 1.01, (300, 1)).astype(np.float32)
    cfg.columns[0] = columns._replace(cond=np.where(columns.cond > 0, near, never))
    assert warning(inspected(cfg, HORIZON), cfg, 32) is None
    cfg.columns[0] = Columns((~early[:, 0]).astype(np.float32))
    assert "hardly any samples count in 2 of 10 tenths of the progress" in warning(inspected(cfg, HORIZON), cfg, 32)
    for each in cfg.episodes:
        each.actions[:, -1] = np.where(np.arange(100) < 20, -1.0, 1.0)  # the gripper closes once
    closing = grasps(cfg.episodes[0])
    assert np.flatnonzero(closing).tolist() == list(range(15, 25))
    cfg.columns[0] = Columns(np.tile(np.where(closing, 0.1, 1.0), 3).astype(np.float32))
    assert "where the gripper closes samples weigh 0.11 of the average" in warning(inspected(cfg, HORIZON), cfg, 32)
    cfg.columns[0] = Columns((np.arange(300) < 6).astype(np.float32))
    assert "only about 0.6 of a batch's 32 samples count" in warning(inspected(cfg, HORIZON), cfg, 32)


def test_the_command_draws_before_any_training(shared, tmp_path, capsys):
    inspect.main(job(shared, match_ess=0.9), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "inspect.json").read_text())
    assert found["ess_fraction"] == pytest.approx(0.9, abs=0.02) and found["knob"]["tau"] != 10
    assert (tmp_path / "run" / "figures" / "weights.png").exists()
    assert "effective sample size 90%" in capsys.readouterr().out
