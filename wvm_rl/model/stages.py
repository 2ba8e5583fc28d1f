"""Stages of pretraining: VAE -> pool of encoded windows -> both streams -> critic.

Each is resumable and leaves its result in a folder named by a hash of what shapes it (of code by `LAW`), so a change of
a later stage reuses the earlier ones.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec
from omegaconf import MISSING

from wvm_rl import sharding
from wvm_rl.data.windows import Film, Windows, WindowsConfig, varied
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, exclusive, once
from wvm_rl.fingerprint import fingerprint
from wvm_rl.model import lora, weights
from wvm_rl.model.codec import Codec, LatentStatistics
from wvm_rl.model.compression import Compression, CompressionConfig, kept
from wvm_rl.model.critic import FORMAT, Critic, CriticConfig
from wvm_rl.model.fit import fit
from wvm_rl.model.initial import VALUE, VIDEO, PretrainedConfig
from wvm_rl.model.pool import CHUNK_WINDOWS, Pool, fill, finished, shuffled_rows
from wvm_rl.model.presets import PRESETS, WvmConfig
from wvm_rl.model.reading import Reading, mixed
from wvm_rl.model.training import FitConfig, Training
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.provenance import provenance
from wvm_rl.sharding import MeshConfig

LAW = {"vae": 1, "pool": 1, "model": 1}  # a number is raised when equal settings give another result than before


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
        if self.reading.prefixes == 1:
            raise InputError("reading.prefixes=1 cannot be spread over [0, 1]: give 0, or at least 2")
        if self.reading.prefixes and not self.loss.random_prefix:
            raise InputError("loss.random_prefix=0 teaches nothing of prefixes to be read by: give reading.prefixes=0")
        if self.compression.decoded > self.vae.batch:
            raise InputError(f"compression.decoded={self.compression.decoded} is more than vae.batch={self.vae.batch}")


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


class Stages:
    """The stages of one pretraining; the folder of each is named by a hash of what shapes its result."""

    def __init__(self, config: StagesConfig, films: Corpus, root: Path):
        self.config, self.films, self.root = config, films, root
        self.codec, self.model = Codec(config.wvm), WorldValueModel(config.wvm)
        self.mesh = config.mesh.make()
        # What the VAE sees does not follow how values are taught.
        self._seen = WindowsConfig(jitter=config.windows.jitter, shift=config.windows.shift)
        preset: WvmConfig = config.wvm
        self.text, pretrained = checked(config, films.instructions)
        self.vae_meta = {
            "law": LAW["vae"],
            "films": films.fingerprint,
            "size": preset.size,
            "vae": asdict(preset.vae),
            "windows": asdict(self._seen),
            "compression": asdict(config.compression),
            "fit": _shaping(config.vae),
            "seed": config.seed,
            "pretrained": pretrained.get("vae"),
        }
        self.pool_meta = {
            "law": LAW["pool"],
            "vae": self.vae_meta,
            "count": config.pool,
            "windows": asdict(config.windows),
            "first_frame": preset.first_frame,
        }
        either: dict[str, Any] = {
            "law": LAW["model"],
            "pool": self.pool_meta,
            "preset": preset.shaping(),
            "pretrained": pretrained,
            "loss": asdict(config.loss),
            "instructions": films.instructions,
            "text": hashlib.sha256(self.text.tobytes()).hexdigest(),
            "seed": config.model_seed,
        }
        self.video_meta = either | {"fit": _shaping(self._video_fit)}
        self.model_meta = either | {
            "fit": _shaping(config.model),
            "video_steps": config.video_steps,
            "frozen": config.frozen,
        }

    @property
    def _video_fit(self) -> FitConfig:
        fit = self.config.model
        steps = max(1, self.config.video_steps)
        return replace(fit, steps=steps, warmup=min(fit.warmup, steps - 1))

    def folder(self, stage: str, meta: dict[str, Any]) -> Path:
        """Where a stage works and leaves its result."""
        return self.root / f"{stage}-{fingerprint(meta)[:10]}"

    def vae(self) -> tuple[dict[str, np.ndarray], LatentStatistics]:
        """Trains the VAE and measures its latents, or takes the published one."""
        config, folder = self.config, self.folder("vae", self.vae_meta)
        if config.pretrained.given:
            return config.pretrained.vae()
        windows = Windows(self.films.training, self._seen, config.seed + 1)
        compression = Compression(config.wvm, len(self.films.instructions), config.compression)
        training = Training(compression.loss, config.vae, config.seed)
        start = partial(compression.graph.init, config.seed)

        def make() -> dict[str, np.ndarray]:
            batches = compression.batches(windows, config.vae.batch)
            unseen = Windows(self.films.held_out, self._seen, config.seed + 3)
            check = compression.check(unseen, 2 * CHUNK_WINDOWS, 32)
            return kept(fit("vae", training, start, batches, folder, self.vae_meta, check))

        def measure() -> None:
            unit = LatentStatistics([0.0] * config.wvm.vae.z_dim, [1.0] * config.wvm.vae.z_dim)
            frames = windows.batch(0, 8 * CHUNK_WINDOWS)[0]
            encode = self._encoder(params, unit)
            parts = [frames[at : at + CHUNK_WINDOWS] for at in range(0, len(frames), CHUNK_WINDOWS)]
            measured = LatentStatistics.measured(np.concatenate([encode(part) for part in parts])[:, 1:])
            with atomic(path) as part:
                part.write_text(json.dumps(asdict(measured)))

        params, path = self._kept(folder, make, self.codec.graph.shapes), folder / "latents.json"
        return params, LatentStatistics(**json.loads(once(path, measure).read_text()))

    def pools(self, params: dict[str, np.ndarray], statistics: LatentStatistics) -> tuple[Pool, Pool]:
        """Encodes the training windows, and a few of held-out episodes."""
        config, folder, preset = self.config, self.folder("pool", self.pool_meta), self.config.wvm
        encode = self._encoder(params, statistics)
        windows = Windows(self.films.training, config.windows, config.seed + 2)
        check = Windows(self.films.held_out, config.windows, config.seed + 3)
        fills = partial(fill, encode=encode, latent=preset.latent, meta=self.pool_meta, first_frame=preset.first_frame)
        with _alone(folder):
            pool = fills(folder / "training", windows, count=config.pool)
            return pool, fills(folder / "held_out", check, count=4 * CHUNK_WINDOWS)

    @property
    def encoded(self) -> bool:
        """Whether the pools are complete, and so the VAE."""
        return all(finished(self.folder("pool", self.pool_meta) / part) for part in ("training", "held_out"))

    def wvm(self, pool: Pool, held_out: Pool) -> dict[str, np.ndarray]:
        """Trains both streams on the pool."""
        config, folder, model = self.config, self.folder("wvm", self.model_meta), self.model
        first = config.video_steps  # updates that came before: these go on with the windows and noise after theirs
        seed = config.seed + 1 + 1000 * config.model_seed + (500 if first else 0)
        video = self.video(pool) if first else {}
        batches = self._batches(pool, first)

        def loss(params: Any, batch: dict[str, Any], key: Any) -> Any:
            return model.loss(params, batch, key, config.loss)

        predict = jax.jit(model.predict, out_shardings=PartitionSpec())
        devices = self.mesh.size
        group = max(
            devices, min(config.model.batch, CHUNK_WINDOWS) // devices * devices
        )  # no more memory than an update
        probe = held_out.batch(np.arange(len(held_out)))
        seen = ("current", "first") if config.wvm.first_frame else ("current",)

        def check(params: Any) -> dict[str, float]:
            """Root mean square error on held-out windows, given the true prefix."""
            tokens, error = self.text[probe["instruction"]], []
            for at in range(0, len(held_out) - group + 1, group):
                part = slice(at, at + group)
                given = {name: probe[name][part].astype(np.float32) for name in seen}
                values = predict(params, prefix=probe["value"][part, 0], tokens=tokens[part], **given)
                error.append(np.square(np.asarray(values)[:, 1:] - probe["value"][part, 1:]).mean())
            return {"held_out_rmse": float(np.sqrt(np.mean(error)))}

        training = Training(loss, config.model, seed, self.mesh)

        def trains(name: str) -> bool:
            before = bool(first or config.pretrained.critic)  # text learned with the video stream, which published has
            learned = not name.startswith(VALUE) if before else name.startswith(VIDEO)
            still = config.frozen and learned
            return not still and lora.trains(name, config.wvm.transformer.lora_rank)

        def start() -> Any:
            params = config.pretrained.params(model, seed, training.target)
            params |= {name: jax.device_put(value, params[name].sharding) for name, value in video.items()}
            return self._still(params, trains)

        def make() -> dict[str, np.ndarray]:
            made = fit("wvm", training, start, batches, folder, self.model_meta, check, trains)
            return {name: value.astype(np.float32) for name, value in made.items()}

        return self._kept(folder, make, model.graph.shapes)

    def video(self, pool: Pool) -> dict[str, np.ndarray]:
        """Trains the video stream, and the text encoder, on the video loss alone; returns their parameters."""
        config, folder, model = self.config, self.folder("video", self.video_meta), self.model

        def loss(params: Any, batch: dict[str, Any], key: Any) -> Any:
            return model.loss(params, batch, key, config.loss, value_too=False)

        seed = config.seed + 1 + 1000 * config.model_seed
        training = Training(loss, self._video_fit, seed, self.mesh)

        def trains(name: str) -> bool:
            return not name.startswith(VALUE) and lora.trains(name, config.wvm.transformer.lora_rank)

        def start() -> Any:
            return self._still(config.pretrained.params(model, seed, training.target), trains)

        def make() -> dict[str, np.ndarray]:
            made = fit("video", training, start, self._batches(pool), folder, self.video_meta, trains=trains)
            return {name: value.astype(np.float32) for name, value in made.items()}

        made = self._kept(folder, make, model.graph.shapes)
        return {name: value for name, value in made.items() if not name.startswith(VALUE)}

    def _still(self, params: Any, trains: Callable[[str], bool]) -> Any:
        """Parameters of which those that do not train are kept as their matmuls read them."""
        for name in params:  # one at a time, each f32 array let go of
            if not trains(name):
                params[name] = params[name].astype(self.model.stored(name))
        return params

    def _batches(self, pool: Pool, first: int = 0) -> Any:
        size, seed = self.config.model.batch, self.config.seed + 1000 * self.config.model_seed
        return lambda step: {**pool.batch(shuffled_rows(len(pool), seed, first + step, size)), "text": self.text}

    def scores(self) -> dict[str, float]:
        """Last row of metrics of each finished training."""
        scores = {}
        for stage, meta in self._trainings():
            row = json.loads((self.folder(stage, meta) / "metrics.jsonl").read_text().splitlines()[-1])
            scores |= {f"{stage} {name}": value for name, value in row.items() if name != "stage"}
        return scores

    def commits(self) -> dict[str, str]:
        """Commits of the code that each training ran by, in the order of their first use."""
        return {stage: ", ".join(_commits(self.folder(stage, meta))) for stage, meta in self._trainings()}

    def _trainings(self) -> list[tuple[str, dict[str, Any]]]:
        """Stages that train, and what names their folders."""
        vae = [] if self.config.pretrained.given else [("vae", self.vae_meta)]
        video = [("video", self.video_meta)] if self.config.video_steps else []
        return [*vae, *video, ("wvm", self.model_meta)]

    def _encoder(self, params: dict[str, np.ndarray], statistics: LatentStatistics) -> Any:
        encode = jax.jit(partial(self.codec.encode_many, statistics=statistics))
        return lambda frames: np.asarray(encode(params, frames))

    def _kept(self, folder: Path, make: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """A finished stage's parameters, made once."""
        path = folder / "params.safetensors"
        if not sharding.agreed(path.exists()):
            with _alone(folder):
                if not sharding.agreed(path.exists()):  # nor has who held it made it by now
                    if sharding.is_first():
                        _begun(folder)
                    made = make()
                    if sharding.is_first():
                        with atomic(path) as part:
                            weights.save(part, made)
                    sharding.meet(f"{path} written")
        return weights.load(path, shapes)


