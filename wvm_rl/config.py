"""Configuration of the main job: its groups, their defaults, and the name of its run folder."""

from dataclasses import dataclass, field, make_dataclass
from typing import Any

from omegaconf import MISSING

from agents import AGENTS, POLICIES, matching
from agents.policies.seeing import Seeing
from agents.trainer import SEEDS, TrainerConfig
from envs.observations import OBSERVATIONS
from envs.recipes import RECIPES, RecipeConfig
from envs.tasks import EVERY
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.mirror import WandbConfig
from wvm_rl.values import VALUES


@dataclass
class DataConfig:
    """Scripted episodes to learn from."""

    episodes: int = 100
    seed: int = 0  # of the collection
    fps: int | None = None  # frames a second kept; null: the critic's; 0: none, no OpenGL needed, no value=wvm
    root: str | None = None  # data folder; null: `wvm_rl` in the user's cache
    workers: int | None = None  # processes that collect; null: one a core it may use
    recipe: RecipeConfig = MISSING

    def __post_init__(self):
        if self.episodes < 1:
            raise InputError(f"data.episodes={self.episodes} must be at least 1")
        if self.seed < 0:
            raise InputError(f"data.seed={self.seed} must be at least 0")
        if self.fps is not None and self.fps < 0:
            raise InputError(f"data.fps={self.fps} must be at least 0 frames a second")
        _check_workers(self.workers)


@dataclass
class FileData:
    """Episodes of a file, `data.path`, of the task and robot of `env`: of this project, or in robomimic's layout."""

    path: str = MISSING
    root: str | None = None  # data folder of what is made besides; null: `wvm_rl` in the user's cache
    workers: int | None = None  # processes that render; null: one a core it may use

    def __post_init__(self):
        _check_workers(self.workers)


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"data.workers={workers} must be at least 1")


def _data(recipe: type[RecipeConfig]) -> type[DataConfig]:
    """The data choice of one recipe, a class of this module: processes of Hydra's launchers look it up by name."""
    name = f"{recipe.__name__}Data"
    choice = make_dataclass(name, [("recipe", recipe, field(default_factory=recipe))], bases=(DataConfig,))
    choice.__doc__, choice.__module__ = recipe.__doc__, __name__
    globals()[name] = choice
    return choice


@dataclass
class EvaluationConfig:
    """Rollouts that judge the policy."""

    rollouts: int = 50  # a training seed
    seed: int = 0  # of the bank of initial states and of the policy's noise
    workers: int | None = None  # processes; null: one a core it may use
    videos: int = 0  # rollouts to film, with the critic's value drawn in
    keep: int = 0  # rollouts of the first training seed to keep as a dataset, rollouts.hdf5

    def __post_init__(self):
        if self.rollouts < 1:
            raise InputError(f"evaluation.rollouts={self.rollouts} must be at least 1")
        if not 0 <= self.seed < SEEDS:
            raise InputError(f"evaluation.seed={self.seed} must be at least 0 and below 2**32")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"evaluation.workers={self.workers} must be at least 1")
        for name in ("videos", "keep"):
            if not 0 <= getattr(self, name) <= self.rollouts:
                raise InputError(f"evaluation.{name}={getattr(self, name)} must lie in [0, evaluation.rollouts]")


@dataclass
class TrainConfig:
    """The main job."""

    defaults: list[Any] = field(
        default_factory=lambda: [
            {"env": "lift"},
            {"agent": "awr"},
            {"policy": "flow"},
            {"obs": "state"},
            {"value": "wvm"},
            {"data": "mixed"},
            "_self_",
        ]
    )
    env: Any = MISSING
    agent: Any = MISSING
    policy: Any = MISSING
    obs: Any = MISSING
    value: Any = MISSING
    data: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    match_ess: float | None = None  # effective sample size, a share of the samples, that the agent's knob is solved for
    seed: int = 0  # of the policy's training
    seeds: int = 1  # trains seed, seed + 1, ... at once

    def __post_init__(self):
        if not 0 <= self.seed < self.seed + self.seeds <= SEEDS:
            raise InputError(
                f"seed={self.seed} must be at least 0, seeds={self.seeds} at least 1, together up to 2**32"
            )
        if self.match_ess is not None:
            matching.knob(self.agent, self.match_ess)

    @property
    def informed(self) -> bool:
        """Whether values are to tell samples apart: not where the agent reads none, or the null is asked for."""
        return self.agent.reads_advantage and not self.value.shuffle

    @property
    def acting(self) -> Any:
        """The policy, with an encoder if it sees pictures."""
        return Seeing(self.policy) if self.obs.cameras else self.policy


GROUPS: dict[str, dict[str, Any]] = {
    "env": EVERY,
    "agent": AGENTS,
    "policy": POLICIES,
    "obs": OBSERVATIONS,
    "value": VALUES,
    "data": {name: _data(recipe) for name, recipe in RECIPES.items()} | {"file": FileData},
}


def run_name(*, _root_: Any) -> str:
    """Folder of a run: readable, and unique to its settings, so that the same command continues or finds it."""
    chosen = _root_.hydra.runtime.choices
    value = chosen["value"] + ("-shuffled" if _root_.value.shuffle else "")
    choices = [chosen[name] for name in ("env", "data", "agent", "policy")]
    choices += [] if chosen["obs"] == "state" else [chosen["obs"]]
    return "-".join([*choices, value, f"seed{_root_.seed}", cli.digest(_root_=_root_)])
