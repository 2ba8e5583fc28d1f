"""Banks of initial states: where evaluation rollouts begin, the same for every policy."""

import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from envs.cache import data_folder, exclusive, key
from envs.tasks import TaskConfig
from envs.workers import Workers
from wvm_rl.errors import InputError
from wvm_rl.files import atomic

EVALUATION = 2  # first word of the entropy of evaluation seeds; collected episodes use 1 (`envs.recording`)


@dataclass
class Bank:
    """Initial states of a task.

    Attributes:
        path: its file.
        model_files: model XML of each entry (most tasks repeat one, Lift samples its cube with the model).
        states: [n, S] f64 simulator states.
    """

    path: Path
    model_files: list[str]
    states: np.ndarray

    def __len__(self) -> int:
        return len(self.states)


def evaluation_seed(task: str, seed: int, index: int) -> int:
    """Seed of `Simulation.reset` for entry `index`; drawn from another entropy than any collected episode's."""
    entropy = np.random.SeedSequence([EVALUATION, zlib.crc32(task.encode()), seed, index])
    return int(entropy.generate_state(1)[0])


def bank(task: TaskConfig, seed: int, count: int, root: str | None = None, workers: int = 1) -> Bank:
    """Returns the bank of `count` states, reading it from the data folder or making it there.

    Entry i is a pure function of (task, seed, i): a longer bank begins with a shorter one.
    """
    if count < 1:
        raise InputError(f"rollouts={count} must be at least 1")
    settings = {"task": asdict(task), "seed": seed, "count": count, "entropy": EVALUATION}
    name = f"{task.name}-{count}-seed{seed}-{key(settings)}.hdf5"
    path = data_folder(root) / "banks" / name
    if not path.exists():
        with exclusive(path):
            if not path.exists():
                _write(path, _entries(task, seed, count, workers))
    return _read(path)


def _entries(task: TaskConfig, seed: int, count: int, workers: int) -> list[tuple[str, np.ndarray]]:
    entries: list = [None] * count
    bar = tqdm(total=count, desc=f"initial states of {task.name}", unit="state")
    with bar, Workers(_resetter, (task, seed), min(workers, count)) as pool:
        for index, entry in pool.map(range(count)):
            entries[index] = entry
            bar.update()
    return entries


def _resetter(task: TaskConfig, seed: int):
    """Builds a worker's answer: index -> (model_file, state)."""
    from envs.simulation import Simulation

    simulation = Simulation(task)

    def answer(index: int) -> tuple[str, np.ndarray]:
        simulation.reset(evaluation_seed(task.name, seed, index))
        return simulation.model_file, simulation.state

    return answer


def _write(path: Path, entries: list[tuple[str, np.ndarray]]) -> None:
    models = sorted({model for model, _ in entries})
    with atomic(path) as partial, h5py.File(partial, "w") as file:
        texts = [np.frombuffer(model.encode(), np.uint8) for model in models]
        for number, text in enumerate(texts):
            file.create_dataset(f"models/{number}", data=text, compression="gzip")
        file["model"] = np.array([models.index(model) for model, _ in entries], np.int32)
        file["states"] = np.stack([state for _, state in entries])


def _read(path: Path) -> Bank:
    try:
        with h5py.File(path) as file:
            models = [file[f"models/{number}"][()].tobytes().decode() for number in range(len(file["models"]))]
            return Bank(path, [models[number] for number in file["model"][()]], file["states"][()])
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is damaged: delete it, it will be made again ({error})") from error
