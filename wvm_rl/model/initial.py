"""First parameters of a World Value Model: at random, the video stream's from published weights, or a critic's."""

from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wvm_rl.errors import InputError
from wvm_rl.model import weights
from wvm_rl.model.codec import LatentStatistics
from wvm_rl.model.critic import Critic
from wvm_rl.model.critic_folder import folder_of
from wvm_rl.model.layers import Array
from wvm_rl.model.presets import ModelConfig
from wvm_rl.model.wan import load
from wvm_rl.model.weights import Params, Target
from wvm_rl.model.wvm import WorldValueModel

VIDEO, VALUE = "video.", "value."
HEAD = "value.head."


@dataclass
class PretrainedConfig:
    """Weights to start from; a value head other than the critic's starts at random."""

    path: str | None = None  # folder of Wan2.2-TI2V-5B with transformer/ and vae/, as diffusers has it; null: none
    value: str = "random"  # the value stream starts at random | interpolated from the video stream's weights
    critic: str | None = None  # a shipped critic or the folder of one: its VAE stays, its streams train on

    def __post_init__(self) -> None:
        if self.value not in ("random", "interpolated"):
            raise InputError(f"pretrained.value={self.value}: choose random or interpolated")
        if self.value == "interpolated" and self.path is None:
            raise InputError("pretrained.value=interpolated needs pretrained.path: the video stream's weights")
        if self.critic is not None and self.path is not None:
            raise InputError("pretrained.critic and pretrained.path exclude each other: give one of them")

    @property
    def given(self) -> bool:
        """Whether VAE and video stream have learned already."""
        return self.critic is not None or self.path is not None

    def described(self, config: ModelConfig) -> str:
        """The start of a model in words, for its card."""
        if self.critic is not None:
            head = "" if self._same_head(config) else " but for the value head, which was drawn at random"
            seen = "" if self.sees_alike(config) else f", which saw {'no' if config.first_frame else 'the'} first frame"
            return f"those of critic {self._critic.fingerprint}{seen}{head}; its VAE was used as it is"
        if self.path is None:
            return "drawn at random"
        rank = config.transformer.lora_rank
        updates = f", which only updates of rank {rank} changed" if rank else ""
        value = "drawn at random" if self.value == "random" else "interpolated from it"
        return f"video stream of {Path(self.path).expanduser().resolve().name}{updates}; value stream {value}"

    def fingerprint(self, config: ModelConfig) -> dict[str, str]:
        """What tells two starts apart.

        Raises:
            InputError: the sizes of what is given are not the preset's.
        """
        if self.critic is not None:
            own, wanted = self._critic.config.model.shaping(), config.shaping()
            modules = tuple(name for name in wanted if isinstance(wanted[name], dict))
            for name in modules:
                _compare(self.critic, name, own[name], wanted[name], ("head",) if name == "value" else ())
            _compare(self.critic, "model", own, wanted, (*modules, "first_frame"))  # which adds no parameters
            learned = self._critic.config.text_origin
            if learned and learned != config.text.origin:
                raise InputError(
                    f"pretrained.critic={self.critic} learned with embeddings of {learned}, {config.text.file} has "
                    f"those of {config.text.origin}: give another wvm.text.file"
                )
            return {"vae": self._critic.fingerprint}  # the one fingerprint of all its weights
        if self.path is None:
            return {}
        transformer = load.transformer_config(load.folder_of(self.path, "transformer"), jnp.float32)
        wanted = asdict(config.transformer)
        _compare(self.path, "transformer", asdict(transformer), wanted, ignored=load.EXECUTION)
        vae, _ = load.vae_config(load.folder_of(self.path, "vae"))
        _compare(self.path, "vae", asdict(vae), asdict(config.vae))
        parts = {part: load.fingerprint(load.folder_of(self.path, part)) for part in ("transformer", "vae")}
        return parts | {"value": self.value}

    def sees_alike(self, config: ModelConfig) -> bool:
        """Whether the critic that is started from, if any, was shown an episode's first frame just as this one is."""
        return self.critic is None or self._critic.config.model.first_frame == config.first_frame

    def vae(self) -> tuple[dict[str, np.ndarray], LatentStatistics]:
        """The given VAE, f32, and the statistics of its latents.

        Raises:
            InputError: as `load_vae` or `Critic.load`.
        """
        if self.critic is not None:
            return _floats(self._critic.part("vae")), self._critic.config.latents
        assert self.path is not None
        vae = load.load_vae(self.path)
        return _floats(vae.params), LatentStatistics(vae.mean, vae.std)

    def params(self, model: WorldValueModel, seed: int, target: Target | None) -> Params:
        """First parameters, f32, each where `target` says.

        Raises:
            InputError: as `load_transformer` or `Critic.load`.
        """
        if self.critic is not None:
            shapes = model.graph.shapes
            streams = _floats(self._critic.part("wvm"))
            fresh = {name for name in shapes if name.startswith(HEAD) and not self._same_head(model.config)}
            kept = shapes.keys() - fresh
            given = {name: jax.device_put(streams[name], target and target(name, shapes[name])) for name in kept}
            return given | (model.graph.init(seed, target, fresh) if fresh else {})
        if self.path is None:
            return model.graph.init(seed, target)

        def place(name: str, shape: tuple[int, ...]) -> object:
            return target(VIDEO + name, shape) if target else None

        transformer = load.load_transformer(self.path, sharding=place)
        given = {VIDEO + name: value for name, value in transformer.params.items()}
        if self.value == "interpolated":
            shapes = model.graph.shapes
            for name in [name for name in shapes if VIDEO + name.removeprefix(VALUE) in given]:
                if name.startswith((f"{VALUE}stack.", f"{VALUE}conditioner.")):
                    layout = target(name, shapes[name]) if target else None
                    kernel = name.endswith(".kernel")
                    resize = jax.jit(partial(interpolated, shape=shapes[name], kernel=kernel), out_shardings=layout)
                    given[name] = resize(given[VIDEO + name.removeprefix(VALUE)])
        return given | model.graph.init(seed, target, model.graph.shapes.keys() - given.keys())

    def _same_head(self, config: ModelConfig) -> bool:
        return self._critic.config.model.value.head == config.value.head

    @cached_property
    def _critic(self) -> Critic:
        assert self.critic is not None
        return Critic.load(folder_of(self.critic), told=False)  # this training reads `wvm.text.file`


