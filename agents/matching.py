"""Fair comparison: one effective sample size for all methods.

Methods differ in how sharply their defaults select, and a method that keeps less data learns from less. `matched`
solves a method's knob (`AgentConfig.knobs`), a temperature or a threshold, for a wanted effective sample size (Kish
1965): of its weights or, for a method that conditions, of those samples that have the condition it asks for.

awr is solved with its clip first; where that keeps more than is wanted, at least about the share of samples with a
positive advantage, the clip is lifted. filtered_bc_percentile and cfg reach any share but within ties. rabc has a
narrow range, that of its soft weight (0.75 to 0.80 of `suboptimal` episodes of lift with true progress). bc, rcp and
filtered_bc_binary have no such setting and are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial

import numpy as np
from scipy.optimize import brentq

from agents.base import AgentConfig, Knob, effective_fraction
from wvm_rl.data.episodes import Episode
from wvm_rl.errors import InputError

SCANNED = 61  # settings of a knob, spread evenly over six decades
TOLERANCE = 0.02  # in the effective sample size, at most a tenth of it: thresholds move by a sample, ties by more
SAME = 1e-3  # sizes that differ by less are equally near: of their settings the mildest is taken


def knobs(config: AgentConfig, ess: float) -> list[Knob]:
    """The settings to solve for, in the order in which they are tried; none that would change what is given.

    Raises:
        InputError: no share of the samples, a method without such a setting, or one whose setting is given, too.
    """
    if not 0 < ess <= 1:
        raise InputError(f"match_ess={ess} must be above 0 and at most 1: a share of the samples")
    if not config.knobs:
        raise InputError(
            f"match_ess: {type(config).__name__} has no knob that changes how many samples count: leave match_ess out, "
            "or give it one (`knobs` of agents/base.py)"
        )
    usual = {each.name: each.default for each in fields(config)}
    for name in (knob.name for knob in config.knobs):
        if (given := getattr(config, name)) != usual[name]:
            raise InputError(
                f"match_ess={ess:g} solves for agent.{name}, which is given as {given:g}: give one of them"
            )
    return [knob for knob in config.knobs if all(getattr(config, name) == usual[name] for name in knob.beside)]


def matched(
    config: AgentConfig,
    ess: float,
    advantage: np.ndarray,
    values: Sequence[np.ndarray],
    episodes: Sequence[Episode],
) -> AgentConfig:
    """The method with its knob set so that its effective sample size is the share `ess` of the samples.

    Raises:
        InputError: as in `knobs`, or the method cannot reach that size on these advantages.
    """

    def with_(knob: Knob, setting: float) -> AgentConfig:
        return replace(config, **knob.beside, **{knob.name: float(setting)})

    def size(knob: Knob, setting: float) -> float:
        method = with_(knob, setting)
        return effective_fraction(method.counted(method.columns(advantage, values, episodes)))

    reached = list[float]()
    for knob in knobs(config, ess):
        setting, sizes = _solved(partial(size, knob), knob, ess)
        if setting is not None:
            return with_(knob, setting)
        reached += sizes
    raise InputError(
        f"match_ess={ess:g} is out of reach: agent.{knob.name} gives {min(reached):.2f} to {max(reached):.2f} on these "
        "values; choose a size between, or other settings of the agent"
    )


def _solved(size: Callable[[float], float], knob: Knob, ess: float) -> tuple[float | None, tuple[float, float]]:
    """The setting that gives the wanted size, None if it is out of reach, and the extremes of the sizes."""
    tolerance = min(TOLERANCE, 0.1 * ess)
    settings = knob.low + (knob.high - knob.low) * np.array([0.0, *np.geomspace(1e-6, 1.0, SCANNED)])
    sizes = np.array([size(setting) for setting in settings])
    apart, extremes = sizes - ess, (float(sizes.min()), float(sizes.max()))
    crossed = np.flatnonzero(apart[:-1] * apart[1:] <= 0)
    if not len(crossed):
        near = np.flatnonzero(np.abs(apart) <= np.abs(apart).min() + SAME)[0]  # it may come near ever more slowly
        return (settings[near] if np.abs(apart).min() <= tolerance else None), extremes
    ends = settings[crossed[0]], settings[crossed[0] + 1]  # not every knob's size is monotone: the first way there
    found = brentq(lambda setting: size(setting) - ess, *ends, xtol=1e-6 * ends[1])
    if abs(size(found) - ess) > tolerance:
        raise InputError(
            f"match_ess={ess:g} falls between ties: the nearest of agent.{knob.name} gives {size(found):.3g}"
        )
    return found, extremes
