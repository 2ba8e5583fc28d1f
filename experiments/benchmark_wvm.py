"""Speed of the World Value Model on this machine: `python -m experiments.benchmark_wvm`.

Labelling with a shipped critic, all in, and the share of it that the VAE's encoder takes; training updates of a model
of its sizes with the layers scanned, unrolled, and unrolled with eight draws of noise a window (`loss.draws=8`), in
turns. Writes `experiments/results/wvm_speed-<critic>.json`, other settings a file of their own; timings are only
comparable within a run.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from envs.workers import cores
from experiments.cells import RESULTS, named, result_name
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.model.codec import GROUP
from wvm_rl.model.critic import Critic
from wvm_rl.model.critic_folder import folder_of
from wvm_rl.model.presets import CHUNK, ModelConfig
from wvm_rl.model.training import FitConfig, Training
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.provenance import provenance
from wvm_rl.runs import write_json
from wvm_rl.values.wvm import DEFAULT


@dataclass
class BenchmarkConfig:
    """What to measure, and how often."""

    critic: str = DEFAULT  # a shipped critic, or the folder of one
    episodes: int = 48  # of 60 frames, to label
    repeats: int = 9
    batch: int = 64  # samples an update
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 3 or min(self.episodes, self.batch) < 1:
            raise InputError(f"repeats={self.repeats} must be at least 3, episodes and batch at least 1")


def labelling(critic: Critic, config: BenchmarkConfig) -> dict[str, Callable[[], Any]]:
    """Values of random films, and only the encoding of as many windows."""
    frames = 60
    rng = np.random.default_rng(config.seed)
    films = rng.integers(0, 256, (config.episodes, frames, critic.size, critic.size, 3), np.uint8)
    group = (
        films[:GROUP, : CHUNK + 1] if len(films) >= GROUP else np.resize(films, (GROUP, CHUNK + 1, *films.shape[2:]))
    )

    def label() -> None:
        for _ in critic.values((film, critic.instructions[0]) for film in films):
            pass

    def encode() -> None:
        programs, vae = critic.programs, critic.part("vae")
        for _ in range(config.episodes * frames // GROUP):
            np.asarray(programs.encode(vae, group))

    return {"labelling": label, "encoding": encode}


def updates(preset: ModelConfig, config: BenchmarkConfig) -> dict[str, Callable[[], Any]]:
    """One update of a model of these sizes: layers scanned; unrolled; unrolled, with eight draws of noise a window."""
    calls: dict[str, Callable[[], Any]] = {}
    seen = ("current", "future", *(("first",) if preset.first_frame else ()))
    for name, unroll, draws in (("scanned", False, 1), ("unrolled", True, 1), ("unrolled, 8 draws", True, 8)):
        model = WorldValueModel(replace(preset, transformer=replace(preset.transformer, unroll=unroll)))
        fit = FitConfig(steps=1000, batch=config.batch, learning_rate=1e-3)
        training = Training(partial(model.loss, config=LossConfig(draws=draws)), fit, config.seed)
        rng = np.random.default_rng(config.seed)
        batch = {
            **{name: rng.normal(size=(config.batch, *preset.latent)).astype(np.float16) for name in seen},
            "value": rng.uniform(size=(config.batch, CHUNK)).astype(np.float32),
            "text": np.stack([preset.text.tokenize("lift the cube")] * 6),
            "instruction": rng.integers(0, 6, config.batch).astype(np.int32),
        }
        calls[name] = partial(next, _updates(training, model, batch))
    return calls


def _updates(training: Training, model: WorldValueModel, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One update for each `next`."""
    params = model.graph.init(0)
    update, state = training.compiled(params), training.start(params)
    while True:
        with jax.set_mesh(training.mesh):
            state, parts = update(state, {}, training.place(batch), np.int32(0))
        yield jax.block_until_ready(parts)


def measured(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of calls in turns, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in tqdm(range(repeats + 1), desc=", ".join(calls)):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) for name, found in times.items()}


def main(config: BenchmarkConfig) -> None:
    critic = Critic.load(folder_of(config.critic))
    label = measured(labelling(critic, config), 3)
    step = measured(updates(critic.config.model, config), config.repeats)
    scanned, unrolled, drawn = (config.batch / seconds for seconds in step.values())
    rows = {
        "windows_per_second": config.episodes * 60 / label["labelling"],
        "vae_share": label["encoding"] / label["labelling"],
        "samples_per_second_scanned": scanned,
        "samples_per_second_unrolled": unrolled,
        "times_as_fast": unrolled / scanned,
        "samples_per_second_8_draws": drawn,
        "share_of_one_draws_speed": drawn / unrolled,
    }
    table = Table("what", "found", title=f"{config.critic} on this machine")
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), f"{value:.3g}")
    Console().print(table)
    origin = provenance() | {"critic": critic.fingerprint, "cores": cores()}
    stem = f"wvm_speed-{result_name(critic, config.critic)}"
    target = RESULTS / f"{named(stem, config, 'episodes', 'repeats', 'batch', 'seed')}.json"
    write_json(target, {**rows, "provenance": origin})


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig, {})
