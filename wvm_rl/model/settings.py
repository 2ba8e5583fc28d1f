"""What shapes a World Value Model: settings of its pretraining, its films, and what tells results of a stage apart."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from omegaconf import MISSING

from wvm_rl import sharding
from wvm_rl.data.windows import Film, WindowsConfig, varied
from wvm_rl.errors import InputError
from wvm_rl.model.compression import CompressionConfig
from wvm_rl.model.initial import PretrainedConfig
from wvm_rl.model.pool import CHUNK_WINDOWS
from wvm_rl.model.presets import ModelConfig
from wvm_rl.model.reading import Reading, mixed
from wvm_rl.model.training import FitConfig
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.sharding import MeshConfig

LAW = {"vae": 1, "pool": 1, "model": 1}  # a number is raised when equal settings give another result than before
SEEDS = 2**32 - 1000  # those of random keys are below 2**32, and a few stages count on from theirs


@dataclass
class StagesConfig:
    """What shapes a World Value Model, its data aside."""

    wvm: Any = MISSING  # preset
    seed: int = 0
    pretrained: PretrainedConfig = field(default_factory=PretrainedConfig)
    windows: WindowsConfig = field(default_factory=varied)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    vae: FitConfig = field(default_factory=lambda: FitConfig(steps=5000, batch=32, learning_rate=2e-3, save_every=200))
    pool: int = 72_000  # encoded windows
    loss: LossConfig = field(default_factory=LossConfig)
    model: FitConfig = field(
        default_factory=lambda: FitConfig(steps=5000, batch=64, learning_rate=1e-3, save_every=200)
    )
    video_steps: int = 0  # updates of the video stream on the video loss alone, before both streams train
    frozen: bool = False  # the video stream, and text learned with it, stay as those updates or what is given left them
    model_seed: int = 0  # of the model's training alone; `seed` is that of everything
    reading: Reading = field(default_factory=mixed)  # of the critic that is exported
    mesh: MeshConfig = field(default_factory=MeshConfig)  # devices that train the model

    def __post_init__(self) -> None:
        if self.pool < CHUNK_WINDOWS:
            raise InputError(f"pool={self.pool} must be at least {CHUNK_WINDOWS} windows")
        if getattr(self.wvm, "transformer", None) and self.wvm.transformer.lora_rank and not self.pretrained.path:
            raise InputError("wvm.transformer.lora_rank needs pretrained.path: the video stream it adapts stays frozen")
        if self.frozen and not (self.video_steps or self.pretrained.given):
            raise InputError("frozen=true needs video_steps, pretrained.critic or pretrained.path")
        if self.frozen and not self.video_steps and self.wvm.transformer.lora_rank:
            raise InputError("frozen=true leaves nothing to low-rank updates: give wvm.transformer.lora_rank=0")
        if min(self.seed, self.model_seed, self.video_steps) < 0:
            raise InputError(
                f"seed={self.seed}, model_seed={self.model_seed} and video_steps={self.video_steps} must be at least 0"
            )
        if self.seed + 1000 * self.model_seed >= SEEDS:
            raise InputError(f"seed={self.seed} + 1000 model_seed={self.model_seed} must be below {SEEDS}")
        if self.reading.prefixes and not self.loss.random_prefix:
            raise InputError("loss.random_prefix=0 teaches nothing of prefixes to be read by: give reading.prefixes=0")
        if self.compression.decoded > self.vae.batch:
            raise InputError(f"compression.decoded={self.compression.decoded} is more than vae.batch={self.vae.batch}")

    @property
    def seen(self) -> WindowsConfig:
        """Windows that the VAE sees: it does not follow how values are taught."""
        return WindowsConfig(jitter=self.windows.jitter, shift=self.windows.shift)

    @property
    def video(self) -> FitConfig:
        """Of the video stream alone."""
        steps = max(1, self.video_steps)
        return replace(self.model, steps=steps, warmup=min(self.model.warmup, steps - 1))


@dataclass
class Corpus:
    """Expert films for training and for the check, and the instructions they index."""

    training: list[Film]
    held_out: list[Film]
    instructions: list[str]
    camera: str
    fingerprint: str  # of all datasets


def checked(config: StagesConfig, instructions: Sequence[str]) -> tuple[np.ndarray, dict[str, str]]:
    """What the model reads of instructions, [I,...], and what tells its start apart.

    Raises:
        InputError: a mesh, text or start that does not fit the model: nothing could be trained.
    """
    sharding.check(config.mesh.make(), WorldValueModel(config.wvm).graph.shapes, config.model.batch)
    if config.frozen and not config.pretrained.sees_alike(config.wvm):
        raise InputError(
            f"frozen=true keeps the video stream of {config.pretrained.critic}, which learned with "
            f"wvm.first_frame={str(not config.wvm.first_frame).lower()}: give that, or let it train"
        )
    text = np.stack([config.wvm.text.tokenize(instruction) for instruction in instructions])
    return text, config.pretrained.fingerprint(config.wvm)


def shaping(
    config: StagesConfig, films: Corpus, text: np.ndarray, pretrained: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Of the stages vae, pool, video and wvm: all that shapes the result, and nothing else."""
    preset: ModelConfig = config.wvm
    vae = {
        "law": LAW["vae"],
        "films": films.fingerprint,
        "size": preset.size,
        "vae": asdict(preset.vae),
        "windows": asdict(config.seen),
        "seed": config.seed,
        "pretrained": pretrained.get("vae"),
    }
    if not config.pretrained.given:
        vae |= {"compression": asdict(config.compression), "fit": _shaping(config.vae)}
    pool = {
        "law": LAW["pool"],
        "vae": vae,
        "count": config.pool,
        "windows": asdict(config.windows),
        "first_frame": preset.first_frame,
    }
    either: dict[str, Any] = {
        "law": LAW["model"],
        "pool": pool,
        "preset": preset.shaping(),
        "pretrained": pretrained,
        "loss": asdict(config.loss),
        "instructions": films.instructions,
        "text": hashlib.sha256(text.tobytes()).hexdigest(),
        "seed": config.model_seed,
    }
    video = either | {"fit": _shaping(config.video), "loss": {"shift": config.loss.shift}}
    wvm = either | {"fit": _shaping(config.model), "video_steps": config.video_steps, "frozen": config.frozen}
    return {"vae": vae, "pool": pool, "video": video, "wvm": wvm}


def _shaping(config: FitConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name != "save_every"}
