"""Fair comparison: one effective sample size for all methods.

Methods differ in how sharply their defaults select, and a method that keeps less data learns from less. `matched`
solves a method's knob, a temperature or a threshold, for a wanted effective sample size (Kish 1965). Methods have
their ranges: with its clip of 2 awr keeps at least about the share of samples with a positive advantage,
filtered_bc_percentile reaches any share but within ties, and those without a knob (`AgentConfig.knob`) are refused.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from scipy.optimize import brentq

from agents.base import AgentConfig, effective_fraction
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError

SCANNED = 61  # settings of a knob, spread evenly over six decades
TOLERANCE = 0.02  # in the effective sample size, at most a tenth of it: thresholds move by a sample, ties by more
SAME = 1e-3  # sizes that differ by less are equally near: of their settings the mildest is taken


def knob(config: AgentConfig, ess: float) -> tuple[str, float, float]:
    """The setting to solve for, and its extremes.

    Raises:
        InputError: no share of the samples, a method without such a setting, or one whose setting is given, too.
    """
    if not 0 < ess <= 1:
        raise InputError(f"match_ess={ess} must be above 0 and at most 1: a share of the samples")
    if config.knob is None:
        raise InputError(
            f"match_ess: {type(config).__name__} has no knob that changes how many samples count: leave match_ess out, "
            "or give it one (`knob` of agents/base.py)"
        )
    name, low, high = config.knob
    given, usual = getattr(config, name), next(each.default for each in fields(config) if each.name == name)
    if given != usual:
        raise InputError(f"match_ess={ess:g} solves for agent.{name}, which is given as {given:g}: give one of them")
    return name, low, high


def matched(
    config: AgentConfig,
    ess: float,
    advantage: np.ndarray,
    values: Sequence[np.ndarray],
    episodes: Sequence[Episode],
) -> AgentConfig:
    """The method with its knob set so that its effective sample size is the share `ess` of the samples.

    Raises:
        InputError: as in `knob`, or the method cannot reach that size on these advantages.
    """
    name, low, high = knob(config, ess)
    tolerance = min(TOLERANCE, 0.1 * ess)

    def excess(setting: float) -> float:
        weight = replace(config, **{name: setting}).columns(advantage, values, episodes).weight
        return effective_fraction(weight) - ess

    settings = low + (high - low) * np.array([0.0, *np.geomspace(1e-6, 1.0, SCANNED)])
    apart = np.array([excess(setting) for setting in settings])
    crossed = np.flatnonzero(apart[:-1] * apart[1:] <= 0)
    if not len(crossed):
        nearest = np.abs(apart).min()
        if nearest > tolerance:
            sizes = apart.min() + ess, apart.max() + ess
            raise InputError(
                f"match_ess={ess:g} is out of reach: agent.{name} gives {sizes[0]:.2f} to {sizes[1]:.2f} on these "
                "values; choose a size between, or other settings of the agent"
            )
        near = np.flatnonzero(np.abs(apart) <= nearest + SAME)[0]  # the size may approach it ever more slowly
        return replace(config, **{name: float(settings[near])})
    ends = settings[crossed[0]], settings[crossed[0] + 1]  # not every knob's size is monotone: the first way there
    found = replace(config, **{name: float(brentq(excess, *ends, xtol=1e-6 * ends[1]))})
    reached = effective_fraction(found.columns(advantage, values, episodes).weight)
    if abs(reached - ess) > tolerance:
        raise InputError(f"match_ess={ess:g} falls between ties: the nearest of agent.{name} gives {reached:.3g}")
    return found
