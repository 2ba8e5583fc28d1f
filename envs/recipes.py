"""Recipes: what a dataset's episodes are like. Numbers frozen before any policy was trained (see envs/README.md)."""

from dataclasses import dataclass, field

from envs.manners import MANNERS
from wvm_rl.errors import InputError

QUALITIES = ("expert", "hesitation", "retry", "mixed", "failure")


@dataclass
class RecipeConfig:
    """Shares of episode qualities and the law of their lapses."""

    name: str
    shares: dict[str, float]  # quality -> share of the episodes
    mean_lapses: float = 2.0  # lapses an episode (1 + Poisson; mixed ones have at least one of each kind)
    clustered: float = 1.0  # share of an episode's first two hesitations at difficult spots; all others fall anywhere
    hesitation_seconds: list[float] = field(default_factory=lambda: [2.0, 5.0])  # shortest and longest
    retraction_seconds: list[float] = field(default_factory=lambda: [2.0, 4.0])  # shortest and longest
    manner: str = "waver"  # of hesitations, see `envs.manners`
    raised = 0.0  # see Expert; no setting of the others

    def __post_init__(self):
        unknown = set(self.shares) - set(QUALITIES)
        if unknown:
            raise InputError(
                f"recipe.shares has unknown qualities {sorted(unknown)}: choose from {', '.join(QUALITIES)}"
            )
        if min(self.shares.values(), default=-1) < 0 or abs(sum(self.shares.values()) - 1) > 1e-6:
            raise InputError(f"recipe.shares={self.shares} must be shares that add up to 1")
        if not 1 <= self.mean_lapses <= 4:
            raise InputError(f"recipe.mean_lapses={self.mean_lapses} must lie in [1, 4]")
        if not 0 <= self.clustered <= 1:
            raise InputError(f"recipe.clustered={self.clustered} must lie in [0, 1]")
        if not 0 <= self.raised <= 0.15:
            raise InputError(f"recipe.raised={self.raised} must lie in [0, 0.15] metres")
        if self.manner not in MANNERS:
            raise InputError(f"recipe.manner={self.manner} is unknown: choose from {', '.join(MANNERS)}")
        for name in ("hesitation_seconds", "retraction_seconds"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0.5 <= bounds[0] <= bounds[1]:
                raise InputError(f"recipe.{name}={bounds} must be [shortest, longest] in seconds, at least 0.5")


@dataclass
class Expert(RecipeConfig):
    """Experts only: what a critic learns from."""

    name: str = "expert"
    shares: dict[str, float] = field(default_factory=lambda: {"expert": 1.0})
    raised: float = 0.0  # metres that the hand starts above its usual place, at most, in half of the episodes


@dataclass
class Bench(RecipeConfig):
    """What a critic is measured on: exactly one lapse an episode, in any phase, beside experts and failures."""

    name: str = "bench"
    shares: dict[str, float] = field(
        default_factory=lambda: {"hesitation": 25 / 77, "retry": 25 / 77, "expert": 17 / 77, "failure": 10 / 77}
    )
    mean_lapses: float = 1.0
    clustered: float = 0.0


@dataclass
class Suboptimal(RecipeConfig):
    """Every episode succeeds in the end but has lapses, two on average, most at the same difficult spots."""

    name: str = "suboptimal"
    shares: dict[str, float] = field(default_factory=lambda: {"hesitation": 0.3, "retry": 0.3, "mixed": 0.4})


@dataclass
class Mixed(RecipeConfig):
    """Experts, lapses and failures together, as teleoperated data come."""

    name: str = "mixed"
    shares: dict[str, float] = field(
        default_factory=lambda: {"expert": 0.25, "hesitation": 0.25, "retry": 0.25, "mixed": 0.15, "failure": 0.1}
    )


RECIPES: dict[str, type[RecipeConfig]] = {
    "mixed": Mixed,
    "suboptimal": Suboptimal,
    "expert": Expert,
    "bench": Bench,
}


def quality(recipe: RecipeConfig, index: int) -> str:
    """Quality of episode `index`: the one furthest behind its share, so that every prefix keeps the shares."""
    counts = dict.fromkeys(recipe.shares, 0)
    chosen = ""
    for episode in range(index + 1):
        chosen = max(recipe.shares, key=lambda name: recipe.shares[name] * (episode + 1) - counts[name])
        counts[chosen] += 1
    return chosen
