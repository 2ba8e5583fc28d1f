"""Training of the video VAE: reconstruction of what moves, and a head that reads progress off its latents.

Wan's VAE saw the world's videos. In the minutes that two cores have, one that only reconstructs spends itself on the
arm and loses fingers and objects; the head, whose labels are the critic's own, tells it what to keep. The head is
dropped after the training. Its gradient needs no decoder, so a few clips of every batch are reconstructed and all are
read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wvm_rl.data.windows import Windows
from wvm_rl.errors import InputError
from wvm_rl.model.codec import to_unit
from wvm_rl.model.layers import Array, Linear
from wvm_rl.model.presets import CHUNK, ModelConfig
from wvm_rl.model.training import Batch
from wvm_rl.model.wan.vae import Conv2d, Vae
from wvm_rl.model.weights import Params, graph_of

CHANNELS, HIDDEN = 64, 128  # of the head
SEEN = slice(0, CHUNK + 1)  # prefix and current frames: the VAE is causal, so longer clips would add little
PREFIX = "vae."  # of the parameters that are kept


@dataclass
class CompressionConfig:
    """What the VAE learns to keep."""

    kl: float = 1e-5  # weight of the divergence per latent value
    focus: float = 20.0  # how much more pixels count that differ from their film's mean picture, in units of [-1,1]
    progress: float = 5.0  # weight of the head's squared error; 0: reconstruction alone
    decoded: int = 4  # clips of a batch that are reconstructed, too

    def __post_init__(self) -> None:
        for name in ("kl", "focus", "progress"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"compression.{name}={getattr(self, name)} must be finite and not negative")
        if self.decoded < 1:
            raise InputError(f"compression.decoded={self.decoded} must be at least 1")


class ProgressHead(nnx.Module):
    """Latent of a chunk and its instruction -> progress of its frames."""

    def __init__(self, latent: tuple[int, int, int], instructions: int, *, rngs: nnx.Rngs):
        height, width, channels = latent
        self.convolution = Conv2d(channels, CHANNELS, 3, rngs=rngs)
        self.hidden = Linear(height * width * CHANNELS, HIDDEN, rngs=rngs)
        self.instruction = nnx.Param(jnp.zeros((instructions, HIDDEN)))
        self.out = Linear(HIDDEN, CHUNK, rngs=rngs)

    def __call__(self, latent: Array, instruction: Array) -> Array:
        """[B,h,w,z] and rows [B] -> [B,4] in (0,1)."""
        x = jax.nn.relu(self.convolution(latent[:, None]))
        x = jax.nn.relu(self.hidden(x.reshape(len(x), -1)) + self.instruction[...][instruction])
        return jax.nn.sigmoid(self.out(x))


class Compressor(nnx.Module):
    """The VAE and the head that is dropped after training."""

    def __init__(self, config: ModelConfig, instructions: int, *, rngs: nnx.Rngs):
        self.vae = Vae(config.vae, rngs=rngs)
        self.progress = ProgressHead(config.latent, instructions, rngs=rngs)


class Compression:
    """Pure functions over the graph of `Compressor`."""

    def __init__(self, model: ModelConfig, instructions: int, config: CompressionConfig):
        self.config = config
        self.graph = graph_of(Compressor, model, instructions)

    def loss(self, params: Params, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        """Reconstruction, divergence and error of progress.

        Args:
            params: of `Compressor`.
            batch: frames [B,5,H,W,3] u8; value [B,4] of the last four; instruction [B]; background [D,H,W,3] u8, the
                mean pictures of the first clips' films, which are those that are decoded.
            key: of the posterior's noise.

        Returns:
            Scalar loss and its parts.
        """
        config, compressor = self.config, self.graph.merge(params)
        video = to_unit(batch["frames"])
        mean, logvar = compressor.vae.encode(video)
        # Step k's key is that of parameter k, too (`Graph.init`): to be told apart with the next change of `LAW`.
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()

        decoded = len(batch["background"])
        shown = video[:decoded]
        moving = jnp.abs(shown - to_unit(batch["background"])[:, None]).mean(-1, keepdims=True)
        error = jnp.abs(compressor.vae.decode(z[:decoded]) - shown)
        weight = 1.0 + config.focus * moving  # most pixels never change, and a small VAE would spend itself on them
        reconstruction = (weight * (error + error**2)).mean() / weight.mean()

        found = compressor.progress(z[:, 1], batch["instruction"])
        progress = jnp.square(found - batch["value"]).mean()
        loss = reconstruction + config.kl * divergence + config.progress * progress
        foreground = (moving * error).mean() / (moving.mean() + 1e-6)
        parts = {"l1": error.mean(), "foreground_l1": foreground, "kl": divergence, "progress_rmse": progress**0.5}
        return loss, {"loss": loss, **parts}

    def progress(self, params: Params, frames: Array, instruction: Array) -> Array:
        """u8 clips [B,5,H,W,3] and rows [B] -> progress [B,4] that the head reads off their latents' means."""
        compressor = self.graph.merge(params)
        return compressor.progress(compressor.vae.encode(to_unit(frames))[0][:, 1], instruction)

    def batches(self, windows: Windows, size: int) -> Callable[[int], Batch]:
        """Batch of a step, as `loss` reads it."""

        def batch(step: int) -> Batch:
            first = step * size
            frames, values, instruction = windows.batch(first, size)
            decoded = range(first, first + self.config.decoded)
            return {
                "frames": frames[:, SEEN],
                "value": values[:, 1 : CHUNK + 1],
                "instruction": instruction,
                "background": np.stack([windows.background(index) for index in decoded]),
            }

        return batch

    def check(self, windows: Windows, count: int, group: int) -> Callable[[Params], dict[str, float]]:
        """Root mean square error of the head on windows it did not learn from."""
        progress = jax.jit(self.progress)
        groups = [windows.batch(first, group) for first in range(0, count, group)]

        def measured(params: Params) -> dict[str, float]:
            error = [
                np.square(np.asarray(progress(params, frames[:, SEEN], rows)) - values[:, 1 : CHUNK + 1])
                for frames, values, rows in groups
            ]
            return {"held_out_rmse": float(np.sqrt(np.mean(error)))}

        return measured


def kept(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The VAE's own parameters."""
    return {name.removeprefix(PREFIX): value for name, value in params.items() if name.startswith(PREFIX)}
