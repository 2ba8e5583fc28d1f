"""Fair comparison: one effective sample size for all methods.

Methods differ in how sharply their defaults select, and a method that keeps less data learns from less. `matched`
solves a method's knob, a temperature or a threshold, for a wanted effective sample size (Kish 1965).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from agents.base import AgentConfig, effective_fraction
from wvm_rl.errors import InputError

if TYPE_CHECKING:
    from wvm_rl.data.episodes import Episode

TOLERANCE = 0.02  # of the effective sample size: thresholds move in steps of a sample, ties in larger ones


def matched(
    config: AgentConfig,
    ess: float,
    advantage: np.ndarray,
    values: Sequence[np.ndarray],
    episodes: Sequence["Episode"],
) -> AgentConfig:
    """The method with its knob set so that its effective sample size is the share `ess` of the samples.

    Raises:
        InputError: the method weighs nothing, has no knob, or cannot reach that size on these advantages.
    """
    if not 0 < ess <= 1:
        raise InputError(f"match_ess={ess} must be above 0 and at most 1: a share of the samples")
    if config.knob is None:
        raise InputError(f"match_ess: {type(config).__name__} has no knob that changes how many samples count")
    name, low, high = config.knob

    def excess(knob: float) -> float:
        weight = replace(config, **{name: knob}).columns(advantage, values, episodes).weight
        return effective_fraction(weight) - ess

    ends = excess(low), excess(high)
    if min(ends) > TOLERANCE or max(ends) < -TOLERANCE:
        sizes = sorted(end + ess for end in ends)
        raise InputError(
            f"match_ess={ess:g} is out of reach: agent.{name} gives {sizes[0]:.2f} to {sizes[1]:.2f} on these values"
        )
    if ends[0] * ends[1] > 0:
        return replace(config, **{name: low if abs(ends[0]) < abs(ends[1]) else high})
    found = replace(config, **{name: float(brentq(excess, low, high, xtol=1e-6 * high))})
    reached = effective_fraction(found.columns(advantage, values, episodes).weight)
    if abs(reached - ess) > TOLERANCE:
        raise InputError(f"match_ess={ess:g} falls between ties: the nearest of agent.{name} gives {reached:.2f}")
    return found
