"""What the critic's way of reading values is worth: `python -m experiments.inference`.

The paper reads a chunk with one Euler step from the mode of the noise, gives it the running mean of earlier
predictions as prefix (0 at first), and averages the predictions of overlapping chunks. Each variant changes some of
these, whatever reading the critic asks for, and is scored on the benchmark's episodes, all from the same latents.
`both` is `wvm_rl.model.reading.mixed`. Writes
`experiments/results/inference-<critic>-seed<seed>.md` after every variant; other variants, tasks or numbers of episodes
have files of their own. Scores are kept in `runs/inference/`, by which an interrupted run of the same commit goes on,
unless files were changed since.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from envs.collect import collect
from envs.tasks import TASKS
from experiments.cells import RESULTS, named, result_name, titles
from wvm_rl import cli
from wvm_rl.bench import BenchConfig, plans
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, once
from wvm_rl.fingerprint import fingerprint
from wvm_rl.label import at_steps
from wvm_rl.model.critic import Critic
from wvm_rl.model.inference import Overlap
from wvm_rl.model.layers import Array
from wvm_rl.model.presets import CHUNK
from wvm_rl.model.reading import Reading
from wvm_rl.model.wan.transformer import KeyValue
from wvm_rl.provenance import provenance, tells_code
from wvm_rl.runs import write_json
from wvm_rl.scoreboard import cell, markdown_table
from wvm_rl.scores import Row, pooled, trajectories
from wvm_rl.values.base import Values
from wvm_rl.values.wvm import DEFAULT, WvmConfig

SHOWN = ("hesitation_rmse", "retry_voc", "expert_voc", "failure_auroc", "lapse_auroc", "calibration_error")
PAD = 32  # windows by which lengths differ, lest each compile anew


@dataclass(frozen=True)
class Variant:
    """One way of reading values."""

    what: str
    steps: int = 1  # of Euler
    draws: int = 0  # of the noise, averaged; 0: its mode
    prefixes: int = 0  # evenly spread over [0, 1], over which chunks are averaged
    own: float = 1.0  # share of the chunk whose prefix is the running mean; the others' is the rest
    smooth: int = 0  # neighbours on either side that a frame's value is averaged with
    newest: bool = False  # a frame has the newest chunk's prediction that shows what follows it, no mean


VARIANTS = {
    "paper": Variant("one Euler step from the mode, running mean as prefix, overlaps averaged"),
    "euler2": Variant("two Euler steps", steps=2),
    "euler4": Variant("four Euler steps", steps=4),
    "draws8": Variant("mean of eight draws of the noise, four Euler steps each", steps=4, draws=8),
    "prefixes5": Variant("mean over five prefixes, the running mean is none of them", prefixes=5, own=0.0),
    "mixed3": Variant("half of it the mean over three prefixes", prefixes=3, own=0.5),
    "smooth2": Variant("the paper's, averaged over five frames", smooth=2),
    "both": Variant("half of it that mean, averaged over five frames", prefixes=3, own=0.5, smooth=2),
    "newest": Variant("no mean over overlaps", newest=True),
}


@dataclass
class InferenceConfig:
    """What to compare, and on which episodes."""

    critic: str = DEFAULT  # a critic shipped with this package, or the folder of one
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    episodes: int = 77  # a task
    seed: int = 7000  # of the collection; choices are made on it, so it is not the benchmark's

    def __post_init__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise InputError(f"variants has unknown {', '.join(unknown)}: choose from {', '.join(VARIANTS)}")


def reader(critic: Critic, variant: Variant) -> Callable[[Any, Any], Array]:
    """Function of latents [F,h,w,z] and text [L,D] -> predictions [F,3] of window t for frames t-2, t-1 and t."""
    model, params = critic.model, critic.part("wvm")

    def chunk(context: KeyValue, prefix: Array, text: Array) -> Array:
        """[3] from the prefix."""
        others = jnp.linspace(0, 1, variant.prefixes)
        shares = [(prefix, variant.own), *((one, (1 - variant.own) / variant.prefixes) for one in others)]

        def mean(noise: Array | None) -> Array:
            values = [model.values(params, context, one[None], text, variant.steps, noise) for one, _ in shares]
            return jnp.stack([share * value[0, 1:] for value, (_, share) in zip(values, shares)]).sum(0)

        if not variant.draws:
            return mean(None)
        noises = jnp.stack([jax.random.normal(jax.random.key(draw), (1, CHUNK)) for draw in range(variant.draws)])
        return jax.lax.map(mean, noises).mean(0)

    @jax.jit
    def read(latents: Array, text: Array) -> Array:
        context = model.context(model.graph.merge(params), latents, text[None], latents[:1])
        context = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], context)

        def window(state: Array, here: KeyValue) -> tuple[Array, Array]:
            values = chunk(here, Overlap.moments(state)[0][0, 0], text[None])
            return Overlap.add(state, values[None, None]), values

        return jax.lax.scan(window, Overlap.start(1), context)[1]

    return read


def joined(chunks: np.ndarray, newest: bool) -> np.ndarray:
    """Values [F] from predictions [F,3]: their mean over the windows that see a frame, or the last one's."""
    frames = len(chunks)
    total, count = np.zeros(frames), np.zeros(frames)
    for place in reversed(range(CHUNK - 1)):
        seen = np.arange(frames) - (CHUNK - 2 - place)
        kept = seen >= 0
        if newest:
            total[seen[kept]], count[seen[kept]] = chunks[kept, place], 1
        else:
            np.add.at(total, seen[kept], chunks[kept, place])
            np.add.at(count, seen[kept], 1)
    return total / count


