"""The released critic: frames of episodes in, a value in [0,1] a frame out."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from wvm_rl.data.windows import NO_TEXT
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.model import weights
from wvm_rl.model.codec import Codec, LatentStatistics
from wvm_rl.model.config import read
from wvm_rl.model.critic_folder import check_vacant
from wvm_rl.model.inference import Inference
from wvm_rl.model.presets import PRESETS, ModelConfig
from wvm_rl.model.reading import Reading
from wvm_rl.model.text import Umt5TextConfig, default_cache
from wvm_rl.model.wvm import WorldValueModel

FORMAT = 2  # of config.json


@dataclass
class CriticConfig:
    """What config.json holds beside the weights."""

    format: int
    preset: str  # whose sizes `model` has
    camera: str  # camera of the frames it was trained on
    instructions: list[str]  # that it was trained on
    model: ModelConfig
    latents: LatentStatistics
    reading: Reading = field(default_factory=Reading)
    text_origin: str = ""  # what computed the embeddings of text that it learned with, where they are not its own


class Critic:
    """A World Value Model with its VAE, ready to value episodes.

    Attributes:
        card: its model card, Markdown.
    """

    def __init__(self, config: CriticConfig, params: dict[str, Any], card: str = ""):
        self.config, self.card = config, card
        self.codec, self.model = Codec(config.model), WorldValueModel(config.model)
        self.params = {name: jnp.asarray(value, self.stored(name)) for name, value in params.items()}

    def stored(self, name: str) -> Any:
        """Type in which a parameter is kept, which costs no precision: see `WorldValueModel.stored`."""
        part, _, rest = name.partition(".")
        return self.model.stored(rest) if part == "wvm" else np.float32

    def part(self, name: str) -> weights.Params:
        """Parameters of `vae` or `wvm`."""
        return {key.removeprefix(f"{name}."): value for key, value in self.params.items() if key.startswith(f"{name}.")}

    @cached_property
    def programs(self) -> Inference:
        """Its compiled functions."""
        return self.inference()

    def inference(self, draws: int = 0) -> Inference:
        """Its compiled functions, reading so many draws of every chunk's distribution, or its mode."""
        vae, wvm = self.part("vae"), self.part("wvm")
        given = (self.codec, self.model, self.config.latents, vae, wvm)
        return Inference(*given, draws, self.config.reading, self.reads)

    def halved(self, mantissa: int = weights.MANTISSA) -> "Critic":
        """The critic with its f32 weights at half precision.

        Args:
            mantissa: bits that are kept of those of the value model, see `weights.halved`. The VAE keeps all ten: it
                stays the one whose latents the model learned, and that other critics share.

        Raises:
            InputError: a weight that half precision cannot hold, by name.
        """
        model = {name: value for name, value in self.params.items() if name.startswith("wvm.")}
        return Critic(self.config, weights.halved(self.params) | weights.halved(model, mantissa), self.card)

    @property
    def fps(self) -> float:
        """Frames a second it expects."""
        return self.config.model.fps

    @property
    def size(self) -> int:
        """Pixels a side of the frames it reads; multiples are shrunk."""
        return self.config.model.size

    @property
    def camera(self) -> str:
        """Camera of the frames it was trained on."""
        return self.config.camera

    @property
    def instructions(self) -> list[str]:
        """Instructions it was trained on."""
        return self.config.instructions

    @property
    def reads(self) -> bool:
        """Whether it reads instructions: not if it learned from pictures alone."""
        return list(self.instructions) != [NO_TEXT]

    @property
    def origin(self) -> str:
        """Where its text tokens come from, if not from its own weights: values depend on it, too."""
        return self.config.model.text.origin

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and configuration, as far as they shape its values."""
        shaping = asdict(self.config) | {"model": self.config.model.shaping()}
        if self.reads:
            del shaping["instructions"]  # those that read none are told none
        if self.config.reading == Reading():
            del shaping["reading"]  # the only one there was, when critics of before were named
        del shaping["text_origin"]  # values depend on that of the file that is read, see `origin`
        digest = hashlib.sha256(_json(shaping).encode())
        for name in sorted(self.params):
            digest.update(name.encode() + np.asarray(self.params[name]).tobytes())
        return digest.hexdigest()

    # Files

    def save(self, folder: Path | str, beside: Iterable[Path] = ()) -> None:
        """Writes model.safetensors, config.json and, if there is one, the model card README.md, all or nothing.

        Args:
            beside: files that the card shows, copied.

        Raises:
            InputError: the folder holds something else than a critic, or other files beside one: they would be lost.
        """
        beside = list(beside)
        check_vacant(Path(folder), [path.name for path in beside])
        with atomic(Path(folder)) as partial_folder:
            partial_folder.mkdir()
            weights.save(partial_folder / "model.safetensors", self.params)
            config = asdict(self.config)
            config["model"]["text"].pop("file", None)  # each user's own, see `load`
            if not self.config.model.first_frame:
                del config["model"]["first_frame"]  # as critics of before, which had no choice
            if self.config.reading == Reading():
                del config["reading"]  # likewise
            if not self.config.text_origin:
                del config["text_origin"]
            (partial_folder / "config.json").write_text(_json(config))
            if self.card:
                (partial_folder / "README.md").write_text(self.card)
            for path in beside:
                shutil.copy(path, partial_folder / path.name)

    @classmethod
    def load(cls, folder: Path | str, told: bool = True) -> "Critic":
        """Reads a critic's folder.

        Args:
            told: whether it is to read instructions by embeddings in the user's cache, which must be of its encoder.

        Raises:
            InputError: a file is missing or damaged, or weights and configuration do not fit each other, or this user's
                embeddings of text are another encoder's.
        """
        path = Path(folder) / "config.json"
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as JSON; give the folder of a critic") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path}: not the configuration of a critic of format {FORMAT}")
        if str(content.get("preset")) not in PRESETS:
            raise InputError(f"{path}: preset {content.get('preset')} is unknown: choose one of {', '.join(PRESETS)}")
        kind, model = PRESETS[content["preset"]], content.get("model")
        content.setdefault("reading", asdict(Reading()))  # of critics of before
        content.setdefault("text_origin", "")
        if isinstance(model, dict):
            model.setdefault("first_frame", False)  # likewise
        if isinstance(model, dict) and isinstance(model.get("text"), dict) and isinstance(kind().text, Umt5TextConfig):
            model["text"]["file"] = default_cache()
        config = read(CriticConfig, content, str(path), model=kind)
        channels = config.model.vae.z_dim
        if len(config.latents.mean) != channels or len(config.latents.std) != channels:
            raise InputError(f"{path}: latents needs {channels} means and standard deviations")
        if not np.isfinite(config.latents.mean + config.latents.std).all() or min(config.latents.std) <= 0:
            raise InputError(f"{path}: latents needs finite means and standard deviations above 0")
        learned, text = config.text_origin, config.model.text
        if told and learned and Path(text.file).expanduser().exists() and text.origin != learned:
            raise InputError(
                f"{path}: it learned with embeddings of {learned}, {text.file} has those of {text.origin}: move that "
                "file away and run `python -m wvm_rl.embed` with the critic's encoder"
            )
        card = Path(folder) / "README.md"
        text = card.read_text() if card.exists() else ""
        critic = cls(config, {}, text)
        shapes = _named("vae", critic.codec.graph.shapes) | _named("wvm", critic.model.graph.shapes)
        critic.params = {
            name: jnp.asarray(value)
            for name, value in weights.load(Path(folder) / "model.safetensors", shapes, critic.stored).items()
        }
        return critic

    # Values

    def values(
        self, clips: Iterable[tuple[np.ndarray, str]], batch: int = 16
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Values of episodes, in order.

        Args:
            clips: frames [F,H,W,3] u8 at `fps` from `camera`, and the instruction, an episode each; a critic that
                learned without instructions is told none.
            batch: episodes that advance side by side: the speed, not the result (up to rounding), depends on it.

        Yields:
            Value [F] f32 and the standard deviation [F] f32 among a frame's overlapping predictions, before smoothing.

        Raises:
            InputError: an episode shorter than a clip, or frames of another size or type.
        """
        return self.programs.values(clips, batch)


def _named(prefix: str, shapes: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _json(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=1, sort_keys=True) + "\n"
