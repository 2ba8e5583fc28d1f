"""An arm's operational-space control as robosuite 1.5.1 computes it, without robosuite's Python around it."""

import mujoco
import numba
import numpy as np
import robosuite
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

from envs.tasks import ROBOTS
from wvm_rl.errors import InputError

ROBOSUITE = "1.5.1"  # the version whose floating-point operations `Control` repeats
ARM, GRIPPER = "right", "right_gripper"  # robosuite's names of its only parts
ARM_SETTINGS = {  # attributes of robosuite's arm controller that `Control` takes for granted
    "name": "OSC_POSE",
    "impedance_mode": "fixed",
    "input_type": "delta",
    "input_ref_frame": "base",
    "_goal_update_mode": "achieved",
    "uncoupling": True,
    "lite_physics": True,
    "interpolator_pos": None,
    "interpolator_ori": None,
}


class Control:
    """One robosuite environment's control step: an action's goals, then torques at every physics substep.

    Gives the states of robosuite's `env.step`, bit for bit: every floating-point operation and its order are
    robosuite's (Khatib 1987, with robosuite's own matrices and null-space torques); what is left out does not reach
    the physics (action limits, histories of recent values, observables, the state of parts that cannot move).
    Robosuite's controllers still turn the action into goals, once a control step, and own what a reset resets; hence
    build a new `Control` after every reset of the environment.

    Args:
        env: a robosuite environment, just reset.

    Raises:
        InputError: another robosuite version, robot or controller than this was written for.
    """

    def __init__(self, env):
        _check(env)
        robot = env.robots[0]
        model, data = env.sim.model._model, env.sim.data._data
        self._model, self._data = model, data
        self._substeps = int(env.control_timestep / env.model_timestep)
        self._controller = robot.composite_controller
        self._arm = arm = self._controller.part_controllers[ARM]
        self._gripper = self._controller.part_controllers[GRIPPER]

        # Views into mujoco's memory: always current, nothing to fetch.
        joints = _contiguous(arm.qvel_index)
        self._qpos, self._qvel = data.qpos[_contiguous(arm.qpos_index)], data.qvel[joints]
        self._gravity = data.qfrc_bias[joints]
        self._all_qvel, self._packed_mass = data.qvel, data.qM
        self._site = model.site(arm.ref_name).id
        self._site_position = data.site_xpos[self._site]
        self._site_rotation = data.site_xmat[self._site].reshape(3, 3)
        arm_actuators = _contiguous(robot._ref_actuators_indexes_dict[ARM])
        gripper_actuators = _contiguous(robot._ref_actuators_indexes_dict[GRIPPER])
        self._arm_control, self._gripper_control = data.ctrl[arm_actuators], data.ctrl[gripper_actuators]
        self._arm_low, self._arm_high = model.actuator_ctrlrange[arm_actuators].T.copy()
        self._gripper_low, self._gripper_high = model.actuator_ctrlrange[gripper_actuators].T.copy()

        # Buffers. The memory orders are robosuite's, since they choose the BLAS kernels and so the last bits.
        site_jacobian = np.zeros((6, model.nv))
        self._site_jacobian = _halves(site_jacobian)
        self._arm_jacobian = site_jacobian[:, joints]
        self._full_mass = np.zeros((model.nv, model.nv))
        self._arm_mass = self._full_mass[joints, joints]
        self._acceleration, self._wrench = np.zeros(6), np.zeros(6)
        self._acceleration_halves, self._wrench_halves = _halves(self._acceleration), _halves(self._wrench)
        self._inertias = np.zeros((3, 3), order="F"), np.zeros((3, 3), order="F")
        self._torques, self._null_torques = np.zeros((2, len(arm.qvel_index)))

        # The state as the controllers' construction left it: see `step`.
        self._position, self._rotation = arm.ref_pos, arm.ref_ori_mat  # shared, for robosuite's `set_goal`
        self._velocity = np.concatenate([arm.ref_pos_vel, arm.ref_ori_vel])
        self._velocity_halves = _halves(self._velocity)
        self._jacobian = arm.J_full.copy()
        self._mass = np.array(arm.mass_matrix, order="F")
        self._joint_position, self._joint_velocity = arm.joint_pos.copy(), arm.joint_vel.copy()
        self._joints = arm.initial_joint, self._joint_position, self._joint_velocity
        self._gains = arm.kp, arm.kd

    def step(self, action: np.ndarray) -> None:
        """Advances the simulation by one control step with action [7] in [-1, 1].

        A quirk kept: after a reset, robosuite's first goal and torques see the state at which the controllers were
        built, the robot's default posture, and not the one restored since.
        """
        assert len(action) == 7, f"an action has 7 numbers, not {len(action)}"
        arm, model, data = self._arm, self._model, self._data
        for substep in range(self._substeps):
            mujoco.mj_step1(model, data)
            if substep > 0 or arm.new_update:
                self._observe()
            if substep == 0:
                self._set_goals(action)
            self._apply_torques()
            mujoco.mj_step2(model, data)
        arm.new_update = True  # robosuite's mark for "the state has moved on"

    def _observe(self) -> None:
        """Reads pose, velocity, Jacobian and mass matrix of the arm."""
        jacobian_pos, jacobian_rot = self._site_jacobian
        mujoco.mj_jacSite(self._model, self._data, jacobian_pos, jacobian_rot, self._site)
        mujoco.mj_fullM(self._model, self._full_mass, self._packed_mass)
        velocity_pos, velocity_rot = self._velocity_halves
        np.dot(jacobian_pos, self._all_qvel, out=velocity_pos)
        np.dot(jacobian_rot, self._all_qvel, out=velocity_rot)
        self._jacobian[:] = self._arm_jacobian
        self._mass[:] = self._arm_mass
        self._position[:] = self._site_position
        self._rotation[:] = self._site_rotation
        self._joint_position[:] = self._qpos
        self._joint_velocity[:] = self._qvel

    def _set_goals(self, action: np.ndarray) -> None:
        """Turns the action into a goal pose in the world and fingers' positions, both fixed for this control step."""
        arm, gripper = self._arm, self._gripper
        arm.new_update = False  # `set_goal` is not to read the state again
        self._controller.set_goal(action)
        self._goal_position = arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos)
        self._goal_rotation = np.dot(arm.origin_ori, arm.goal_ori)
        fingers = np.maximum(gripper.run_controller(), self._gripper_low)
        np.minimum(fingers, self._gripper_high, out=self._gripper_control)

    def _apply_torques(self) -> None:
        """Impedance towards the goal in operational space, gravity compensation, posture in the null space."""
        torques = self._torques
        _impedance(
            (self._goal_position, self._goal_rotation, self._position, self._rotation),
            self._velocity,
            self._gains,
            self._mass,
            self._jacobian,
            self._joints,
            self._acceleration,
            self._inertias,
            self._null_torques,
        )
        inertia_pos, inertia_rot = self._inertias
        acceleration_pos, acceleration_rot = self._acceleration_halves
        force, torque = self._wrench_halves  # position and orientation are decoupled: two 3x3 inertias, not one 6x6
        np.dot(inertia_pos, acceleration_pos, out=force)
        np.dot(inertia_rot, acceleration_rot, out=torque)
        np.dot(self._jacobian.T, self._wrench, out=torques)
        torques += self._gravity
        torques += self._null_torques
        np.maximum(torques, self._arm_low, out=torques)
        np.minimum(torques, self._arm_high, out=self._arm_control)


