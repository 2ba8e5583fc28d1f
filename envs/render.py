"""Adds camera frames to a dataset: `python -m envs.render <dataset> cameras=[agentview] fps=4 size=64`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
from omegaconf import MISSING
from tqdm import tqdm

from envs.cache import key
from envs.camera import WORKSPACE, Camera
from envs.modelfile import compiled
from envs.workers import Workers, cores
from wvm_rl.cli import run
from wvm_rl.data.episodes import Dataset, drawable
from wvm_rl.data.layout import text
from wvm_rl.data.writing import write_frames
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, exclusive, once

DRAWN_BY = {"camera", "looks", "meshes", "modelfile", "render"}  # files of this folder that shape a picture


@dataclass
class RenderConfig:
    """Frames to be added to a dataset from its states."""

    dataset: str = MISSING  # path of the HDF5 file, ours or robomimic's; the first argument may omit `dataset=`
    cameras: list[str] = field(default_factory=lambda: [WORKSPACE])  # "workspace" or cameras of the model
    fps: int = 4  # frames a second, a divisor of the file's control steps a second; its other cameras follow
    size: int = 64  # pixels a side
    workers: int | None = None  # processes; null: one a core it may use

    def __post_init__(self):
        if self.fps < 1:
            raise InputError(f"fps={self.fps} must be at least 1 frame a second")
        if not self.cameras:
            raise InputError(f"cameras=[] names no camera: try cameras=[{WORKSPACE}]")
        if "step" in self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise InputError(f"cameras={self.cameras} must differ from each other and from `step`")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers={self.workers} must be at least 1")
        for name in self.cameras:
            Camera(name, self.size)


def render(config: RenderConfig) -> Path:
    """Renders the cameras of every episode and puts the file with them in the old one's place, whole or not at all.

    Equal datasets give equal bytes, whatever the number of workers.

    Raises:
        InputError: no such dataset or camera, an episode without states or model, no OpenGL.
    """
    path = Path(config.dataset).expanduser()
    Dataset(path)  # or refused
    with exclusive(path):  # what another process adds meanwhile is not lost
        dataset = Dataset(path)
        jobs = [_job(dataset, index, config) for index in range(len(dataset))]
        _write(path, path, jobs, config.workers, {})
    return path


def in_look(dataset: Dataset, camera: str, look: str, workers: int | None = None) -> Path:
    """The dataset whose frames show a camera of `dataset` in a look of `envs.looks`, under the plain name; made once.

    It lies beside its source; actions, states and lapses are the same.
    """
    path, shown = _beside(dataset, camera, look), f"{camera}.{look}"

    def make() -> None:
        size = {shown: dataset.frames_shape(0, camera)[1]}
        jobs = [Job(index, dataset.name(index), size, dataset.frame_steps(index)) for index in range(len(dataset))]
        _write(dataset.path, path, jobs, workers, {shown: camera})

    return once(path, make)


def shown(dataset: Dataset, cameras: Sequence[str], fps: int, size: int, workers: int | None = None) -> Path:
    """The dataset whose frames are those of other cameras, rate and size; made once, beside its source."""
    path = _beside(dataset, "+".join(cameras), f"{fps}fps", str(size))

    def make() -> None:
        config, sizes = RenderConfig(str(dataset.path), list(cameras), fps, size, workers), dict.fromkeys(cameras, size)
        jobs = [replace(_job(dataset, index, config), sizes=sizes) for index in range(len(dataset))]
        _write(dataset.path, path, jobs, workers, {})

    return once(path, make)


def _beside(dataset: Dataset, *what: str) -> Path:
    """Where a dataset that is drawn anew lies: named by its source, what it shows, and the code that draws."""
    return dataset.path.with_name(
        "-".join([dataset.path.stem, dataset.fingerprint[:8], *what, key("drawn", DRAWN_BY)]) + ".hdf5"
    )


def _write(path: Path, target_path: Path, jobs: list["Job"], processes: int | None, names: dict[str, str]) -> None:
    """Copies a dataset with the frames of `jobs` in the place of its own; `names`: camera -> name in the file."""
    count = min(cores() if processes is None else processes, len(jobs))
    with (
        tqdm(total=len(jobs), desc=f"rendering {target_path.name}", unit="ep") as bar,
        Workers(_renderer, (str(path),), count) as workers,
        atomic(target_path) as partial,
        h5py.File(path, "r") as source,
        h5py.File(partial, "w", libver="earliest") as target,
    ):
        _copy(source, target, without=("frames",))
        finished, due = {}, 0
        for job, frames in workers.map(jobs):
            finished[job.index] = frames
            while due in finished:  # written in the episodes' order
                frames = {names.get(name, name): images for name, images in finished.pop(due).items()}
                write_frames(target[f"data/{jobs[due].demo}"], frames, jobs[due].steps)
                due += 1
            bar.update()


@dataclass
class Job:
    """The pictures to take of one episode."""

    index: int
    demo: str  # its group in the file
    sizes: dict[str, int]  # camera -> pixels a side
    steps: np.ndarray  # [F] i32, control steps


def _job(dataset: Dataset, index: int, config: RenderConfig) -> Job:
    """Asks for the configured cameras and for those in the file: all share one rate."""
    demo = dataset.name(index)
    with h5py.File(dataset.path, "r") as file:
        group = file[f"data/{demo}"]
        if not drawable(group):
            raise InputError(f"{dataset.path}: {demo} has no states or no model_file, so it cannot be rendered")
        if dataset.control_freq % config.fps:
            raise InputError(f"fps={config.fps} must divide {dataset.path}'s {dataset.control_freq} steps a second")
        steps = np.arange(0, len(group["states"]), dataset.control_freq // config.fps, dtype=np.int32)
        present = {camera: value.shape[1] for camera, value in group.get("frames", {}).items() if camera != "step"}
    return Job(index, demo, present | dict.fromkeys(config.cameras, config.size), steps)


def _renderer(path: str) -> Callable[[Job], dict[str, np.ndarray]]:
    """Builds a worker's answer: job -> camera -> frames [F, size, size, 3] u8."""
    cameras: dict[tuple[str, int], Camera] = {}

    def answer(job: Job) -> dict[str, np.ndarray]:
        with h5py.File(path, "r") as file:
            group = file[f"data/{job.demo}"]
            model, every = compiled(text(group.attrs, "model_file")), group["states"][()]
        first, states = every[0], every[job.steps]
        frames = {}
        for name, size in sorted(job.sizes.items()):
            camera = cameras.setdefault((name, size), Camera(name, size))
            camera.begin(first)
            frames[name] = np.stack([camera(model, state) for state in states])
        return frames

    return answer


def _copy(source: h5py.Group, target: h5py.Group, without: tuple[str, ...]) -> None:
    """Copies attributes and members, leaving out groups of a name at any depth."""
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, member in source.items():
        if name in without:
            continue
        if isinstance(member, h5py.Group):
            _copy(member, target.create_group(name), without)
        else:
            source.copy(member, target, name=name)


def main() -> None:
    if len(sys.argv) > 1 and "=" not in sys.argv[1] and not sys.argv[1].startswith("-"):
        escaped = sys.argv[1].replace("\\", "\\\\").replace("'", "\\'")
        sys.argv[1] = f"dataset='{escaped}'"
    run(lambda config: print(render(config)), RenderConfig, {})


if __name__ == "__main__":
    from envs.render import main as importable  # workers look classes up by module name, which `__main__` hides

    importable()
