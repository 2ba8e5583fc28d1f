"""The oracle made worse on purpose: how good must a critic be for a method to profit?"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.fingerprint import fingerprint
from wvm_rl.values.base import ValueConfig, Values
from wvm_rl.values.oracle import Oracle


@dataclass
class NoisyConfig(ValueConfig):
    """True progress with noise, a bias towards the clock, and lag."""

    noise: float = 0.05  # standard deviation added to a value
    memory: float = 0.5  # seconds after which the noise's correlation has fallen to 1/e; 0: none
    bias: float = 0.0  # share of the clock in the value: 1 sees nothing but time
    lag: float = 0.0  # seconds by which a value comes late
    seed: int = 0  # of the noise

    def __post_init__(self):
        super().__post_init__()
        for name in ("noise", "memory", "lag"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"value.{name}={getattr(self, name)} must be 0 or more")
        if not 0 <= self.bias <= 1:
            raise InputError(f"value.bias={self.bias} must lie in [0, 1]")
        if self.seed < 0:
            raise InputError(f"value.seed={self.seed} must be at least 0")

    def source(self) -> "Noisy":
        return Noisy(self)


class Noisy:
    """V'(t) = (1 - bias) V(t - lag) + bias t/(T-1) + n(t), clipped to [0,1]; V is the oracle's, n first-order noise."""

    name = "noisy"

    def __init__(self, config: NoisyConfig):
        self.config = config
        self.fingerprint = fingerprint([2, Oracle.fingerprint, config.shaping()])

    def values(self, dataset: Dataset, start: int = 0) -> Iterator[Values]:
        config, rate = self.config, dataset.control_freq
        late = round(config.lag * rate)
        for index, (step, truth, _) in enumerate(Oracle().values(dataset, start), start=start):
            seen = truth[np.maximum(np.arange(len(truth)) - late, 0)]
            value = (1 - config.bias) * seen + config.bias * np.linspace(0, 1, len(truth))
            kept = np.exp(-1 / (config.memory * rate)) if config.memory else 0.0
            rng = np.random.default_rng([config.seed, zlib.crc32(dataset[index].actions.tobytes())])
            drawn = config.noise * rng.normal(size=len(truth)) * np.sqrt(1 - kept**2)
            drawn[0] /= np.sqrt(1 - kept**2)  # stationary from the start
            value = value + lfilter([1.0], [1.0, -kept], drawn)
            yield Values(step, np.clip(value, 0, 1).astype(np.float32))
