"""Rollouts and banks: pure functions of their seeds, whoever runs them."""

import math
from pathlib import Path

import numpy as np
import pytest

from envs.bank import Bank, bank, evaluation_seed
from envs.observations import Images, ObservationConfig
from envs.performer import Report
from envs.rollout import call, rollouts
from envs.simulation import Simulation
from envs.tasks import TASKS
from tests.conftest import needs_egl
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError

LIFT = TASKS["lift"]()


@pytest.fixture(scope="module")
def states(tmp_path_factory) -> Bank:
    return bank(LIFT, seed=0, count=3, root=str(tmp_path_factory.mktemp("bank")), workers=2)


def wander(observations: np.ndarray, rollout: np.ndarray, step: np.ndarray) -> np.ndarray:
    """A policy [B, 5, 7] that depends on all it is given, row by row."""
    actions = np.zeros((len(observations), 5, 7), np.float32)
    for row, (observation, number, now) in enumerate(zip(observations, rollout, step)):
        noise = np.random.default_rng([max(number, 0), now]).normal(0, 0.2, (5, 7))
        actions[row] = np.clip(noise + 0.3 * observation[:7], -1, 1)
    return actions


def test_rollouts_do_not_depend_on_workers_rows_or_slots(states):
    runs = [
        rollouts(LIFT, states, wander, 5, workers, horizon=12, record=[4], rows=rows, live=live)
        for workers, rows, live in ((1, 16, 2), (2, 2, 1))
    ]
    (rows, recordings), (other_rows, other_recordings) = runs
    assert [row["rollout"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["bank"] for row in rows] == [0, 1, 2, 0, 1]
    assert [row["steps"] for row in rows] == [12] * 5
    np.testing.assert_equal(rows, other_rows)
    assert list(recordings) == [4]
    assert recordings[4].states.shape[0] == 13 and recordings[4].actions.shape == (12, 7)
    assert np.array_equal(recordings[4].states, other_recordings[4].states)
    assert np.array_equal(recordings[4].states[0], states.states[1])
    assert not np.array_equal(recordings[4].states[0], recordings[4].states[-1])


def test_interrupted_rollouts_go_on(states, tmp_path):
    """Finished ones are not run again, but for those to be recorded; a line cut short is."""
    whole, _ = rollouts(LIFT, states, wander, 4, 1, horizon=12, live=1)
    acted, kept = [], tmp_path / "rollouts.jsonl"

    def cut(observations, rollout, step):
        if 3 in rollout:
            raise KeyboardInterrupt
        return wander(observations, rollout, step)

    def noted(observations, rollout, step):
        acted.extend(rollout[rollout >= 0])
        return wander(observations, rollout, step)

    with pytest.raises(KeyboardInterrupt):
        rollouts(LIFT, states, cut, 4, 1, horizon=12, live=1, kept=kept)
    kept.write_text(kept.read_text()[:-3])
    rows, recordings = rollouts(LIFT, states, noted, 4, 1, horizon=12, live=1, kept=kept, record=[0])
    assert sorted(set(acted)) == [0, 2, 3] and list(recordings) == [0]
    np.testing.assert_equal(rows, whole)
    rows, _ = rollouts(LIFT, states, cut, 4, 1, horizon=12, live=1, kept=kept)  # nothing is left
    np.testing.assert_equal(rows, whole)


@needs_egl
def test_rollouts_with_pictures_do_not_depend_on_workers(states):
    seen = []

    def act(observations, rollout, step):
        seen.append(observations[0]["pictures"])
        moved = observations["pictures"].astype(np.float32).mean((1, 2, 3, 4)) / 255
        return np.full((len(observations), 5, 7), 0.5) * moved[:, None, None]

    images = Images(size=16)
    runs = [
        rollouts(LIFT, states, act, 3, workers, horizon=12, observation=images, record=[2], live=live)[1][2]
        for workers, live in ((1, 2), (2, 1))
    ]
    assert np.array_equal(*(run.states for run in runs)) and np.ptp(seen[0][0]) > 50 and np.ptp(seen[0][1]) > 50


def test_an_expert_replayed_succeeds_with_its_time_and_budget(lift_dataset, monkeypatch):
    episode = Dataset(lift_dataset)[0]
    start = Bank(lift_dataset, [episode.model_file], episode.states[:1])

    def replay(observations, rollout, step):
        return np.stack([episode.actions[now : now + 7] for now in step])

    solved = int(np.argmax(episode.rewards)) + 1
    task = TASKS["lift"](expert_steps=math.ceil(solved / 1.5) + 1)
    (row,), _ = rollouts(task, start, replay, 1, workers=1)
    expected = {"rollout": 0, "bank": 0, "success": True, "success_in_budget": True}
    assert row == expected | {"seconds": solved / 20, "steps": solved}
    hurried = TASKS["lift"](expert_steps=math.floor(solved / 1.5) - 1)
    (row,), _ = rollouts(hurried, start, replay, 1, workers=1)
    assert row["success"] and not row["success_in_budget"]
    (row,), _ = rollouts(task, start, replay, 1, workers=1, horizon=solved - 1)
    assert not row["success"] and math.isnan(row["seconds"]) and row["steps"] == solved - 1


def test_a_policy_call_has_fixed_rows_and_gives_each_rollout_its_own(monkeypatch):
    running = {number: Report(number, 7, np.full(3, number, np.float32), False, False) for number in (1, 3, 17)}
    calls = []

    def act(observations, rollout, step):
        calls.append((rollout.tolist(), step.tolist()))
        assert observations.shape == (16, 3)
        return np.repeat(observations[:, None, :1], 2, axis=1)

    actions = call(act, running, rows=16)
    assert {number: chunk.tolist() for number, chunk in actions.items()} == {
        number: [[number], [number]] for number in running
    }
    assert len(calls) == 2
    assert [(row, number) for row, number in enumerate(calls[0][0]) if number >= 0] == [(1, 1), (3, 3)]
    assert [(row, number) for row, number in enumerate(calls[1][0]) if number >= 0] == [(1, 17)]


@pytest.mark.parametrize("actions", [np.zeros((16, 7)), np.zeros((3, 5, 7)), np.full((16, 5, 7), np.nan)])
def test_wrong_actions_are_refused(actions):
    running = {0: Report(0, 0, np.zeros(3, np.float32), False, False)}
    with pytest.raises(InputError, match="the policy gave actions of shape"):
        call(lambda *_: actions, running, rows=16)


def test_unknown_observation_keys_are_refused(states):
    with pytest.raises(InputError, match=r"unknown observation keys \['camera'\]: choose from .*object"):
        rollouts(LIFT, states, wander, 1, workers=1, observation=ObservationConfig(["camera"]))


def test_wrong_numbers_are_refused(states):
    with pytest.raises(InputError, match="rollouts=0"):
        rollouts(LIFT, states, wander, 0, workers=1)
    with pytest.raises(InputError, match="live=9"):
        rollouts(LIFT, states, wander, 1, workers=1, live=9)
    with pytest.raises(InputError, match="rollouts=0"):
        bank(LIFT, seed=0, count=0)


def test_a_bank_holds_the_states_of_its_seeds_and_is_kept(states, monkeypatch):
    simulation = Simulation(LIFT)
    simulation.reset(evaluation_seed("lift", 0, 2))
    assert np.array_equal(simulation.state, states.states[2])
    assert simulation.model_file == states.model_files[2]
    assert len(states) == 3 and len(set(states.model_files)) == 3
    monkeypatch.setattr("envs.bank.Workers", None)
    again = bank(LIFT, seed=0, count=3, root=str(states.path.parents[1]), workers=1)
    assert np.array_equal(again.states, states.states) and again.model_files == states.model_files


def test_evaluation_seeds_differ_by_task_seed_and_entry():
    seeds = {evaluation_seed(task, seed, index) for task in ("lift", "can") for seed in range(3) for index in range(50)}
    assert len(seeds) == 300


def test_a_damaged_bank_is_named(tmp_path, states):
    copy = tmp_path / "banks" / states.path.name
    copy.parent.mkdir()
    copy.write_bytes(states.path.read_bytes()[:500])
    with pytest.raises(InputError, match=f"{states.path.name} is damaged: delete it"):
        bank(LIFT, seed=0, count=3, root=str(tmp_path))
    assert Path(copy).exists()
