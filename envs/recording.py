"""Plays an expert with its lapses and records the episode."""

import zlib
from collections.abc import Callable, Iterator

import numpy as np

from envs.experts import EXPERTS, LIFT, SPEEDS, Phase, Workspace
from envs.lapses import Plan, plan
from envs.operator import CLOSE, PATIENCE, Operator, Style
from envs.recipes import RecipeConfig, quality
from envs.simulation import Simulation
from envs.tasks import CONTROL_FREQUENCY
from wvm_rl.data.episodes import KINDS, Episode
from wvm_rl.errors import InputError

COLLECTION = 1  # first word of the entropy of collected episodes; banks of initial states use another
HESITATION, RETRY, FAILURE = (KINDS.index(kind) for kind in ("hesitation", "retry", "failure"))
MAX_STEPS = 1500  # an episode still running then has gone wrong
MAX_TRIES = 20


class Performance:
    """One expert's way through its phases, with the planned lapses on the way.

    Attributes:
        step: control steps performed so far, counted by the recorder.
        phase: number of the phase it is in; 0, on its way to the object, while it retracts.
        lapses: (kind, m, n) so far, inclusive control steps.
    """

    def __init__(self, simulation: Simulation, lapses: Plan, rng: np.random.Generator):
        self.plan = lapses
        self.phases = EXPERTS[simulation.task.name]
        style = Style.sample(SPEEDS[simulation.task.name], rng)
        self.scene = Workspace(simulation, style)
        self.operator = Operator(simulation, style, rng)
        self.pending = list(lapses.hesitations)
        self.path: list[np.ndarray] = []  # set-points of the last approach
        self.step = self.phase = 0
        self.lapses: list[tuple[int, int, int]] = []
        self.slip_height = rng.uniform(0.008, 0.013) if self.phases is LIFT else rng.uniform(0.02, 0.05)
        self.drop_at = rng.uniform(0.2, 0.6)  # share of the transport done
        thing = self.scene.thing
        self.miss = np.append(rng.normal(0, 0.008, 2), thing.top - thing.grasp_height + rng.uniform(0.02, 0.035))

    def actions(self) -> Iterator[np.ndarray]:
        """Yields the actions [7] of the whole episode."""
        attempt, index = 0, 0
        while index < len(self.phases):
            grasps = self.plan.failed_grasps
            fault = grasps[attempt] if attempt < len(grasps) else self.plan.failure
            final = attempt >= len(grasps)
            self.scene.miss = self.miss if fault == "miss" else np.zeros(3)
            phase, self.phase = self.phases[index], index
            yield from self._perform(phase, attempt, fault)
            if self._fails(phase, fault):
                yield from self._retract(attempt, final)
                if final:
                    return
                attempt, index = attempt + 1, 0
            else:
                index += 1
        yield from self.operator.hold(0.3)

    def _fails(self, phase: Phase, fault: str | None) -> bool:
        carrying = [each.name for each in self.phases if each.name in ("raise", "transport")]
        return phase.name == {"miss": "grasp", "slip": carrying[0], "drop": carrying[-1]}.get(fault or "")

    def _perform(self, phase: Phase, attempt: int, fault: str | None) -> Iterator[np.ndarray]:
        """Yields a phase's actions, up to the moment where a slip or a drop happens in it."""
        scene, operator = self.scene, self.operator
        scene.anchor, scene.carried = operator.hand.copy(), operator.hand - scene.object
        operator.grip = phase.grip
        if scene.simulation.task.name == "door":
            scene.hinge = float(scene.simulation.data.joint("Door_hinge").qpos[0])
        if phase.name == "approach":
            self.path = []
        if phase.name == "grasp":
            scene.grasped_at = float(scene.anchor[2])
        yaw = phase.yaw(scene, operator.yaw)
        total = left = max(1e-6, float(np.linalg.norm(phase.goal(scene) - operator.setpoint)))
        waited, dwelt, dwell = 0, 0, round(phase.dwell(scene.style) * CONTROL_FREQUENCY)
        while True:
            done = dwelt / dwell if dwell else 1 - left / total
            yield from self._hesitations(phase.name, attempt, done)
            if self._fails(phase, fault) and phase.grip == CLOSE and phase.name != "grasp":
                risen = operator.hand[2] - scene.anchor[2]
                if (phase.name == "raise" and risen > self.slip_height) or (
                    phase.name == "transport" and done > self.drop_at
                ):
                    return
            goal = phase.goal(scene)
            turned = operator.turn(yaw)
            if left > 1e-6 and not dwell:
                left = operator.advance(goal, phase.pace)
                if phase.name == "approach":
                    self.path.append(operator.setpoint.copy())
            elif dwelt < dwell:
                dwelt += 1
            elif (turned and operator.arrived(goal)) or waited > PATIENCE * CONTROL_FREQUENCY:
                return
            else:
                waited += 1
            yield operator.action()

    def _hesitations(self, phase: str, attempt: int, done: float) -> Iterator[np.ndarray]:
        for hesitation in list(self.pending):
            if (hesitation.phase, hesitation.attempt) == (phase, attempt) and done >= hesitation.fraction:
                self.pending.remove(hesitation)
                start = self.step
                yield from self.operator.hesitate(hesitation.seconds, self.plan.manner)
                self.lapses.append((HESITATION, start, self.step - 1))

    def _retract(self, attempt: int, final: bool) -> Iterator[np.ndarray]:
        start, self.phase = self.step, 0
        yield from self.operator.retract(self.path, self.scene.style.hover, self.plan.retractions[attempt])
        if final:
            yield from self.operator.hold(1.5)
        self.lapses.append((FAILURE if final else RETRY, start, self.step - 1))


