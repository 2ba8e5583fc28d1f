"""From episodes' frames to values: the inference of PAPER section 3, batched.

Windows overlap at stride 1, each gives one Euler step's prediction for the last three frames of its chunk; a
frame's value is the mean of the (up to three) predictions for it. The prefix of a chunk is that running mean at
its first frame, 0 for the first window. So the windows of an episode go in order; but their latents and the video
stream do not depend on values and are computed in bulk, and several episodes advance side by side.

`Reading` adds two things to the paper's: a prediction that knows nothing of earlier ones, and a look around.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wvm_rl.data.windows import CLIP, NO_TEXT, rising
from wvm_rl.errors import InputError
from wvm_rl.model import weights
from wvm_rl.model.codec import GROUP, Codec, LatentStatistics, fit_size
from wvm_rl.model.layers import Array
from wvm_rl.model.presets import CHUNK
from wvm_rl.model.reading import Reading
from wvm_rl.model.wvm import WorldValueModel

SEGMENT = 8  # windows an episode advances per compiled call
EULER = 4  # steps from a draw of the noise to a draw of the values: one step would lead to their mean
Prediction = tuple[np.ndarray, np.ndarray]


class Overlap:
    """Running mean over overlapping chunks; the state of B episodes is sum, sum of squares and count of the next
    three frames, [3,B,3]."""

    @staticmethod
    def start(episodes: int) -> Array:
        return jnp.zeros((3, episodes, CHUNK - 1))

    @staticmethod
    def moments(state: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the predictions for the three frames, [B,3]; 0 where there are none."""
        total, square, count = state
        mean = total / jnp.maximum(count, 1)
        return mean, jnp.sqrt(jnp.maximum(square / jnp.maximum(count, 1) - mean**2, 0.0))

    @staticmethod
    def add(state: Array, predictions: Array) -> Array:
        """Moves on by one frame and adds a chunk's D predictions [D,B,3] for the three frames after its first."""
        shifted = jnp.pad(state[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
        count = jnp.full_like(predictions[0], len(predictions))
        return shifted + jnp.stack([predictions.sum(0), (predictions**2).sum(0), count])


class Inference:
    """Compiled functions of fixed shapes, over the parameters of a VAE and a World Value Model.

    Args:
        draws: from the distribution of values that a chunk gives; 0: the head's one reading, as the flow's one Euler
            step from the mode.
        reading: how predictions become values.
        reads: whether instructions are told; if not, NO_TEXT stands in their place.

    Attributes:
        encode: (VAE's parameters, u8 clips [GROUP,5,H,W,3]) -> normalised latents [GROUP,2,h,w,z].
        text: (model's parameters, tokenised instructions [N,...]) -> text tokens [N,L,D].
        advance: `_segment`, of up to SEGMENT windows of every episode of a batch.
    """

    def __init__(
        self,
        codec: Codec,
        model: WorldValueModel,
        statistics: LatentStatistics,
        vae: weights.Params,
        wvm: weights.Params,
        draws: int = 0,
        reading: Reading | None = None,
        reads: bool = True,
    ):
        self.model, self._vae, self._wvm, self._reads = model, vae, wvm, reads
        self._reading = reading or Reading()
        if draws and not model.head.drawn:
            raise InputError(f"draws={draws}: a critic with the head {model.config.value.head} gives one value; give 0")
        self._noise = jax.random.normal(jax.random.key(0), (draws, CHUNK)) if draws else None
        self.encode = jax.jit(partial(codec.encode, statistics=statistics))
        self.text = jax.jit(lambda params, tokens: model.graph.merge(params).text(tokens))
        self.advance = jax.jit(self._segment)

    def values(
        self, clips: Iterable[tuple[np.ndarray, str]], batch: int = 16
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """See `Critic.values`."""
        if batch < 1:
            raise InputError(f"batch={batch} must be at least 1 episode")
        tracks = (_Track(*item) for item in self.encoded(clips))
        slots = [next(tracks, None) for _ in range(batch)]
        order = deque(track for track in slots if track is not None)
        state = np.array(Overlap.start(batch))
        while order:
            state = self._step(slots, state)
            for slot, track in enumerate(slots):
                if track is not None and track.finished:
                    slots[slot] = following = next(tracks, None)
                    state[:, slot] = 0.0
                    order.extend([following] if following is not None else [])
            while order and order[0].finished:
                value, std = order.popleft().result()
                yield self._reading.smoothed(value), std

    def _step(self, slots: list["_Track | None"], state: np.ndarray) -> np.ndarray:
        """Advances every slot's episode by up to SEGMENT windows."""
        config = self.model.config
        latents = np.zeros((len(slots), SEGMENT, *config.latent), np.float32)
        first = np.zeros((len(slots), *config.latent), np.float32)
        shown = next(track.text for track in slots if track is not None)
        text = np.zeros((len(slots), *shown.shape), np.float32)
        for slot, track in enumerate(slots):
            if track is not None:
                part = track.latents[track.at : track.at + SEGMENT]
                latents[slot, : len(part)], first[slot], text[slot] = part, track.latents[0], track.text
        states, prefixes = jax.device_get(self.advance(self._wvm, latents, first, text, state))
        for slot, track in enumerate(slots):
            if track is not None:
                track.collect(prefixes[:, :, slot], states[:, :, slot])
        return states[-1].copy()

    def _segment(
        self, params: weights.Params, latents: Array, first: Array, text: Array, state: Array
    ) -> tuple[Array, Array]:
        """Reads W windows of each of B episodes in order.

        Args:
            params: of the model.
            latents: of the windows [B,W,h,w,z].
            first: of the episodes' first windows [B,h,w,z].
            text: tokens [B,L,D].
            state: overlap state [3,B,3].

        Returns:
            Overlap state after each window [W,3,B,3], and mean and std at its first frame [W,2,B].
        """
        episodes, windows = latents.shape[:2]
        flat = latents.swapaxes(0, 1).reshape(-1, *latents.shape[2:])
        tiled = jnp.tile(text, (windows, 1, 1))
        flat_context = self.model.context(self.model.graph.merge(params), flat, text, first)
        context = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(x.shape[0], windows, episodes, *x.shape[2:]), 1, 0), flat_context
        )
        others = None
        if self._reading.prefixes:
            others = self._without_past(params, flat_context, tiled).reshape(-1, windows, episodes, CHUNK)
            others = jnp.moveaxis(others, 1, 0)

        def window(state: Array, here: Any) -> tuple[Array, tuple[Array, Array]]:
            key_value, other = here
            mean, std = Overlap.moments(state)
            chunks = self._chunks(params, key_value, mean[:, 0], text)
            chunks = chunks if other is None else (chunks + other) / 2
            state = Overlap.add(state, chunks[:, :, 1:])
            return state, (state, jnp.stack([mean[:, 0], std[:, 0]]))

        return jax.lax.scan(window, state, (context, others))[1]

    def _without_past(self, params: weights.Params, context: Any, text: Array) -> Array:
        """Mean of the value chunks [D,N,4] that the reading's own prefixes give."""
        prefixes = jnp.linspace(0.0, 1.0, self._reading.prefixes)
        each = jax.lax.map(lambda one: self._chunks(params, context, jnp.full(len(text), one), text), prefixes)
        return each.mean(0)

    def _chunks(self, params: weights.Params, context: Any, prefix: Array, text: Array) -> Array:
        """Value chunks [D,B,4] of every draw."""
        if self._noise is None:
            return self.model.values(params, context, prefix, text)[None]
        noise = jnp.repeat(self._noise[:, None], len(prefix), 1)
        return jax.vmap(lambda each: self.model.values(params, context, prefix, text, EULER, each))(noise)

    def encoded(self, clips: Iterable[tuple[np.ndarray, str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Current latents [F,h,w,z] and text tokens [L,D] of each episode; windows are packed across episodes."""
        pending: list[tuple[int, np.ndarray]] = []  # windows still to come and text of episodes not yet yielded
        queue = np.zeros((0, CHUNK + 1, self.model.config.size, self.model.config.size, 3), np.uint8)
        latents = np.zeros((0, *self.model.config.latent), np.float32)

        def encode(group: np.ndarray) -> np.ndarray:
            return np.asarray(self.encode(self._vae, group)[:, 1])

        for index, (frames, instruction) in enumerate(clips):
            if frames.ndim != 4 or frames.dtype != np.uint8:
                raise InputError(
                    f"episode {index} has frames {frames.dtype}{list(frames.shape)}, the critic reads uint8[F, H, W, 3]"
                )
            if len(frames) < CLIP:
                raise InputError(f"episode {index} has {len(frames)} frames, fewer than the {CLIP} of a clip: drop it")
            fitted = fit_size(frames, self.model.config.size)
            tokens = self.model.config.text.tokenize(instruction if self._reads else NO_TEXT)
            text = np.asarray(self.text(self._wvm, tokens[None])[0])
            pending.append((len(frames), text))
            queue = np.concatenate([queue, fitted[rising(np.arange(len(frames)), len(frames))]])
            while len(queue) >= GROUP:
                latents, queue = np.concatenate([latents, encode(queue[:GROUP])]), queue[GROUP:]
            while pending and len(latents) >= pending[0][0]:
                length, text = pending.pop(0)
                yield latents[:length], text
                latents = latents[length:]
        if len(queue):
            padded = np.concatenate([queue, np.zeros((GROUP - len(queue), *queue.shape[1:]), np.uint8)])
            latents = np.concatenate([latents, encode(padded)[: len(queue)]])
        for length, text in pending:
            yield latents[:length], text
            latents = latents[length:]


class _Track:
    """One episode on its way through the windows."""

    def __init__(self, latents: np.ndarray, text: np.ndarray):
        self.latents, self.text = latents, text
        self.at = 0  # windows done
        self.moments: list[np.ndarray] = []  # [W,2] mean and std at the first frame of windows, three frames before t
        self.last = np.zeros((3, CHUNK - 1))

    @property
    def finished(self) -> bool:
        return self.at == len(self.latents)

    def collect(self, moments: np.ndarray, states: np.ndarray) -> None:
        """Takes what a segment found: [W,2] and states [W,3,3], of which the episode may end before the last."""
        count = min(len(moments), len(self.latents) - self.at)
        self.moments.append(moments[:count])
        self.last = states[count - 1]
        self.at += count

    def result(self) -> Prediction:
        """Value and std [F]: window t starts at frame t-3, and the last window's state holds the last three frames."""
        tail = np.stack(jax.device_get(Overlap.moments(jnp.asarray(self.last)[:, None]))).reshape(2, -1).T
        both = np.concatenate([*self.moments, tail])[CHUNK - 1 :]
        return both[:, 0].astype(np.float32), both[:, 1].astype(np.float32)
