"""Frames a second beside control steps a second."""

import numpy as np

from wvm_rl.errors import InputError


def frame_rate(least: float, steps: int) -> int:
    """Lowest whole number of frames a second, at least `least`, that falls on control steps, `steps` a second.

    Raises:
        InputError: there are fewer steps.
    """
    if least > steps:
        raise InputError(f"{least:g} frames a second are wanted, of {steps} control steps: more than there are")
    return next(rate for rate in range(1, steps + 1) if rate >= least and steps % rate == 0)


def nearest(step: np.ndarray, interval: float) -> np.ndarray:
    """Rows of the control steps [F] that are nearest to the first, to one `interval` after it, ... up to the last."""
    moments = np.arange(step[0], step[-1] + 0.5, interval)  # the last frame is nearest to one of them at most
    return np.abs(step[:, None] - moments).argmin(0)