def record(
    simulation: Simulation,
    recipe: RecipeConfig,
    seed: int,
    index: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Episode:
    """Records episode `index` of a dataset: a pure function of (task, recipe, seed, index).

    An episode that does not end as its plan says (a grasp that went wrong by chance) is drawn again.

    Args:
        on_step: called before every control step with its number, while the simulation is in that step's state;
            frames are rendered there. A redrawn episode starts again from step 0.

    Returns:
        The episode without frames.
    """
    for attempt in range(MAX_TRIES):
        episode, as_planned = draw(simulation, recipe, seed, index, attempt, on_step)
        if as_planned:
            return episode
    task, kind = simulation.task.name, quality(recipe, index)
    raise InputError(
        f"{task}: no {kind} episode of {MAX_TRIES} draws of seed {seed}, episode {index}, went as planned: shorten the "
        "recipe's lapses or choose another seed"
    )


def draw(
    simulation: Simulation,
    recipe: RecipeConfig,
    seed: int,
    index: int,
    attempt: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[Episode, bool]:
    """Plays draw `attempt` of an episode; returns it, and whether it went as planned."""
    task = simulation.task
    name = zlib.crc32(f"{task.name}/{recipe.name}".encode())
    kind = quality(recipe, index)
    entropy = np.random.SeedSequence([COLLECTION, name, seed, index, attempt])
    rng = np.random.default_rng(entropy)
    simulation.reset(int(entropy.generate_state(1)[0]))
    if recipe.raised and rng.uniform() < 0.5:
        _raise(simulation, recipe.raised * rng.uniform(), rng)
    lapses = plan(recipe, task.name, tuple(phase.name for phase in EXPERTS[task.name]), kind, rng)
    episode = _play(simulation, Performance(simulation, lapses, rng), kind, index, on_step)
    return episode, episode.success == (kind != "failure") and len(episode.lapses) == _expected(lapses)


def _raise(simulation: Simulation, height: float, rng: np.random.Generator) -> None:
    """Raises the hand, and makes that the initial state."""
    for action in Operator(simulation, Style.sample(SPEEDS[simulation.task.name], rng), rng).rise(height):
        simulation.step(action)
    simulation.restore(simulation.model_file, simulation.state)


def _expected(lapses: Plan) -> int:
    return len(lapses.hesitations) + len(lapses.failed_grasps) + (lapses.failure is not None)


def _play(
    simulation: Simulation, performance: Performance, kind: str, index: int, on_step: Callable[[int], None]
) -> Episode:
    observations, states, actions, rewards, phases = [], [], [], [], []
    for action in performance.actions():
        if performance.step >= MAX_STEPS:
            break
        on_step(performance.step)
        observations.append(simulation.observations)
        states.append(simulation.state)
        actions.append(action)
        phases.append(performance.phase)
        simulation.step(action)
        rewards.append(float(simulation.success))
        performance.step += 1
    return Episode(
        index=index,
        instruction=simulation.task.instruction,
        success=simulation.success,
        quality=kind,
        lapses=np.array(performance.lapses, np.int32).reshape(-1, 3),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        obs={key: np.stack([row[key] for row in observations]) for key in observations[0]},
        states=np.stack(states),
        model_file=simulation.model_file,
        phase=np.array(phases, np.int32),
    )
