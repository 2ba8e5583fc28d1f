"""One robosuite environment as states, actions and observations; no rendering, no OpenGL."""

import logging
import random
import sys
import types

import mujoco
import numpy as np

logging.disable(logging.WARNING)  # robosuite warns about optional parts at import; a newcomer reads errors
_cv2 = sys.modules.setdefault("cv2", types.ModuleType("cv2"))  # for robosuite's windows only, but it needs libGL
import robosuite  # noqa: E402

import envs.objects  # noqa: E402
import envs.robots  # noqa: E402, F401

if not hasattr(_cv2, "__file__"):
    del sys.modules["cv2"]
from envs.control import Control  # noqa: E402
from envs.modelfile import local, portable  # noqa: E402
from envs.tasks import CONTROL_FREQUENCY, TaskConfig  # noqa: E402

logging.disable(logging.NOTSET)
logging.getLogger("robosuite_logs").setLevel(logging.ERROR)


class Simulation:
    """A task's physics: reset or restore, then step.

    Trajectories are pure functions of (model_file, initial state, actions), bit for bit: `reset` itself ends in
    `restore`, so that an episode's record replays exactly.

    Attributes:
        env_args: what robomimic needs to build the same environment, if it is one of robosuite's own (`envs.robots` and
            `envs.objects` are not).
        model_file: XML of the current model.
        observations: key -> f32 [n] after the last step, with robosuite's names.
        success: whether robosuite's own success check holds after the last step.
    """

    def __init__(self, task: TaskConfig):
        self.task = task
        settings = {
            "robots": task.robot,
            "control_freq": CONTROL_FREQUENCY,
            "ignore_done": True,
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "use_camera_obs": False,
            **task.options,
        }
        self.env_args = {"env_name": task.environment, "env_kwargs": settings, "type": 1}
        self.env_args |= {"task": task.name, "expert_steps": task.expert_steps}
        self._env = robosuite.make(task.environment, **settings)
        self._control = Control(self._env)
        self.model_file = ""

    @property
    def model(self) -> mujoco.MjModel:
        return self._env.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        return self._env.sim.data._data

    @property
    def state(self) -> np.ndarray:
        """Simulator state [S] f64: time, positions, velocities."""
        return self._env.sim.get_state().flatten()

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Samples model and initial state from `seed` alone; returns observations."""
        outer = np.random.get_state(), random.getstate()
        np.random.seed(seed)
        random.seed(seed)
        self._env.reset()
        np.random.set_state(outer[0])
        random.setstate(outer[1])
        self.model_file = ""  # a freshly built model differs in the last bits from one read back from its XML
        return self.restore(portable(self._env.sim.model.get_xml()), self.state)

    def restore(self, model_file: str, state: np.ndarray) -> dict[str, np.ndarray]:
        """Goes to an initial state [S] of a model; controllers and gripper start afresh."""
        env = self._env
        if model_file != self.model_file:
            env.reset_from_xml_string(local(model_file))
            self.model_file = model_file
        else:
            env.deterministic_reset = True
            env.reset()
            env.deterministic_reset = False
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        controller = env.robots[0].composite_controller
        controller.update_state()
        controller.reset()
        self._control = Control(env)
        return self._observe()

    def step(self, action: np.ndarray) -> dict[str, np.ndarray]:
        """Advances one control step of 1/20 s with action [7] in [-1, 1]; returns observations.

        The same physics as robosuite's `step`, bit for bit, but not the same way: see envs/control.py.
        """
        self._control.step(action)
        return self._observe()

    def _observe(self) -> dict[str, np.ndarray]:
        """Reads every sensor once: poses before what is computed from them.

        robosuite reads PickPlace's `Can_to_robot0_eef_pos` before `Can_pos`, hence with the object where it was one
        control step, or one restored state, earlier.
        """
        cache = self._env._obs_cache
        sensors = {name: sensor for name, sensor in self._env._observables.items() if sensor.is_enabled()}
        for name in sorted(sensors, key=lambda name: "_to_" in name):
            cache[name] = np.array(sensors[name]._sensor(cache))
        active = {name: cache[name] for name, sensor in sensors.items() if sensor.is_active()}
        observations = {name: value.astype(np.float32) for name, value in active.items()}
        objects = [value for name, value in active.items() if sensors[name].modality == "object"]
        observations["object"] = np.concatenate(objects).astype(np.float32)
        self.success = bool(self._env._check_success())
        self.observations = observations
        return observations
