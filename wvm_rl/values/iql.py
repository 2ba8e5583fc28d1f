"""Settings of a classical critic, see `wvm_rl.values.qlearning`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wvm_rl.errors import InputError
from wvm_rl.values.base import ValueConfig

if TYPE_CHECKING:
    from wvm_rl.values.qlearning import IQL

SEEDS = 2**32 - 2  # V has a seed, Q's two have the next


@dataclass
class IQLConfig(ValueConfig):
    """Implicit Q-learning from states: a critic that learns from outcomes instead of from videos of experts."""

    discount: float = 0.995  # a control step; a success 10 s away is worth 0.37
    expectile: float = 0.7  # tau: above 0.5 V leans to the better actions of the data
    chunk: int = 20  # control steps that an action of Q lasts, and a backup bridges
    steps: int = 20_000  # updates
    batch: int = 256
    learning_rate: float = 1e-3
    target: float = 0.005  # share by which the targets of Q follow it at every update
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        for name in ("discount", "expectile", "target"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"value.{name}={getattr(self, name)} must lie in (0, 1)")
        if min(self.chunk, self.steps, self.batch) < 1 or self.learning_rate <= 0:
            raise InputError("value.chunk, steps, batch and learning_rate must be positive")
        if not 0 <= self.seed < SEEDS:
            raise InputError(f"value.seed={self.seed} must be at least 0 and below 2**32 - 2")

    def source(self) -> "IQL":
        from wvm_rl.values.qlearning import IQL  # the other sources need no JAX

        return IQL(self)
