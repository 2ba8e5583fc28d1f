"""Experts and their lapses: what the record says happened did happen in the simulation."""

from dataclasses import replace

import numpy as np
import pytest

from envs.experts import EXPERTS
from envs.lapses import plan
from envs.recipes import RECIPES, Bench, Mixed, Suboptimal, quality
from envs.recording import draw, record
from envs.simulation import Simulation
from envs.tasks import CONTROL_FREQUENCY, TASKS, UNSEEN
from experiments.check_experts import CheckConfig
from wvm_rl.data.episodes import KINDS
from wvm_rl.errors import InputError


@pytest.fixture(scope="module")
def simulation():
    return Simulation(TASKS["lift"]())


def of(shares: str) -> Bench:
    return Bench(shares={shares: 1.0})


def lapse(episode, kind: str) -> tuple[int, int]:
    (found, first, last) = episode.lapses[-1]
    assert KINDS[found] == kind
    return first, last


def test_expert_lifts_the_cube(simulation):
    episode = record(simulation, RECIPES["expert"](), seed=0, index=0)
    assert episode.success and episode.quality == "expert" and len(episode.lapses) == 0
    height = episode.obs["cube_pos"][:, 2]
    assert height[-1] > height[0] + 0.05
    assert 6 * CONTROL_FREQUENCY < len(episode.actions) < 20 * CONTROL_FREQUENCY
    assert np.abs(episode.actions).max() <= 1


def test_half_of_the_hands_start_raised(simulation):
    """Nearly at rest; what was done to get there is not in the record, which replays."""
    usual = RECIPES["expert"]()
    episodes = [draw(simulation, replace(usual, raised=0.1), seed=3, index=index, attempt=0) for index in range(4)]
    assert all(as_planned for _, as_planned in episodes)
    height = [float(episode.obs["robot0_eef_pos"][0, 2]) for episode, _ in episodes]
    assert sum(each > 1.03 for each in height) == 2  # usually 1.02 at most
    highest = episodes[int(np.argmax(height))][0]
    start = highest.obs["robot0_eef_pos"]
    assert np.linalg.norm(start[1] - start[0]) < 5e-3
    simulation.restore(highest.model_file, highest.states[0])
    for state, action in zip(highest.states, highest.actions):
        assert simulation.state.tobytes() == state.tobytes()
        simulation.step(action)
    with pytest.raises(InputError, match=r"recipe\.raised=0\.5 must lie"):
        replace(usual, raised=0.5)


def test_the_hand_turns_along_a_wall_that_it_would_hit():
    low_beside_the_wall = draw(Simulation(TASKS["bread"]()), RECIPES["expert"](), seed=1000, index=11, attempt=0)
    episode, as_planned = low_beside_the_wall
    assert as_planned and episode.obs["Bread_pos"][0, 1] < -0.4


def test_other_seeds_start_elsewhere(simulation):
    starts = [(simulation.reset(seed), simulation.state.tobytes())[1] for seed in (3, 4, 3)]
    assert starts[0] == starts[2] != starts[1]


def test_hesitation_stands_still(simulation):
    episode = record(simulation, of("hesitation"), seed=0, index=0)
    first, last = lapse(episode, "hesitation")
    assert 2 * CONTROL_FREQUENCY - 1 <= last - first <= 5 * CONTROL_FREQUENCY
    hand = episode.obs["robot0_eef_pos"]
    settled = hand[first + 8 : last]
    assert np.ptp(settled, axis=0).max() < 0.02  # it may waver by millimetres
    before = np.linalg.norm(hand[first] - hand[max(0, first - 20)])
    assert np.linalg.norm(settled[-1] - settled[0]) < 0.3 * max(before, 0.05)
    assert episode.success


@pytest.mark.parametrize(
    ("manner", "least", "most"), [("jitter", 0.01, 0.08), ("drift", 0.03, 0.08), ("detour", 0.08, 0.2)]
)
def test_other_manners_move_but_get_nowhere(simulation, manner, least, most):
    episode, as_planned = draw(simulation, Bench(shares={"hesitation": 1.0}, manner=manner), 0, 0, 0)
    first, last = lapse(episode, "hesitation")
    away = np.linalg.norm(episode.obs["robot0_eef_pos"][first:last] - episode.obs["robot0_eef_pos"][first], axis=1)
    assert as_planned and least < away.max() < most and away[-1] < 0.02


