"""The six manipulation tasks of the paper's RoboSuite benchmark, on a Panda at 20 Hz."""

from dataclasses import dataclass, field

from wvm_rl.errors import InputError

CONTROL_FREQUENCY = 20  # Hz, control steps a second
ROBOTS = ("Panda", "Sawyer", "UR5e")  # the others as `envs.robots` has them
# Arguments of robosuite's environments that simulation, experts, budgets and pictures count on.
FIXED = {
    *("robots", "gripper_types", "controller_configs", "control_freq", "horizon", "ignore_done", "hard_reset", "seed"),
    *("has_renderer", "has_offscreen_renderer", "use_camera_obs", "use_object_obs", "reward_shaping"),
}
POLICY_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")  # the state observation, in order


@dataclass
class TaskConfig:
    """A manipulation task: which simulation, what to say, how long it may take."""

    name: str
    environment: str  # robosuite environment class
    instruction: str
    expert_steps: int  # mean length of the scripted expert in control steps, frozen (see envs/README.md)
    options: dict = field(default_factory=dict)  # further arguments of the robosuite environment
    robot: str = "Panda"  # one of ROBOTS

    def __post_init__(self) -> None:
        if self.name not in EVERY:
            raise InputError(f"env.name={self.name} is no task: choose one by env={', '.join(EVERY)}")
        if taken := [option for option in self.options if option in FIXED]:
            raise InputError(f"env.options.{taken[0]} is the same for all tasks here: leave it out")
        if self.robot not in ROBOTS:
            raise InputError(f"env.robot={self.robot} is unknown: choose from {', '.join(ROBOTS)}")
        if self.expert_steps < 1:
            raise InputError(f"env.expert_steps={self.expert_steps} must be at least 1 control step")

    @property
    def horizon(self) -> int:
        """Control steps after which a rollout counts as failed: 2.5 expert lengths."""
        return round(2.5 * self.expert_steps)

    @property
    def budget(self) -> int:
        """Control steps within which a success is `in budget`: 1.5 expert lengths."""
        return round(1.5 * self.expert_steps)


@dataclass
class Lift(TaskConfig):
    """Lift a cube off the table."""

    name: str = "lift"
    environment: str = "Lift"
    instruction: str = "lift the red cube off the table"
    expert_steps: int = 205


@dataclass
class Can(TaskConfig):
    """Pick up a soda can and place it in its bin."""

    name: str = "can"
    environment: str = "PickPlaceCan"
    instruction: str = "pick up the can and place it in the front right bin"
    expert_steps: int = 290


@dataclass
class Bread(TaskConfig):
    """Pick up a loaf of bread and place it in its bin."""

    name: str = "bread"
    environment: str = "PickPlaceBread"
    instruction: str = "pick up the bread and place it in its bin"
    expert_steps: int = 240


@dataclass
class Cereal(TaskConfig):
    """Pick up a cereal box and place it in its bin."""

    name: str = "cereal"
    environment: str = "PickPlaceCereal"
    instruction: str = "pick up the cereal box and place it in its bin"
    expert_steps: int = 285


@dataclass
class Milk(TaskConfig):
    """Pick up a milk carton and place it in its bin."""

    name: str = "milk"
    environment: str = "PickPlaceMilk"
    instruction: str = "pick up the milk carton and place it in its bin"
    expert_steps: int = 260


@dataclass
class Stack(TaskConfig):
    """Stack the red cube on the green one."""

    name: str = "stack"
    environment: str = "Stack"
    instruction: str = "stack the red cube on the green cube"
    expert_steps: int = 230


@dataclass
class Lemon(TaskConfig):
    """Lift a lemon off the table."""

    name: str = "lemon"
    environment: str = "LiftLemon"
    instruction: str = "lift the yellow lemon off the table"
    expert_steps: int = 205


@dataclass
class Nut(TaskConfig):
    """Put a round nut over its peg."""

    name: str = "nut"
    environment: str = "NutAssemblyRound"
    instruction: str = "put the round nut over the round peg"
    expert_steps: int = 300


@dataclass
class Door(TaskConfig):
    """Open a door that has no latch by its handle."""

    name: str = "door"
    environment: str = "Door"
    instruction: str = "open the door"
    expert_steps: int = 220
    options: dict = field(default_factory=lambda: {"use_latch": False})


TASKS: dict[str, type[TaskConfig]] = {
    "lift": Lift,
    "can": Can,
    "bread": Bread,
    "cereal": Cereal,
    "milk": Milk,
    "stack": Stack,
}
UNSEEN: dict[str, type[TaskConfig]] = {"lemon": Lemon, "nut": Nut, "door": Door}  # not what critics are trained on
EVERY = TASKS | UNSEEN
