"""What goes wrong in an episode: plans of hesitations, failed grasps and failures."""

from dataclasses import dataclass, field

import numpy as np

from envs.recipes import RecipeConfig

# Where operators hesitate, as (phase, share of the phase done): before the descent, just above the object, and, with
# the object in hand, before it is put down.
DIFFICULT = {
    "lemon": (("descend", 0.0), ("descend", 0.85)),
    "lift": (("descend", 0.0), ("descend", 0.85)),
    "stack": (("descend", 0.0), ("descend", 0.85), ("lower", 0.0)),
    "door": (("descend", 0.0), ("descend", 0.85)),
    "pick_place": (("descend", 0.0), ("descend", 0.85), ("lower", 0.0)),
}
# Mean seconds of the phases in which one may hesitate anywhere.
PHASE_SECONDS = {"approach": 2.5, "descend": 1.9, "grasp": 0.9, "raise": 1.4, "transport": 3.0, "lower": 1.2}
PHASE_ORDER = {name: order for order, name in enumerate(PHASE_SECONDS)}
MAX_LAPSES = 4


@dataclass(frozen=True)
class Hesitation:
    attempt: int  # number of failed grasps before it
    phase: str
    fraction: float  # share of the phase done when it begins
    seconds: float


@dataclass
class Plan:
    """The lapses of one episode."""

    hesitations: list[Hesitation] = field(default_factory=list)
    failed_grasps: list[str] = field(default_factory=list)  # "miss" or "slip", in order
    retractions: list[float] = field(default_factory=list)  # s, one a failed grasp, and one if it fails for good
    failure: str | None = None  # "miss" or "drop": how it fails for good
    manner: str = "waver"  # of its hesitations


def plan(recipe: RecipeConfig, task: str, phases: tuple[str, ...], quality: str, rng: np.random.Generator) -> Plan:
    """Draws the lapses of an episode of that quality."""
    result = Plan(manner=recipe.manner)
    if quality == "expert":
        return result
    if quality == "mixed":
        count = 2 + rng.poisson(max(0.0, recipe.mean_lapses - 2))
        retries = int(rng.integers(1, count))
    else:
        count = 1 + rng.poisson(recipe.mean_lapses - 1)
        retries = {"hesitation": 0, "retry": count, "failure": 0}[quality]
    count, retries = min(count, MAX_LAPSES), min(retries, MAX_LAPSES - (quality == "mixed"))
    if quality == "failure":
        count = int(rng.integers(0, 2))  # perhaps it also hesitates before it fails
        result.failure = str(rng.choice(["miss", "drop"]))
    result.failed_grasps = [str(rng.choice(["miss", "slip"])) for _ in range(retries)]
    result.retractions = [rng.uniform(*recipe.retraction_seconds) for _ in range(retries + 1)]  # type: ignore[call-overload]
    while len(result.hesitations) < count - retries:
        phase, fraction = _spot(recipe, task, phases, quality, len(result.hesitations), rng)
        attempt = retries if PHASE_ORDER[phase] > PHASE_ORDER["grasp"] else int(rng.integers(0, retries + 1))
        new = Hesitation(attempt, phase, fraction, rng.uniform(*recipe.hesitation_seconds))  # type: ignore[call-overload]
        if not any(_adjoins(new, other) for other in result.hesitations):  # two in one place would be one long one
            result.hesitations.append(new)
    return result


def _adjoins(one: Hesitation, other: Hesitation) -> bool:
    return (one.attempt, one.phase) == (other.attempt, other.phase) and abs(one.fraction - other.fraction) < 0.2


def _spot(
    recipe: RecipeConfig, task: str, phases: tuple[str, ...], quality: str, taken: int, rng: np.random.Generator
) -> tuple[str, float]:
    if rng.uniform() < recipe.clustered and taken < 2:
        spots = DIFFICULT.get(task, DIFFICULT["pick_place"])
        if quality == "failure":
            spots = spots[:2]  # it may never come to the others
        phase, fraction = spots[int(rng.integers(len(spots)))]
        return phase, float(np.clip(fraction + rng.uniform(-0.06, 0.06), 0.0, 0.95))
    names = [name for name in PHASE_SECONDS if name in phases]
    if quality == "failure":
        names = names[:2]
    weights = np.array([PHASE_SECONDS[name] for name in names])
    return str(rng.choice(names, p=weights / weights.sum())), float(rng.uniform(0, 0.9))
