"""A toy world for the model's tests: a square that crosses the image, and presets that train in seconds."""

from dataclasses import replace

import numpy as np

from wvm_rl.data.windows import Film
from wvm_rl.model.codec import Codec, LatentStatistics
from wvm_rl.model.compression import CompressionConfig
from wvm_rl.model.critic import FORMAT, Critic, CriticConfig
from wvm_rl.model.presets import TinyConfig
from wvm_rl.model.settings import Corpus, StagesConfig
from wvm_rl.model.text import ByteTextConfig
from wvm_rl.model.training import FitConfig
from wvm_rl.model.value_dit import ValueStreamConfig
from wvm_rl.model.wan.transformer import TransformerConfig
from wvm_rl.model.wan.vae import VaeConfig
from wvm_rl.model.wvm import LossConfig, WorldValueModel


def film(seed: int, size: int = 16, instruction: int = 0) -> Film:
    """A bright square that moves from left to right at its own speed and height."""
    rng = np.random.default_rng(seed)
    length, side, top = int(rng.integers(10, 16)), size // 4, int(rng.integers(0, size - size // 4))
    frames = np.full((length, size, size, 3), 40, np.uint8)
    for index, left in enumerate(np.linspace(0, size - side, length).round().astype(int)):
        frames[index, top : top + side, left : left + side, instruction % 3] = 230
    return Film(frames, np.linspace(0, 1, length, dtype=np.float32), instruction)


def corpus(episodes: int = 12, size: int = 16) -> Corpus:
    films = [film(seed, size, seed % 2) for seed in range(episodes)]
    return Corpus(films[:-4], films[-4:], ["push right", "push it over"], "toy", f"toy-{episodes}-{size}")


def preset(size: int = 16) -> TinyConfig:
    """The same modules at a size that compiles and runs in seconds."""
    return TinyConfig(
        size=size,
        vae=VaeConfig(
            base_dim=4,
            decoder_base_dim=4,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
        ),
        transformer=TransformerConfig(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=12,
            ffn_dim=32,
            text_dim=8,
            freq_dim=16,
        ),
        value=ValueStreamConfig(width=16, cross_heads=2, cross_head_dim=8, ffn_dim=32),
        text=ByteTextConfig(max_bytes=16, width=8, tokens=2),
    )


def stages(**changes) -> StagesConfig:
    settings = {
        "wvm": preset(),
        "vae": FitConfig(steps=40, batch=2, learning_rate=2e-3, warmup=5, save_every=20),
        "compression": CompressionConfig(decoded=2),
        "pool": 256,
        "model": FitConfig(steps=60, batch=8, learning_rate=2e-3, warmup=5, save_every=20),
    }
    return StagesConfig(**{**settings, **changes})


def small() -> StagesConfig:
    """Stages of a few steps, without the loss of the video stream: half of the time to compile."""
    return stages(
        vae=replace(stages().vae, steps=20),
        model=replace(stages().model, steps=24, batch=16, save_every=20),
        loss=LossConfig(video=0.0),
    )


def random_critic(head: str = "flow") -> Critic:
    """A critic with random weights everywhere, so that every input matters."""
    model = replace(preset(), value=replace(preset().value, head=head))
    config = CriticConfig(FORMAT, "tiny", "toy", ["push right"], model, LatentStatistics([0.0] * 4, [0.3] * 4))
    shapes = {f"vae.{name}": shape for name, shape in Codec(config.model).graph.shapes.items()}
    shapes |= {f"wvm.{name}": shape for name, shape in WorldValueModel(config.model).graph.shapes.items()}
    return Critic(config, random(shapes, scale=0.15))


def of(**changes) -> TinyConfig:
    """The toy preset with other settings of its transformer."""
    return replace(preset(), transformer=replace(preset().transformer, **changes))


def random(shapes: dict[str, tuple[int, ...]], seed: int = 0, scale: float = 0.2) -> dict[str, np.ndarray]:
    """Weights of these shapes, everywhere, so that every input matters."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape, scale=scale).astype(np.float32) for name, shape in shapes.items()}