def _commits(folder: Path) -> list[str]:
    """Commits by which a training was begun and gone on with."""
    path = folder / "commits.json"
    return json.loads(path.read_text()) if path.exists() else []


def _begun(folder: Path) -> None:
    """Notes by what code a training goes on."""
    commit = provenance()["commit"]
    if commit not in (known := _commits(folder)):
        with atomic(folder / "commits.json") as part:
            part.write_text(json.dumps([*known, commit]))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a stage's folder against other trainings that share the stage.

    Raises:
        InputError: on all of several hosts, whose first cannot hold it: the others could not wait with it.
    """
    with ExitStack() as held:
        problem = None
        try:
            if sharding.is_first():
                held.enter_context(exclusive(folder, wait=jax.process_count() == 1))
        except InputError as error:
            problem = error
        if not sharding.agreed(problem is None):
            raise problem or InputError(f"the first host cannot hold {folder}, and says why")
        yield


def _shaping(config: FitConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name != "save_every"}


def train(stages: Stages) -> tuple[Critic, dict[str, float]]:
    """Runs or resumes every stage; returns the critic and the last metrics of each training.

    Raises:
        InputError: several hosts, and the windows are not encoded yet; or what a stage refuses.
    """
    config, films = stages.config, stages.films
    if jax.process_count() > 1 and not stages.encoded:
        raise InputError("the windows are not encoded yet: run the same command on one host first, with until=pool")
    vae, statistics = stages.vae()
    pool, held_out = stages.pools(vae, statistics)
    wvm = stages.wvm(pool, held_out)
    params = {f"vae.{name}": value for name, value in vae.items()}
    params |= {f"wvm.{name}": value for name, value in lora.merged(wvm).items()}
    preset = next(name for name, kind in PRESETS.items() if kind is type(config.wvm))
    plain = replace(config.wvm, transformer=replace(config.wvm.transformer, lora_rank=0))
    told = films.instructions, plain, statistics, config.reading, plain.text.origin
    return Critic(CriticConfig(FORMAT, preset, films.camera, *told), params), stages.scores()