def main(config: InferenceConfig) -> None:
    """Collects what is missing, encodes it once, scores every variant."""
    source = WvmConfig(critic=config.critic).source()
    critic = source.critic
    bench = BenchConfig(models=["wvm"], tasks=config.tasks, episodes=config.episodes, seed=config.seed)
    datasets = {task: Dataset(collect(plan)) for task, plan in plans(bench, critic).items()}

    def films(dataset: Dataset) -> Iterator[tuple[np.ndarray, str]]:
        for episode in tqdm(dataset, desc="encoding", unit="ep"):
            yield dataset.frames(episode.index, critic.camera, critic.fps)[0], episode.instruction

    @cache
    def latents(task: str) -> list[tuple[Any, Any]]:
        return list(critic.programs.encoded(films(datasets[task])))

    def scored(name: str) -> dict[str, Any]:
        if not reusable:
            return pooled(rows_of(name))
        place = Path("runs") / "inference" / fingerprint(depends)[:8] / f"{name}.json"
        return json.loads(once(place, lambda: write_json(place, pooled(rows_of(name)))).read_text())

    def rows_of(name: str) -> list[Row]:
        variant, rows = VARIANTS[name], list[Row]()
        read = reader(critic, variant)
        for task, dataset in datasets.items():
            values = []
            for index, (latent, text) in enumerate(tqdm(latents(task), desc=f"{name} {task}", unit="ep")):
                padded = np.concatenate([latent, np.repeat(latent[-1:], -len(latent) % PAD, 0)])
                chunks = np.asarray(read(padded, text))[: len(latent)]
                step = dataset.frames(index, critic.camera, critic.fps)[1]
                found = Values(step, Reading(smooth=variant.smooth).smoothed(joined(chunks, variant.newest)), None)
                values.append(at_steps(found, dataset.lengths[index]).progress)
            rows += trajectories(task, name, "bench", dataset, values, bench.horizon_k)
        return rows

    origin = provenance() | {"critic": critic.fingerprint, "episodes": f"{config.episodes} a task, seed {config.seed}"}
    stem = f"inference-{result_name(critic, config.critic)}-seed{config.seed}"
    target = RESULTS / f"{named(stem, config, 'variants', 'tasks', 'episodes')}.md"
    reusable = tells_code(origin["commit"])
    depends = [origin["commit"], critic.fingerprint, [dataset.path.name for dataset in datasets.values()]]
    rows = [["variant", "what", *titles(SHOWN)]]
    for name in config.variants:
        scores = scored(name)
        rows.append([name, VARIANTS[name].what, *(cell(scores, key) for key in SHOWN)])
        print(" | ".join(rows[-1]), flush=True)
        with atomic(target) as partial:
            text = [f"- {key}: {value}" for key, value in origin.items()]
            partial.write_text("\n".join(["# Ways of reading the critic", "", markdown_table(rows), *text, ""]))


if __name__ == "__main__":
    cli.run(main, InferenceConfig, {})