@numba.njit(cache=True)
def _impedance(pose, velocity, gains, mass, jacobian, joints, acceleration, inertias, null_torques):
    """robosuite's own compiled functions in one call, as calling each costs more than the elementwise work.

    Products by BLAS stay out where robosuite has them in Python: numpy and numba may bring different BLAS libraries.

    Args:
        pose: goal position [3], goal rotation [3, 3], position [3], rotation [3, 3].
        velocity: linear and angular [6].
        gains: stiffness [6], damping [6].
        mass: joint-space inertia [7, 7].
        jacobian: [6, 7].
        joints: posture to hold in the null space [7], positions [7], velocities [7].
        acceleration: output [6], the desired one.
        inertias: outputs [3, 3], of translation and of rotation at the end effector.
        null_torques: output [7].
    """
    goal_position, goal_rotation, position, rotation = pose
    stiffness, damping = gains
    acceleration[:3] = goal_position - position
    acceleration[3:] = orientation_error(goal_rotation, rotation)
    for axis in range(6):
        acceleration[axis] = acceleration[axis] * stiffness[axis] - velocity[axis] * damping[axis]
    _, inertia_pos, inertia_rot, null_space = opspace_matrices(mass, jacobian, jacobian[:3], jacobian[3:])
    inertias[0][:] = inertia_pos
    inertias[1][:] = inertia_rot
    posture, joint_position, joint_velocity = joints
    null_torques[:] = nullspace_torques(mass, null_space, posture, joint_position, joint_velocity)


def _check(env) -> None:
    """Raises InputError unless `env` is controlled in the one way that `Control` repeats."""
    if robosuite.__version__ != ROBOSUITE:
        raise InputError(f"robosuite {robosuite.__version__}: envs/control.py needs {ROBOSUITE}; install that version")
    robots = [robot.name for robot in env.robots]
    if len(robots) != 1 or robots[0] not in ROBOTS:
        raise InputError(f"robots {robots}: envs/control.py drives a single arm: choose {', '.join(ROBOTS)}")
    controller = env.robots[0].composite_controller
    parts = {name: type(part).__name__ for name, part in controller.part_controllers.items()}
    if parts != {ARM: "OperationalSpaceController", GRIPPER: "SimpleGripController"} or controller.name != "BASIC":
        raise InputError(f"controller {controller.name} of {parts}: use robosuite's default controller")
    arm = controller.part_controllers[ARM]
    for key, expected in ARM_SETTINGS.items():
        if getattr(arm, key) != expected:
            raise InputError(f"controller setting {key} is {getattr(arm, key)!r}: envs/control.py needs {expected!r}")
    if not env.lite_physics:
        raise InputError("lite_physics is False: envs/control.py needs robosuite's default, True")
    model = env.sim.model._model
    base = model.site(f"{arm.naming_prefix}{arm.part_name}_center")
    if model.body_weldid[base.bodyid[0]] != 0:
        raise InputError(f"site {base.name} moves: envs/control.py needs an arm whose base is fixed to the world")


def _contiguous(indexes) -> slice:
    """Indexes as a slice, which makes views into mujoco's arrays possible; InputError if they have gaps."""
    first = int(indexes[0])
    if [int(index) for index in indexes] != list(range(first, first + len(indexes))):
        raise InputError(f"joint or actuator indexes {list(indexes)}: envs/control.py needs them consecutive")
    return slice(first, first + len(indexes))


def _halves(buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Views of the translational and the rotational three rows of [6, ...]."""
    return buffer[:3], buffer[3:]
