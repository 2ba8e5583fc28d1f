"""How a critic's predictions become values."""

from dataclasses import dataclass

import numpy as np

from wvm_rl.errors import InputError


@dataclass
class Reading:
    """How a critic's predictions become values. The defaults are the paper's way (PAPER section 3).

    A critic that trusts its prefix repeats the errors of its own earlier values. The mean over `prefixes` spread over
    [0, 1] does not, and training with random prefixes taught it to read such chunks; it counts half, as the other half,
    of the running mean, keeps values steady (measured: `experiments/README.md`).
    """

    prefixes: int = 0  # whose mean prediction counts half; 0: the running mean is the only prefix
    smooth: int = 0  # neighbours on either side (frames at the critic's rate) of a frame, averaged by falling weights

    def __post_init__(self) -> None:
        if min(self.prefixes, self.smooth) < 0:
            raise InputError(f"reading.prefixes={self.prefixes} and reading.smooth={self.smooth} must be at least 0")
        if self.prefixes == 1:
            raise InputError("reading.prefixes=1 cannot be spread over [0, 1]: give 0, or at least 2")

    def smoothed(self, value: np.ndarray) -> np.ndarray:
        """Values [F] averaged with their neighbours, the outer ones with copies of themselves."""
        weights = np.bartlett(2 * self.smooth + 3)[1:-1]
        around = np.pad(value, self.smooth, mode="edge")
        return np.convolve(around, weights / weights.sum(), "valid").astype(value.dtype)


def mixed() -> Reading:
    """The reading of critics that are trained by the recipe (`experiments/inference.py`)."""
    return Reading(prefixes=3, smooth=2)
