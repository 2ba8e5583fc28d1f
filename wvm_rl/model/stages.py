"""Stages of pretraining: VAE -> pool of encoded windows -> both streams -> critic.

Each is resumable and leaves its result in a folder named by a hash of what shapes it (`Stage`), so a change of
a later stage reuses the earlier ones.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from wvm_rl.data.windows import Windows
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, once
from wvm_rl.model import lora
from wvm_rl.model.codec import Codec, LatentStatistics
from wvm_rl.model.compression import Compression, kept
from wvm_rl.model.critic import FORMAT, Critic, CriticConfig
from wvm_rl.model.fit import fit
from wvm_rl.model.initial import VALUE, VIDEO
from wvm_rl.model.pool import CHUNK_WINDOWS, Pool, fill, finished, shuffled_rows
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.settings import Corpus, StagesConfig, checked, shaping
from wvm_rl.model.stage import Stage
from wvm_rl.model.training import Training
from wvm_rl.model.wvm import WorldValueModel


class Stages:
    """The stages of one pretraining; the folder of each is named by a hash of what shapes its result."""

    def __init__(self, config: StagesConfig, films: Corpus, root: Path):
        self.config, self.films = config, films
        self.codec, self.model = Codec(config.wvm), WorldValueModel(config.wvm)
        self.mesh = config.mesh.make()
        self.text, pretrained = checked(config, films.instructions)
        metas = shaping(config, films, self.text, pretrained)
        self.stages = {name: Stage(name, meta, root) for name, meta in metas.items()}

    def vae(self) -> tuple[dict[str, np.ndarray], LatentStatistics]:
        """Trains the VAE and measures its latents, or takes the published one."""
        config, stage = self.config, self.stages["vae"]
        if config.pretrained.given:
            return config.pretrained.vae()
        windows = Windows(self.films.training, config.seen, config.seed + 1)
        compression = Compression(config.wvm, len(self.films.instructions), config.compression)
        training = Training(compression.loss, config.vae, config.seed)
        start = partial(compression.graph.init, config.seed)

        def make() -> dict[str, np.ndarray]:
            batches = compression.batches(windows, config.vae.batch)
            unseen = Windows(self.films.held_out, config.seen, config.seed + 3)
            check = compression.check(unseen, 2 * CHUNK_WINDOWS, 32)
            return kept(fit("vae", training, start, batches, stage.folder, stage.meta, check))

        def measure() -> None:
            unit = LatentStatistics([0.0] * config.wvm.vae.z_dim, [1.0] * config.wvm.vae.z_dim)
            frames = windows.batch(0, 8 * CHUNK_WINDOWS)[0]
            encode = self._encoder(params, unit)
            parts = [frames[at : at + CHUNK_WINDOWS] for at in range(0, len(frames), CHUNK_WINDOWS)]
            measured = LatentStatistics.measured(np.concatenate([encode(part) for part in parts])[:, 1:])
            with atomic(path) as part:
                part.write_text(json.dumps(asdict(measured)))

        params, path = stage.kept(make, self.codec.graph.shapes), stage.folder / "latents.json"
        return params, LatentStatistics(**json.loads(once(path, measure).read_text()))

    def pools(self, params: dict[str, np.ndarray], statistics: LatentStatistics) -> tuple[Pool, Pool]:
        """Encodes the training windows, and a few of held-out episodes."""
        config, stage, preset = self.config, self.stages["pool"], self.config.wvm
        encode = self._encoder(params, statistics)
        windows = Windows(self.films.training, config.windows, config.seed + 2)
        check = Windows(self.films.held_out, config.windows, config.seed + 3)
        fills = partial(fill, encode=encode, latent=preset.latent, meta=stage.meta, first_frame=preset.first_frame)
        with stage.alone():
            pool = fills(stage.folder / "training", windows, count=config.pool)
            return pool, fills(stage.folder / "held_out", check, count=4 * CHUNK_WINDOWS)

    @property
    def encoded(self) -> bool:
        """Whether the pools are complete, and so the VAE."""
        return all(finished(self.stages["pool"].folder / part) for part in ("training", "held_out"))

    @property
    def trained(self) -> bool:
        """Whether the model is trained."""
        return self.stages["wvm"].ended

    def wvm(self, pools: Callable[[], tuple[Pool, Pool]]) -> dict[str, np.ndarray]:
        """Trains both streams on the training windows, which are asked for only if they have not been trained yet."""
        config, stage, model = self.config, self.stages["wvm"], self.model
        first = config.video_steps  # updates that came before: these go on with the windows and noise after theirs
        seed = config.seed + 1 + 1000 * config.model_seed + (500 if first else 0)

        def loss(params: Any, batch: dict[str, Any], key: Any) -> Any:
            return model.loss(params, batch, key, config.loss)

        training = Training(loss, config.model, seed, self.mesh)

        def trains(name: str) -> bool:
            before = bool(first or config.pretrained.critic)  # text learned with the video stream, which published has
            learned = not name.startswith(VALUE) if before else name.startswith(VIDEO)
            still = config.frozen and learned
            return not still and lora.trains(name, config.wvm.transformer.lora_rank)

        def make() -> dict[str, np.ndarray]:
            pool, held_out = pools()
            video = self.video(pool) if first else {}

            def start() -> Any:
                params = config.pretrained.params(model, seed, training.target)
                params |= {name: jax.device_put(value, params[name].sharding) for name, value in video.items()}
                return self._still(params, trains)

            batches, check = self._batches(pool, first), self._check(held_out)
            made = fit("wvm", training, start, batches, stage.folder, stage.meta, check, trains)
            return {name: value.astype(np.float32) for name, value in made.items()}

        return stage.kept(make, model.graph.shapes)

    def _check(self, held_out: Pool) -> Callable[[Any], dict[str, float]]:
        """Root mean square error on held-out windows, given the true prefix."""
        config, devices = self.config, self.mesh.size
        predict = jax.jit(self.model.predict, out_shardings=PartitionSpec())
        group = max(
            devices, min(config.model.batch, CHUNK_WINDOWS) // devices * devices
        )  # no more memory than an update
        probe = held_out.batch(np.arange(len(held_out)))
        seen = ("current", "first") if config.wvm.first_frame else ("current",)

        def measured(params: Any) -> dict[str, float]:
            error = []
            for at in range(0, len(held_out) - group + 1, group):
                part = slice(at, at + group)
                given = {name: probe[name][part].astype(np.float32) for name in seen}
                tokens = self.text[probe["instruction"][part]]
                values = predict(params, prefix=probe["value"][part, 0], tokens=tokens, **given)
                error.append(np.square(np.asarray(values)[:, 1:] - probe["value"][part, 1:]).mean())
            return {"held_out_rmse": float(np.sqrt(np.mean(error)))}

        return measured

    def video(self, pool: Pool) -> dict[str, np.ndarray]:
        """Trains the video stream, and the text encoder, on the video loss alone; returns their parameters."""
        config, stage, model = self.config, self.stages["video"], self.model

        def loss(params: Any, batch: dict[str, Any], key: Any) -> Any:
            return model.loss(params, batch, key, config.loss, value_too=False)

        seed = config.seed + 1 + 1000 * config.model_seed
        training = Training(loss, config.video, seed, self.mesh)

        def trains(name: str) -> bool:
            return not name.startswith(VALUE) and lora.trains(name, config.wvm.transformer.lora_rank)

        def start() -> Any:
            return self._still(config.pretrained.params(model, seed, training.target), trains)

        def make() -> dict[str, np.ndarray]:
            made = fit("video", training, start, self._batches(pool), stage.folder, stage.meta, trains=trains)
            return {name: value.astype(np.float32) for name, value in made.items()}

        made = stage.kept(make, model.graph.shapes)
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
        rows = {stage.name: stage.scores() for stage in self._trainings()}
        return {f"{stage} {name}": value for stage, row in rows.items() for name, value in row.items()}

    def commits(self) -> dict[str, str]:
        """Commits of the code that each training ran by, in the order of their first use."""
        return {stage.name: ", ".join(stage.commits()) for stage in self._trainings()}

    def _trainings(self) -> list[Stage]:
        """Stages that train."""
        trained = {"vae": not self.config.pretrained.given, "video": bool(self.config.video_steps), "wvm": True}
        return [self.stages[name] for name, does in trained.items() if does]

    def _encoder(self, params: dict[str, np.ndarray], statistics: LatentStatistics) -> Any:
        encode, placed = jax.jit(partial(self.codec.encode_many, statistics=statistics)), jax.device_put(params)
        return lambda frames: np.asarray(encode(placed, frames))


def train(stages: Stages) -> tuple[Critic, dict[str, float]]:
    """Runs or resumes every stage; returns the critic and the last metrics of each training.

    Raises:
        InputError: several hosts, and the windows are not encoded yet; or what a stage refuses.
    """
    config, films = stages.config, stages.films
    if jax.process_count() > 1 and not (stages.encoded or stages.trained):
        raise InputError("the windows are not encoded yet: run the same command on one host first, with until=pool")
    vae, statistics = stages.vae()
    wvm = stages.wvm(lambda: stages.pools(vae, statistics))
    params = {f"vae.{name}": value for name, value in vae.items()}
    params |= {f"wvm.{name}": value for name, value in lora.merged(wvm).items()}
    preset = next(name for name, kind in PRESETS.items() if kind is type(config.wvm))
    plain = replace(config.wvm, transformer=replace(config.wvm.transformer, lora_rank=0))
    told = films.instructions, plain, statistics, config.reading, plain.text.origin
    return Critic(CriticConfig(FORMAT, preset, films.camera, *told), params), stages.scores()
