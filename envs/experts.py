"""One scripted expert a task: a sequence of phases, read top to bottom.

A phase names where the hand heads, whether it is open, and how long it stays there; `envs.recording` plays it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from envs.operator import CLOSE, HAND, OPEN, Style
from envs.simulation import Simulation

# Inner walls of the bin that objects lie in, lowest and highest x and y [m], and how high they reach. The hand is wide
# along the direction in which its fingers close and hangs just above the fingertips: low objects beside a wall are
# taken with the hand along the wall.
SOURCE_BIN, WALL_TOP = np.array([[-0.09, 0.29], [-0.49, -0.01]]), 0.90
HAND_REACH, HAND_CLEARANCE = 0.105, 0.04  # m, from the grasp point to the hand's ends and to its underside
PEG_TOP = 0.95  # m
OPEN_ANGLE = 0.37  # rad of the door's hinge; it counts as open from 0.3 on
BIN_CENTRES = {"milk": (0.0025, 0.1575), "bread": (0.1975, 0.1575), "cereal": (0.0025, 0.4025), "can": (0.1975, 0.4025)}


@dataclass(frozen=True)
class Thing:
    """The object to be grasped."""

    body: str  # MuJoCo body
    grasp_height: float = 0.0  # m above the body's origin at which the fingers close
    top: float = 0.02  # m, the body's top above its origin
    symmetry: float | None = np.pi / 2  # rad after which its outline repeats; None if round
    closing: float = 0.0  # rad, direction in the body's frame along which the fingers close
    handle: tuple[float, float] = (0.0, 0.0)  # m in the body's frame, where it is grasped beside its origin


THINGS = {
    "lift": Thing("cube_main"),
    "stack": Thing("cubeA_main"),
    "can": Thing("Can_main", 0.01, 0.04, None),
    "bread": Thing("Bread_main", 0.0, 0.025),
    "cereal": Thing("Cereal_main", 0.04, 0.075, np.pi, np.pi / 2),
    "milk": Thing("Milk_main", 0.045, 0.08),
    "lemon": Thing("cube_main", 0.0, 0.025, None),
    "nut": Thing("RoundNut_main", 0.0, 0.01, np.pi, np.pi / 2, (0.065, 0.0)),
    "door": Thing("Door_latch", 0.0, 0.02, np.pi, np.pi / 2, (0.12, -0.10)),
}


@dataclass
class Workspace:
    """What an expert sees while it plays: the scene, its style and what it remembers."""

    simulation: Simulation
    style: Style
    anchor: np.ndarray = field(default_factory=lambda: np.zeros(3))  # [3] m, the hand when the phase began
    carried: np.ndarray = field(default_factory=lambda: np.zeros(3))  # [3] m, hand minus object at that moment
    grasped_at: float = 0.0  # m, height of the hand when it closed
    hinge: float = 0.0  # rad, of a door when the phase began
    miss: np.ndarray = field(default_factory=lambda: np.zeros(3))  # [3] m, error of the next grasp

    @property
    def thing(self) -> Thing:
        return THINGS[self.simulation.task.name]

    @property
    def object(self) -> np.ndarray:
        return self.simulation.data.body(self.thing.body).xpos.copy()

    @property
    def handle(self) -> np.ndarray:
        """Where the object is taken, at its origin's height."""
        frame = self.simulation.data.body(self.thing.body).xmat.reshape(3, 3)
        return self.object + frame[:, :2] @ self.thing.handle if any(self.thing.handle) else self.object

    @property
    def grasp_point(self) -> np.ndarray:
        return self.handle + [0, 0, self.thing.grasp_height] + self.style.grasp_offset + self.miss

    def grasp_yaw(self, yaw: float) -> float:
        """Direction for the fingers: the object's nearest equivalent to the present `yaw` [rad] that walls allow."""
        symmetry = self.thing.symmetry
        if symmetry is None:
            return float(yaw)
        axis = self.simulation.data.body(self.thing.body).xmat.reshape(3, 3)[:, 0]
        wanted = np.arctan2(axis[1], axis[0]) + self.thing.closing
        nearest = float(yaw + (wanted - yaw + symmetry / 2) % symmetry - symmetry / 2)
        choices = sorted((nearest, nearest - symmetry, nearest + symmetry), key=lambda choice: abs(choice - yaw))
        return next((choice for choice in choices if self._clears_walls(choice)), nearest)

    def _clears_walls(self, yaw: float) -> bool:
        """Whether the hand, grasping at `yaw` [rad], stays off the walls of the bin."""
        if self.simulation.task.name not in BIN_CENTRES or self.grasp_point[2] + HAND_CLEARANCE > WALL_TOP:
            return True
        reach = HAND_REACH * np.abs([np.cos(yaw), np.sin(yaw)])
        low, high = SOURCE_BIN.T
        return bool(np.all(self.object[:2] - reach > low) and np.all(self.object[:2] + reach < high))


@dataclass(frozen=True)
class Phase:
    """One stretch of an expert's motion."""

    name: str
    goal: Callable[[Workspace], np.ndarray]  # position [3] in m that the hand heads for, read at every step
    grip: float  # OPEN or CLOSE
    pace: float = 1.0  # share of the operator's speed
    dwell: Callable[[Style], float] = lambda style: 0.0  # s spent at the goal
    yaw: Callable[[Workspace, float], float] = lambda scene, yaw: yaw  # rad to turn to, from that at its beginning


