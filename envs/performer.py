"""What a worker does of rollouts: starts them, executes the policy's actions, and reports where each stands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.observations import ObservationConfig, packed
from envs.tasks import TaskConfig
from wvm_rl.errors import InputError


@dataclass
class Recording:
    """One rollout: states, from which it can be rendered, and what the policy saw and did."""

    model_file: str
    states: np.ndarray  # [T + 1, S] f64
    obs: dict[str, np.ndarray]  # key -> [T, ...] f32
    actions: np.ndarray  # [T, 7] f32
    success: bool
    env_args: dict[str, Any]  # of the environment that it ran in (`envs.simulation`)


@dataclass
class Job:
    """What a worker needs to know of the rollouts."""

    task: TaskConfig
    observation: ObservationConfig
    horizon: int  # control steps
    record: frozenset[int]


@dataclass
class Start:
    """An order to begin a rollout."""

    rollout: int
    model_file: str
    state: np.ndarray


@dataclass
class Report:
    """Where a rollout stands."""

    rollout: int
    step: int  # control steps executed
    observation: np.ndarray  # [O] f32, or a record []
    success: bool
    done: bool
    recording: Recording | None = None


def performer(job: Job) -> Callable[[dict[int, Start | np.ndarray | None]], dict[int, Report]]:
    """Builds a worker's answer: {slot: Start or actions [E, A]} -> {slot: Report}."""
    from envs.simulation import Simulation

    slots: dict[int, _Slot] = {}

    def answer(orders: dict[int, Start | np.ndarray | None]) -> dict[int, Report]:
        reports = {}
        for slot, order in orders.items():
            if order is None:
                continue
            if slot not in slots:
                slots[slot] = _Slot(job, Simulation(job.task))
            stage = slots[slot]
            reports[slot] = stage.start(order) if isinstance(order, Start) else stage.execute(order)
        return reports

    return answer


class _Slot:
    """One live simulation of a worker and the rollout that it is in."""

    def __init__(self, job: Job, simulation):
        from envs.camera import Camera  # here, so that only workers load the simulator

        self.job, self.simulation = job, simulation
        self.cameras = [Camera(name, job.observation.size) for name in job.observation.cameras]

    def start(self, order: Start) -> Report:
        self.rollout, self.step = order.rollout, 0
        self.simulation.restore(order.model_file, order.state)
        self.states, self.actions = [self.simulation.state], []
        for camera in self.cameras:
            camera.begin(order.state)
        self.obs: list[dict[str, np.ndarray]] = []
        return self._report()

    def execute(self, actions: np.ndarray) -> Report:
        for action in actions:
            recorded = self.rollout in self.job.record
            if recorded:
                self.obs.append(self.simulation.observations)
                self.actions.append(action)
            self.simulation.step(action)
            self.step += 1
            if recorded:
                self.states.append(self.simulation.state)
            if self._done:
                break
        return self._report()

    @property
    def _done(self) -> bool:
        return self.step > 0 and (self.simulation.success or self.step >= self.job.horizon)

    def _report(self) -> Report:
        known = self.simulation.observations
        keys = self.job.observation.keys
        unknown = [key for key in keys if key not in known]
        if unknown:
            raise InputError(f"unknown observation keys {unknown}: choose from {', '.join(sorted(known))}")
        state = np.concatenate([known[key].ravel() for key in keys]).astype(np.float32)
        pictures = [camera(self.simulation.model, self.simulation.state) for camera in self.cameras]
        recording = None
        if self._done and self.rollout in self.job.record:
            obs = {key: np.stack([row[key] for row in self.obs]) for key in self.obs[0]}
            trace = np.stack(self.states), obs, np.stack(self.actions)
            recording = Recording(self.simulation.model_file, *trace, self.simulation.success, self.simulation.env_args)
        return Report(self.rollout, self.step, packed(state, pictures), self.simulation.success, self._done, recording)