def _floats(params: weights.Params) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in params.items()}


def interpolated(array: Array, shape: tuple[int, ...], kernel: bool) -> Array:
    """Weights of a layer resized to a narrower one's `shape`, linearly along each side, ends kept.

    A kernel [...,inputs,outputs] is scaled so that outputs keep their size: its root mean square becomes the wider
    one's times sqrt(inputs of the wider / inputs of the narrower).
    """
    small = array
    for axis, (before, after) in enumerate(zip(array.shape, shape)):
        place = np.linspace(0, before - 1, after)
        low = np.minimum(place.astype(int), max(before - 2, 0))
        share = jnp.asarray(place - low, array.dtype).reshape(-1, *[1] * (array.ndim - axis - 1))
        above = jnp.take(small, np.minimum(low + 1, before - 1), axis)
        small = (1 - share) * jnp.take(small, low, axis) + share * above
    if not kernel:
        return small
    size = jnp.sqrt(jnp.square(array).mean() / jnp.square(small).mean())
    return small * size * (array.shape[-2] / shape[-2]) ** 0.5


def _compare(path: str, part: str, found: dict, wanted: dict, ignored: tuple[str, ...] = ()) -> None:
    for key in wanted:
        if key not in ignored and found[key] != wanted[key]:
            raise InputError(f"{path}: its {part} has {key}={found[key]}, the preset {wanted[key]}: choose its preset")
