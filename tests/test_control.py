"""Simulation's lean control step against robosuite's own `env.step`, bit for bit."""

import numpy as np
import pytest

from envs import control
from envs.simulation import Simulation
from envs.tasks import TASKS
from wvm_rl.errors import InputError

STEPS = 25


def actions() -> np.ndarray:
    """Random actions [STEPS, 7] around stretches that move down, close and open the gripper, and do nothing."""
    actions = np.random.default_rng(0).uniform(-1.2, 1.2, (STEPS, 7))  # beyond the limits too: robosuite clips
    actions[8:20, 2] = -1.0
    actions[8:14, 6], actions[14:20, 6] = 1.0, -1.0
    actions[20:23] = 0.0
    return actions


def robosuite_steps(simulation: Simulation, monkeypatch) -> list[tuple]:
    """What robosuite's `step` gives: per step the state, f64 observations at its end and success."""
    env, rows = simulation._env, []
    update = env._update_observables
    # robosuite samples observables after the first of 25 substeps; Simulation after the last, and only then.
    monkeypatch.setattr(env, "_update_observables", lambda force=False: update(force=True) if force else None)
    for action in actions():
        env.step(action)
        env._get_observations(force_update=True)  # twice: robosuite computes relative poses before the poses
        observations = dict(env._get_observations(force_update=True))
        observations["object"] = observations.pop("object-state")
        rows.append((simulation.state, observations, bool(env._check_success())))
    return rows


def assert_equal(simulation: Simulation, expected: list[tuple]) -> None:
    for step, (action, (state, observations, success)) in enumerate(zip(actions(), expected)):
        got = simulation.step(action)
        assert simulation.state.tobytes() == state.tobytes(), f"step {step}"
        assert simulation.success == success, f"step {step}"
        assert set(got) == {key for key in observations if not key.endswith("-state")}
        for key, value in got.items():
            assert value.dtype == np.float32
            assert value.tobytes() == observations[key].astype(np.float32).tobytes(), f"step {step}, {key}"


@pytest.mark.parametrize(
    ("name", "robot"), [("lift", "Panda"), ("can", "Panda"), ("stack", "Panda"), ("lift", "Sawyer"), ("can", "UR5e")]
)
def test_steps_are_robosuites(name, robot, monkeypatch):
    simulation = Simulation(TASKS[name](robot=robot))
    simulation.reset(3)
    start, model_file = simulation.state, simulation.model_file
    expected = robosuite_steps(simulation, monkeypatch)
    assert not np.array_equal(expected[-1][0], start)

    simulation.restore(model_file, start)  # soft: the same model
    assert_equal(simulation, expected)
    simulation.reset(4)
    simulation.restore(model_file, start)  # hard: the model is read back from its XML
    assert_equal(simulation, expected)

    middle = expected[10][0]  # a state away from the posture at which a reset builds the controllers
    simulation.restore(model_file, middle)
    expected = robosuite_steps(simulation, monkeypatch)
    simulation.restore(model_file, middle)
    assert_equal(simulation, expected)


def test_observations_after_a_restore_do_not_depend_on_what_came_before():
    simulation = Simulation(TASKS["can"]())
    first = simulation.reset(5)
    start, model_file = simulation.state, simulation.model_file
    for action in actions():
        simulation.step(action)
    again = simulation.restore(model_file, start)
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_refuses_what_it_was_not_written_for(monkeypatch):
    simulation = Simulation(TASKS["lift"]())
    arm = simulation._env.robots[0].composite_controller.part_controllers["right"]
    monkeypatch.setattr(arm, "input_ref_frame", "world")
    with pytest.raises(InputError, match="input_ref_frame is 'world'"):
        control.Control(simulation._env)
    monkeypatch.setattr(control.robosuite, "__version__", "1.6.0")
    with pytest.raises(InputError, match=r"1\.6\.0"):
        control.Control(simulation._env)