def _above_object(scene: Workspace) -> np.ndarray:
    height = scene.thing.top + scene.style.hover
    return scene.handle + [0, 0, height] + scene.style.approach_offset


def _in_place(scene: Workspace) -> np.ndarray:
    return scene.anchor


def _raised(scene: Workspace) -> np.ndarray:
    return scene.anchor + [0, 0, scene.style.raise_height]


def _clear_of_walls(scene: Workspace) -> np.ndarray:
    return np.append(scene.anchor[:2], scene.grasped_at + 0.12 + scene.style.raise_height)


def _over_bin(scene: Workspace) -> np.ndarray:
    return np.append(BIN_CENTRES[scene.simulation.task.name] + scene.carried[:2], scene.anchor[2])


def _into_bin(scene: Workspace) -> np.ndarray:
    return np.append(scene.anchor[:2], scene.grasped_at + 0.015)


def _over_base(scene: Workspace) -> np.ndarray:
    base = scene.simulation.data.body("cubeB_main").xpos
    return np.append(base[:2] + scene.carried[:2], scene.anchor[2])


def _onto_base(scene: Workspace) -> np.ndarray:
    base = scene.simulation.data.body("cubeB_main").xpos
    return np.append(base[:2] + scene.carried[:2], base[2] + 0.045 + scene.carried[2] + 0.002)


def _above_peg(scene: Workspace) -> np.ndarray:
    return np.append(scene.anchor[:2], PEG_TOP + 0.05)


def _handle_aside(scene: Workspace, yaw: float) -> float:
    """Turns the nut until its handle points no further from the robot than its middle: the arm reaches no further."""
    way = np.arctan2(scene.carried[1], scene.carried[0])
    return yaw + (np.copysign(np.pi / 2, way) - way if abs(way) < np.pi / 2 else 0.0)


def _over_peg(scene: Workspace) -> np.ndarray:
    held = scene.simulation.data.site(HAND).xpos - scene.object  # now, since the hand turns
    return np.append(scene.simulation.data.body("peg2").xpos[:2] + held[:2], scene.anchor[2])


def _onto_peg(scene: Workspace) -> np.ndarray:
    return np.append(scene.simulation.data.body("peg2").xpos[:2] + scene.carried[:2], PEG_TOP - 0.08)


def _opened(scene: Workspace) -> np.ndarray:
    """Where the hand is once the door has turned as far as it should, about its hinge."""
    hinge = scene.simulation.data.joint("Door_hinge")
    away = scene.anchor[:2] - hinge.xanchor[:2]
    turn = OPEN_ANGLE - scene.hinge
    cos, sin = np.cos(turn), np.sin(turn)
    turned = [cos * away[0] - sin * away[1], sin * away[0] + cos * away[1]]
    return np.append(hinge.xanchor[:2] + turned, scene.anchor[2])


APPROACH = Phase("approach", _above_object, OPEN, yaw=Workspace.grasp_yaw)
DESCEND = Phase("descend", lambda scene: scene.grasp_point, OPEN, pace=0.6)
GRASP = Phase("grasp", _in_place, CLOSE, dwell=lambda style: style.close_seconds)
RELEASE = Phase("release", _in_place, OPEN, dwell=lambda style: 0.5)
WITHDRAW = Phase("withdraw", _raised, OPEN)

LIFT = (APPROACH, DESCEND, GRASP, Phase("raise", _raised, CLOSE, pace=0.6))
STACK = (
    APPROACH,
    DESCEND,
    GRASP,
    Phase("raise", _raised, CLOSE),
    Phase("transport", _over_base, CLOSE, pace=0.6),
    Phase("lower", _onto_base, CLOSE, pace=0.45),
    RELEASE,
    WITHDRAW,
)
PICK_PLACE = (
    APPROACH,
    DESCEND,
    GRASP,
    Phase("raise", _clear_of_walls, CLOSE),
    Phase("transport", _over_bin, CLOSE, pace=1.2),
    Phase("lower", _into_bin, CLOSE),
    RELEASE,
    WITHDRAW,
)

NUT = (
    APPROACH,
    DESCEND,
    GRASP,
    Phase("raise", _above_peg, CLOSE),
    Phase("transport", _over_peg, CLOSE, pace=0.7, yaw=_handle_aside),
    Phase("lower", _onto_peg, CLOSE, pace=0.4),
    RELEASE,
    WITHDRAW,
)
DOOR = (APPROACH, DESCEND, GRASP, Phase("transport", _opened, CLOSE, pace=0.6))

SPEEDS = {
    "lift": 0.06,
    "stack": 0.09,
    "can": 0.16,
    "bread": 0.16,
    "cereal": 0.16,
    "milk": 0.16,
    "lemon": 0.06,
    "nut": 0.12,
    "door": 0.1,
}  # m/s, median

EXPERTS: dict[str, tuple[Phase, ...]] = {
    "lift": LIFT,
    "can": PICK_PLACE,
    "bread": PICK_PLACE,
    "cereal": PICK_PLACE,
    "milk": PICK_PLACE,
    "stack": STACK,
    "lemon": LIFT,
    "nut": NUT,
    "door": DOOR,
}