@pytest.mark.parametrize("robot", ["Sawyer", "UR5e"])
def test_other_robots_lift_the_cube(robot):
    episode, as_planned = draw(Simulation(TASKS["lift"](robot=robot)), RECIPES["expert"](), 0, 0, 0)
    assert as_planned and episode.obs["cube_pos"][-1, 2] > episode.obs["cube_pos"][0, 2] + 0.05


@pytest.mark.parametrize("task", UNSEEN)
def test_experts_of_unseen_tasks(task):
    simulation = Simulation(UNSEEN[task]())
    for kind, fate in (("expert", True), ("retry", True), ("failure", False)):
        episode, as_planned = draw(simulation, of(kind), 0, 0, 0)
        assert as_planned and episode.success == fate and not episode.rewards[0]


def test_checks_of_nothing_are_refused():
    with pytest.raises(InputError, match="episodes=0 must be at least 1"):
        CheckConfig(episodes=0)


def test_retry_is_a_real_failed_grasp(simulation):
    episode = record(simulation, of("retry"), seed=1, index=0)
    first, last = lapse(episode, "retry")
    width = np.abs(episode.obs["robot0_gripper_qpos"]).sum(1)
    cube, hand = episode.obs["cube_pos"], episode.obs["robot0_eef_pos"]
    assert width[last] > 0.07  # released
    assert cube[last, 2] < cube[0, 2] + 0.005  # the cube lies where it lay
    assert hand[last, 2] > hand[first, 2] + 0.05  # retracted
    assert 2 * CONTROL_FREQUENCY - 1 <= last - first <= 4 * CONTROL_FREQUENCY
    assert episode.success and cube[-1, 2] > cube[0, 2] + 0.05


def test_failure_never_succeeds(simulation):
    episode = record(simulation, of("failure"), seed=0, index=0)
    _, last = lapse(episode, "failure")
    assert not episode.success and last == len(episode.actions) - 1
    assert episode.obs["cube_pos"][-1, 2] < episode.obs["cube_pos"][0, 2] + 0.02


def test_every_prefix_keeps_the_shares():
    recipe = Mixed()
    chosen = [quality(recipe, index) for index in range(100)]
    assert {name: chosen.count(name) / 100 for name in recipe.shares} == recipe.shares
    assert abs(chosen[:20].count("failure") - 2) <= 1


def test_suboptimal_has_two_lapses_on_average_and_no_expert():
    recipe, rng = Suboptimal(), np.random.default_rng(0)
    phases = tuple(phase.name for phase in EXPERTS["can"])
    plans = [plan(recipe, "can", phases, quality(recipe, index), rng) for index in range(500)]
    counts = [len(each.hesitations) + len(each.failed_grasps) for each in plans]
    assert min(counts) >= 1 and 1.85 < np.mean(counts) < 2.15
    alone = [one.hesitations[0] for one in plans if len(one.hesitations) == 1]
    spots = {(each.phase, round(each.fraction)) for each in alone}
    assert spots <= {("descend", 0), ("descend", 1), ("lower", 0)}


def test_bench_has_exactly_one_lapse_in_any_phase():
    recipe, rng = Bench(), np.random.default_rng(0)
    phases = tuple(phase.name for phase in EXPERTS["can"])
    kinds = [quality(recipe, index) for index in range(5 * 77)]
    counts = {kind: kinds[:77].count(kind) for kind in kinds}
    assert counts == {"hesitation": 25, "retry": 25, "expert": 17, "failure": 10}
    plans = [plan(recipe, "can", phases, kind, rng) for kind in kinds if kind in ("hesitation", "retry")]
    assert {len(each.hesitations) + len(each.failed_grasps) for each in plans} == {1}
    assert len({hesitation.phase for each in plans for hesitation in each.hesitations}) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": {"expert": 0.5}}, "add up to 1"),
        ({"shares": {"good": 1.0}}, "unknown qualities"),
        ({"mean_lapses": 0.5}, "mean_lapses"),
        ({"clustered": 2.0}, "clustered"),
        ({"hesitation_seconds": [5.0, 2.0]}, "hesitation_seconds"),
        ({"manner": "dance"}, "manner=dance is unknown"),
    ],
)
def test_recipes_refuse_bad_numbers(settings, message):
    with pytest.raises(InputError, match=message):
        Mixed(**settings)
