"""Makes a dataset of this project of one of LeRobot's: `python -m wvm_rl.convert dataset=<folder> cameras=[front]`.

A critic learns from it (`wvm_rl.pretrain data=file`), and the values of `wvm_rl.label` are rows of LeRobot's own:
`episode_index` and `frame_index` are those of the source.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING
from tqdm import tqdm

from wvm_rl import cli
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.lerobot import LeRobot
from wvm_rl.data.windows import CLIP
from wvm_rl.data.writing import write, write_part
from wvm_rl.errors import InputError
from wvm_rl.files import exclusive, writable
from wvm_rl.fingerprint import fingerprint


@dataclass
class ConvertConfig:
    """Converts a dataset of LeRobot's."""

    dataset: str = MISSING  # folder of it, with meta/info.json
    out: str = MISSING  # HDF5 file to write
    cameras: list[str] | None = None  # by name, `front` for observation.images.front; null: all
    fps: int = 5  # frames a second kept, at least: every (rate // fps)-th; as many as the critic reads
    size: int = 96  # pixels a side of the frames' middle squares, as many as the critic reads

    def __post_init__(self) -> None:
        if min(self.fps, self.size) < 1:
            raise InputError(f"fps={self.fps} and size={self.size} must be at least 1")
        if self.cameras is not None and (not self.cameras or len(set(self.cameras)) < len(self.cameras)):
            raise InputError("cameras must name at least one, and none twice; null takes all")


def convert(config: ConvertConfig) -> Path:
    """Writes the dataset, going on where an interrupted call was; of files that were replaced since, it begins anew.

    Raises:
        InputError: the source is not whole, lacks a camera, has fewer frames a second or an episode too
            short for any critic; or the file is there.
    """
    source, out = LeRobot(config.dataset), Path(config.out).expanduser()
    wanted = list(source.cameras) if config.cameras is None else config.cameras
    cameras = {source.feature(name).removeprefix("observation.images."): source.feature(name) for name in wanted}
    if not cameras:
        raise InputError(f"{source.folder} has no camera, and a critic nothing to see")
    if source.rate < config.fps:
        raise InputError(f"{source.folder} has {source.rate:g} frames a second: give fps={source.rate:g} or less")
    every = int(source.rate // config.fps)
    short = [index for index, length in enumerate(source.lengths) if -(-length // every) < CLIP]
    if short:
        raise InputError(
            f"{source.folder}: episode {short[0]} ({len(short)} in all) keeps fewer frames than the {CLIP} of a "
            "critic's clip: delete such episodes there first"
        )
    settings = [source.fingerprint, cameras, every, config.size]
    parts = out.with_suffix(f".{fingerprint(settings)[:8]}.parts")
    writable(out.parent)
    with exclusive(out):
        if out.exists():
            raise InputError(f"{out} is there: choose another out, or delete it")
        made = [fingerprint(source.files(index, cameras))[:8] for index in range(len(source))]
        paths = [parts / f"{index:06d}-{files}.hdf5" for index, files in enumerate(made)]
        for index, path in enumerate(tqdm(paths, desc="converting", unit="ep")):
            if not path.exists():
                write_part(path, source.episode(index, cameras, every, config.size))
        write(out, paths, {"env_name": source.robot, "env_kwargs": {}, "control_freq": int(source.rate)})
        shutil.rmtree(parts)
    return out


def command(config: ConvertConfig) -> None:
    dataset = Dataset(convert(config))
    print(f"{dataset.path}: {len(dataset)} episodes, {dataset.fps:g} frames a second of {', '.join(dataset.cameras)}")


if __name__ == "__main__":
    cli.run(command, ConvertConfig, {})
