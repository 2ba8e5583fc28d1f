"""Fair comparison: one effective sample size for all methods.

Methods differ in how sharply their defaults select, and a method that keeps less data learns from less. `matched`
solves a method's knob (`AgentConfig.knob`), a temperature or a threshold, for a wanted effective sample size (Kish
1965): of its weights, and of a method that conditions of those samples that have the condition it asks for.

awr's clip is lifted unless another than the default is given: with it, tau would reach no size below the share of
samples with a positive advantage, and near that be a mere filter. filtered_bc_percentile and cfg reach any share but
within ties. rabc has a narrow range, that of its soft weight (0.75 to 0.80 of `suboptimal` episodes of lift with true
progress). bc, rcp, of which one of `bins` levels is asked for, and filtered_bc_binary have no such setting and are
refused.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from scipy.optimize import brentq

from agents.base import AgentConfig, Knob, effective_fraction
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError

SCANNED = 61  # settings of a knob, spread evenly over six decades
TOLERANCE = 0.02  # in the effective sample size, at most a tenth of it: thresholds move by a sample, ties by more
SAME = 1e-3  # sizes that differ by less are equally near: of their settings the mildest is taken


def knob(config: AgentConfig, ess: float) -> Knob:
    """The setting to solve for.

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
    usual = {each.name: each.default for each in fields(config)}
    if (given := getattr(config, config.knob.name)) != usual[config.knob.name]:
        raise InputError(
            f"match_ess={ess:g} solves for agent.{config.knob.name}, which is given as {given:g}: give one of them"
        )
    beside = {name: value for name, value in config.knob.beside.items() if getattr(config, name) == usual[name]}
    return config.knob._replace(beside=beside)


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
    name, low, high, beside = knob(config, ess)
    tolerance = min(TOLERANCE, 0.1 * ess)

    def at(setting: float) -> AgentConfig:
        return replace(config, **beside, **{name: float(setting)})

    def excess(setting: float) -> float:
        method = at(setting)
        columns = method.columns(advantage, values, episodes)
        return effective_fraction(columns.weight * method.asked(columns)) - ess

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
        return at(settings[near])
    ends = settings[crossed[0]], settings[crossed[0] + 1]  # not every knob's size is monotone: the first way there
    found = float(brentq(excess, *ends, xtol=1e-6 * ends[1]))
    if abs(miss := excess(found)) > tolerance:
        raise InputError(f"match_ess={ess:g} falls between ties: the nearest of agent.{name} gives {ess + miss:.3g}")
    return at(found)
