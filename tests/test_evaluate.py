"""Policies of finished runs act as they did when they were trained."""

import json
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
import yaml

from agents import POLICIES
from agents.acting import Asked, actor
from agents.chunks import Statistics
from agents.policies.base import Spec
from agents.policies.seeing import Seeing
from agents.saved import Saved, load, save
from agents.trainer import Trained
from envs.observations import packed
from envs.tasks import EVERY
from tests.test_train import job
from wvm_rl.config import GROUPS, EvaluationConfig
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.evaluate import EvaluateConfig
from wvm_rl.evaluate import main as again
from wvm_rl.stats import success_interval
from wvm_rl.summary import described, outcome, restored
from wvm_rl.train import main

pytestmark = pytest.mark.usefixtures("compile_quickly")
EVALUATION = EvaluationConfig(rollouts=2, workers=1)


@pytest.fixture(scope="module")
def finished(shared, tmp_path_factory, compile_quickly):
    """A run of two seeds whose policies are asked for something."""
    root = tmp_path_factory.mktemp("runs")
    config = job(shared, "rcp", seeds=2, evaluation=replace(EVALUATION, keep=2))
    main(config, root / "run")
    return root / "run", config


def test_the_same_rollouts_come_out_again(finished):
    folder, config = finished
    assert described(restored(folder)) == described(config)
    again(EvaluateConfig(str(folder), config.evaluation))
    new = folder / "evaluations" / "2-seed0"
    pd.testing.assert_frame_equal(*(pd.read_parquet(place / "episodes.parquet") for place in (folder, new)))
    for ours, theirs in zip(Dataset(folder / "rollouts.hdf5"), Dataset(new / "rollouts.hdf5"), strict=True):
        np.testing.assert_array_equal(ours.actions, theirs.actions)  # rows are all alike: nobody lifts so early
    summaries = [json.loads((place / "summary.json").read_text()) for place in (folder, new)]
    assert summaries[1]["success_ci95"] == summaries[0]["success_ci95"] and summaries[1]["agent"] == "rcp"


def test_what_was_taken_out_of_a_mapping_does_not_come_back(finished, tmp_path):
    config = replace(finished[1], env=replace(EVERY["door"](), options={}), data=GROUPS["data"]["mixed"]())
    config.data.recipe.shares = {"expert": 1.0}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(described(config)))
    assert described(restored(tmp_path)) == described(config)


def test_an_outcome_by_hand():
    """Two training seeds of three rollouts: four succeed, three of them in time."""
    rollouts = [[(True, True, 4.0), (True, False, 12.0), (False, False, 20.0)], [(True, True, 5.0), (True, True, 6.0)]]
    rollouts[1].append((False, False, 20.0))
    names = ("success", "success_in_budget", "seconds")
    found = outcome([[dict(zip(names, rollout)) for rollout in own] for own in rollouts])
    assert (found["rollouts"], found["success_rate"], found["success_in_budget"]) == (6, 4 / 6, 3 / 6)
    assert found["median_seconds_to_success"] == 5.5
    for name in ("success", "success_in_budget"):
        grid = np.array([[rollout[names.index(name)] for rollout in own] for own in rollouts])
        assert found[f"{name}_ci95"] == success_interval(grid)
    nothing = outcome([[{"success": False, "success_in_budget": False, "seconds": 20.0}] * 3])
    assert nothing["success_rate"] == 0 and nothing["median_seconds_to_success"] is None


def test_other_initial_states_are_others_and_are_kept(finished, monkeypatch, capsys, tmp_path):
    folder, _ = finished
    other = replace(EVALUATION, seed=1, keep=1)
    again(EvaluateConfig(str(folder), other, root=str(tmp_path)))
    assert list(tmp_path.rglob("lift-*.hdf5"))  # initial states
    (first, kept) = (Dataset(folder / place) for place in ("rollouts.hdf5", "evaluations/2-seed1/rollouts.hdf5"))
    assert not np.array_equal(first[0].states[0], kept[0].states[0])
    monkeypatch.setattr("wvm_rl.evaluate.evaluate", lambda *_: pytest.fail("rolled out again"))
    capsys.readouterr()
    again(EvaluateConfig(str(folder), replace(other, keep=0)))
    assert "success" in capsys.readouterr().out


def test_what_cannot_be_evaluated_is_refused(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(InputError, match="holds no finished run"):
        again(EvaluateConfig(str(tmp_path), EVALUATION))
    for name in ("summary.json", "config.yaml"):
        (tmp_path / name).write_text((folder / name).read_text())
    with pytest.raises(InputError, match=r"policy\.json is not there"):
        again(EvaluateConfig(str(tmp_path), EVALUATION))
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text().replace("rollouts:", "trials:"))
    with pytest.raises(InputError, match=r"config\.yaml is not of this code .*use the commit in its versions\.json"):
        restored(tmp_path)
    (tmp_path / "policy.json").write_text("{}")
    with pytest.raises(InputError, match=r"policy\.json: not a policy's settings"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "cond", "cameras"), [("flow", 2, 0), ("gaussian", 0, 0), ("flow", 0, 2)])
def test_saved_policies_are_read_as_they_were(tmp_path, name, cond, cameras):
    inner, spec = POLICIES[name](width=16, layers=1), Spec(5, 3, cond, cameras)
    policy = Seeing(inner) if cameras else inner
    params = jax.vmap(lambda key: policy.init(key, spec))(jax.random.split(jax.random.key(0), 2))
    rng = np.random.default_rng(0)
    statistics = Statistics(*(rng.uniform(0.5, 1, size).astype(np.float32) for size in (5, 5, 3, 3)))
    asked = [Asked(rng.normal(size=cond).astype(np.float32) if cond else None, 1.5 if cond else 1.0) for _ in range(2)]
    observed = {"keys": ["hand", "object"], "cameras": ["front", "wrist"][:cameras], "size": 16}
    save(tmp_path, Saved(policy, Trained(params, statistics, (3, 7)), asked, observed))
    read = load(tmp_path)
    assert read.policy == policy and read.trained.seeds == (3, 7) and read.observed == observed
    jax.tree.map(np.testing.assert_array_equal, read.trained.params, params)
    jax.tree.map(np.testing.assert_array_equal, read.trained.statistics, statistics)
    for ours, theirs in zip(read.asked, asked):
        np.testing.assert_array_equal(ours.cond, theirs.cond)
        assert ours.guidance == theirs.guidance
    state, keys = rng.normal(size=5).astype(np.float32), (np.zeros(1, int), np.zeros(1, int))

    def seen(cameras, size):
        return packed(state, [np.full((size, size, 3), 90, np.uint8)] * cameras)[None]

    alone = actor(policy, read.trained.seed(1), statistics, 1, asked[1], cameras=cameras, size=16)
    np.testing.assert_array_equal(read.actor(1)(seen(cameras, 16), *keys), alone(seen(cameras, 16), *keys))
    for misfit in (0, 3) if cameras else (1,):
        with pytest.raises(InputError, match=r"observations have pictures of shape .*, the policy was trained on"):
            read.actor(1)(seen(misfit, 16), *keys)
    with pytest.raises(InputError, match=r"pictures of shape \(2, 32, 32, 3\)"):
        read.actor(1)(seen(2, 32), *keys)
