"""What a policy sees: the simulator's state, or what a robot has: its joints and cameras."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.tasks import CONTROL_FREQUENCY, POLICY_KEYS
from wvm_rl.errors import InputError


@dataclass
class ObservationConfig:
    """Observations of a policy, in training and when acting."""

    keys: list[str]  # of the simulator's observations, in this order
    cameras: list[str] = field(default_factory=list)  # "workspace", with a look perhaps, or cameras of the model
    size: int = 64  # pixels a side, a multiple of 8
    fps: int = 5  # pictures a second of an episode that are learned from; when acting, one is taken when one is needed

    def __post_init__(self) -> None:
        if not self.keys:
            raise InputError("obs.keys is empty: name at least one")
        if len(set(self.cameras)) < len(self.cameras):
            raise InputError(f"obs.cameras={self.cameras} names one twice")
        if any("." in camera for camera in self.cameras):
            from envs.looks import split  # here: it imports the simulator

            for camera in self.cameras:
                split(camera)
        for name in ("size", "fps") if not self.cameras else ():
            if getattr(self, name) != getattr(ObservationConfig, name):
                raise InputError(f"obs.{name}={getattr(self, name)} is of pictures, and there is no camera: obs=images")
        if self.size % 8 or not 16 <= self.size <= 512:
            raise InputError(f"obs.size={self.size} must be a multiple of 8 in [16, 512] pixels")
        if self.fps < 1 or CONTROL_FREQUENCY % self.fps:
            raise InputError(f"obs.fps={self.fps} must divide the control frequency of {CONTROL_FREQUENCY} Hz")


@dataclass
class State(ObservationConfig):
    """The simulator's state: hand, gripper and objects."""

    keys: list[str] = field(default_factory=lambda: list(POLICY_KEYS))


@dataclass
class Images(ObservationConfig):
    """Hand and gripper, and pictures of the critic's camera and of one on the wrist."""

    keys: list[str] = field(default_factory=lambda: [key for key in POLICY_KEYS if key != "object"])
    cameras: list[str] = field(default_factory=lambda: ["workspace", "robot0_eye_in_hand"])


OBSERVATIONS: dict[str, type[ObservationConfig]] = {"state": State, "images": Images}


def packed(state: np.ndarray, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One observation as one element: [O] f32 alone, or, with pictures, a record [] of `state` and `pictures`.

    Args:
        state: [O] f32.
        pictures: [S,S,3] u8, one a camera.
    """
    if not pictures:
        return state
    shown = np.stack(pictures)
    record = np.zeros((), [("state", np.float32, state.shape), ("pictures", np.uint8, shown.shape)])
    record["state"], record["pictures"] = state, shown
    return record
