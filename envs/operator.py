"""The hand that plays an expert: smooth set-points, small human noise, hesitations and retractions."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from envs.manners import MANNERS
from envs.simulation import Simulation
from envs.tasks import CONTROL_FREQUENCY

OPEN, CLOSE = -1.0, 1.0
HAND = "gripper0_right_grip_site"
ACCELERATION = 0.35  # m/s^2 of the set-point
TURN_RATE = 0.9  # rad/s of the set-point's yaw
GAIN = 1.5  # share of the tracking error commanded per control step
POSITION_UNIT, ROTATION_UNIT = 0.05, 0.5  # m and rad of a full-scale action (robosuite's OSC_POSE defaults)
NOISE = 0.012  # standard deviation of the action noise, of full scale
NOISE_MEMORY = 0.7  # its correlation from one control step to the next
TOLERANCE = 0.01  # m between hand and goal that counts as arrived
PATIENCE = 0.6  # s to wait for the hand to arrive once the set-point has


@dataclass
class Style:
    """How one operator moves in one episode: natural variation between episodes."""

    speed: float  # m/s
    hover: float  # m above the object before the descent
    approach_offset: np.ndarray  # [3] m, where the approach ends beside the ideal point
    grasp_offset: np.ndarray  # [3] m, where the fingers close beside the ideal point
    raise_height: float  # m
    close_seconds: float

    @staticmethod
    def sample(speed: float, rng: np.random.Generator) -> "Style":
        """Draws a style whose median speed is `speed` [m/s]."""
        return Style(
            speed=speed * float(np.exp(rng.normal(0, 0.2))),
            hover=rng.uniform(0.085, 0.125),
            approach_offset=np.append(rng.normal(0, 0.010, 2), 0.0),
            grasp_offset=np.append(rng.normal(0, 0.003, 2), rng.normal(0, 0.003)).clip(-0.008, 0.008),
            raise_height=rng.uniform(0.08, 0.12),
            close_seconds=rng.uniform(0.75, 1.0),
        )


@dataclass
class Operator:
    """Turns goals of the hand into actions; every method yields one action [7] a control step."""

    simulation: Simulation
    style: Style
    rng: np.random.Generator
    grip: float = OPEN
    speed: float = 0.0  # m/s, of the set-point now
    yaw: float = field(init=False)  # rad, direction in which the fingers close
    setpoint: np.ndarray = field(init=False)  # [3] m
    noise: np.ndarray = field(default_factory=lambda: np.zeros(6))

    def __post_init__(self):
        self.setpoint = self.hand.copy()
        closing = self.rotation[:, 0]
        self.yaw = float(np.arctan2(closing[1], closing[0]))

    @property
    def hand(self) -> np.ndarray:
        return self.simulation.data.site(HAND).xpos

    @property
    def rotation(self) -> np.ndarray:
        return self.simulation.data.site(HAND).xmat.reshape(3, 3)

    def action(self) -> np.ndarray:
        """Action [7] that pulls the hand towards set-point and yaw, with operator noise."""
        closing = np.array([np.cos(self.yaw), np.sin(self.yaw), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        wanted = np.stack([closing, np.cross(down, closing), down], axis=1)
        turn = Rotation.from_matrix(wanted @ self.rotation.T).as_rotvec()
        self.noise = NOISE_MEMORY * self.noise + self.rng.normal(0, NOISE, 6) * np.sqrt(1 - NOISE_MEMORY**2)
        motion = np.concatenate([(self.setpoint - self.hand) / POSITION_UNIT, turn / ROTATION_UNIT])
        return np.append(GAIN * motion + self.noise, self.grip).clip(-1, 1).astype(np.float32)

    def turn(self, yaw: float) -> bool:
        """Turns the set-point one control step towards `yaw` [rad]; returns whether it is there."""
        limit = TURN_RATE / CONTROL_FREQUENCY
        self.yaw += float(np.clip(yaw - self.yaw, -limit, limit))
        return self.yaw == yaw

    def advance(self, goal: np.ndarray, pace: float = 1.0) -> float:
        """Moves the set-point one control step towards `goal` [3] at `pace` times the operator's speed.

        Returns the distance left in metres.
        """
        way = goal - self.setpoint
        distance = float(np.linalg.norm(way))
        limit = min(pace * self.style.speed, np.sqrt(2 * ACCELERATION * distance) + 1e-3)
        self.speed = min(limit, self.speed + ACCELERATION / CONTROL_FREQUENCY)
        length = min(distance, self.speed / CONTROL_FREQUENCY)
        if distance > 0:
            self.setpoint = self.setpoint + way * (length / distance)
        return distance - length

    def arrived(self, goal: np.ndarray) -> bool:
        return bool(np.linalg.norm(self.hand - goal) < TOLERANCE)

    def rise(self, height: float) -> Iterator[np.ndarray]:
        """Raises the hand by `height` metres and comes to rest."""
        goal, left = self.setpoint + [0, 0, height], height
        while left > 0:
            left = self.advance(goal)
            yield self.action()
        yield from self.hold(0.5)

    def hold(self, seconds: float) -> Iterator[np.ndarray]:
        """Stays where it is."""
        self.speed = 0.0
        for _ in range(round(seconds * CONTROL_FREQUENCY)):
            yield self.action()

    def hesitate(self, seconds: float, manner: str) -> Iterator[np.ndarray]:
        """Gets nowhere in one of `envs.manners`, and is back at the end."""
        self.speed = 0.0
        self.setpoint = centre = self.hand.copy()
        for offset in MANNERS[manner](self.rng, round(seconds * CONTROL_FREQUENCY)):
            self.setpoint = centre + offset
            yield self.action()
        self.setpoint = centre

    def retract(self, path: list[np.ndarray], hover: float, seconds: float) -> Iterator[np.ndarray]:
        """Opens the hand, rises by `hover` metres and goes back along the approach `path`, for `seconds` in all."""
        self.grip, self.speed = OPEN, 0.0
        self.setpoint = self.hand.copy()
        back = [self.setpoint + [0, 0, hover], *reversed(path)]
        back += [back[-1] + [0, 0, 0.1]]
        for step in range(round(seconds * CONTROL_FREQUENCY)):
            if step >= 0.3 * CONTROL_FREQUENCY:
                while len(back) > 1 and np.linalg.norm(back[0] - self.setpoint) < 0.5 * self.style.speed / 10:
                    back.pop(0)
                self.advance(back[0])
            yield self.action()
