"""Named sizes of the World Value Model; presets differ in numbers, and in where text tokens come from."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from wvm_rl.errors import InputError
from wvm_rl.model.text import ByteTextConfig, Umt5TextConfig
from wvm_rl.model.value_dit import ValueStreamConfig
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.model.wan.vae import VaeConfig

CHUNK = 4  # h: frames of a value chunk, and the VAE's temporal factor


@dataclass
class ModelConfig:
    """Sizes of a World Value Model and its VAE."""

    size: int = 256  # pixels, height and width (open in the paper)
    fps: float = 2.0  # frames a second (Table A.1; it may mean latents, of four frames each)
    first_frame: bool = False  # the episode's first frame is seen beside every window (not in the paper)
    vae: VaeConfig = field(default_factory=VaeConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    value: ValueStreamConfig = field(default_factory=ValueStreamConfig)
    text: Any = None  # a `wvm_rl.model.text.TextConfig`, of a type that each preset names

    def __post_init__(self) -> None:
        if self.vae.temporal_factor != CHUNK:
            raise InputError(f"the VAE's temporal factor is {self.vae.temporal_factor}, a chunk needs {CHUNK}")
        cell = self.vae.spatial_factor * math.lcm(*self.transformer.patch_size[1:])
        if self.size < 1 or self.size % cell:
            raise InputError(f"size={self.size} must be a multiple of {cell} (VAE factor x transformer patch)")
        if self.transformer.in_channels != self.vae.z_dim or self.transformer.out_channels != self.vae.z_dim:
            raise InputError(f"the transformer's channels must equal the VAE's z_dim={self.vae.z_dim}")
        length = self.transformer.text_length
        if isinstance(self.text, Umt5TextConfig) and self.text.tokens >= length:
            raise InputError(f"text.tokens={self.text.tokens} must be less than transformer.text_length={length}")
        if isinstance(self.text, ByteTextConfig) and length:
            raise InputError(f"transformer.text_length={length}: the byte encoder's text is not padded, give 0")
        if not 0 < self.fps < float("inf"):
            raise InputError(f"fps={self.fps} must be positive and finite")

    def shaping(self) -> dict[str, Any]:
        """The settings that values depend on: not how they are computed, nor where text embeddings are kept."""
        settings = asdict(self)
        for name in ("unroll", "remat"):
            del settings["transformer"][name]
        if not self.first_frame:
            del settings["first_frame"]  # models of before had no choice
        settings["text"].pop("file", None)
        return settings

    @property
    def latent(self) -> tuple[int, int, int]:
        """Height, width and channels of one latent."""
        side = self.size // self.vae.spatial_factor
        return side, side, self.vae.z_dim


@dataclass
class TinyConfig(ModelConfig):
    """96x96 frames, 5 M parameters: trains and labels on two CPU cores."""

    size: int = 96
    fps: float = 5.0
    vae: VaeConfig = field(
        default_factory=lambda: VaeConfig(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=32,
            dim_mult=[1, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            patch_size=4,
        )
    )
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            in_channels=32,
            out_channels=32,
            num_layers=6,
            num_attention_heads=4,
            attention_head_dim=48,
            ffn_dim=768,
            text_dim=64,
            freq_dim=64,
            unroll=True,  # trains 1.5 times as fast on two cores
        )
    )
    value: ValueStreamConfig = field(
        default_factory=lambda: ValueStreamConfig(width=96, cross_heads=2, cross_head_dim=48, ffn_dim=384)
    )
    text: ByteTextConfig = field(default_factory=ByteTextConfig)


@dataclass
class Wan22Ti2v5bConfig(ModelConfig):
    """The paper's model: Wan2.2-TI2V-5B and a value stream of 0.7 B; needs GPUs, see docs/wan.md."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(compute_dtype="bfloat16", remat=True, text_length=512)
    )
    text: Umt5TextConfig = field(default_factory=Umt5TextConfig)


PRESETS: dict[str, type[ModelConfig]] = {"tiny": TinyConfig, "wan2.2-ti2v-5b": Wan22Ti2v5bConfig}
