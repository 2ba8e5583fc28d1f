"""The benchmark's clips: its episodes, what is made from its experts, its shifts; and their videos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from envs.collect import CollectConfig, collect
from envs.looks import LOOKS
from envs.render import in_look
from envs.video import write_video
from wvm_rl.data.clips import MADE, derived
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.files import atomic


def _by_robot(robot: str, plan: CollectConfig) -> CollectConfig:
    return replace(plan, env=replace(plan.env, robot=robot))


def _in_manner(manner: str, plan: CollectConfig) -> CollectConfig:
    """Hesitations alone, as many as the plan's: the other episodes have no manner."""
    count = max(1, round(plan.episodes * plan.recipe.shares["hesitation"]))
    return replace(plan, episodes=count, recipe=replace(plan.recipe, manner=manner, shares={"hesitation": 1.0}))


# Shifts that are other episodes; the looks of `envs.looks` are shifts, too: the same episodes seen otherwise.
SHIFTS: dict[str, Callable[[CollectConfig], CollectConfig]] = {
    "sawyer": partial(_by_robot, "Sawyer"),
    "ur5e": partial(_by_robot, "UR5e"),
    "jitter": partial(_in_manner, "jitter"),
    "drift": partial(_in_manner, "drift"),
    "detour": partial(_in_manner, "detour"),
}


def clips(fresh: Mapping[str, CollectConfig], camera: str, shifts: Sequence[str]) -> dict[tuple[str, str], Dataset]:
    """(task, clip) -> its episodes: as they were, made from the experts', and in other looks.

    Raises:
        InputError: a dataset was rendered again at another rate.
    """
    found: dict[tuple[str, str], Dataset] = {}
    for task, plan in fresh.items():
        plain = Dataset(collect(plan))
        found[task, "bench"] = plain
        found |= {(task, clip): derived(plain, clip, camera) for clip in MADE}
        for shift in shifts:
            seen = in_look(plain, camera, shift, plan.workers) if shift in LOOKS else collect(SHIFTS[shift](plan))
            found[task, shift] = Dataset(seen)
        if anew := next((each for each in found.values() if each.fps != plan.fps), None):
            raise InputError(f"{anew.path} has {anew.fps:g} frames a second now, not {plan.fps}: delete it")
    return found


def export(folder: Path, datasets: dict[tuple[str, str], Dataset], camera: str) -> None:
    """Writes every clip as `<folder>/<task>/<clip>/<episode>.mp4` and `episodes.csv`: what to predict values for."""
    rows = []
    for (task, clip), dataset in datasets.items():
        for episode in tqdm(dataset, desc=f"{task} {clip}", unit="video"):
            frames, _ = dataset.frames(episode.index, camera)
            place = Path(task) / clip / f"{episode.index:03d}.mp4"
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / place, frames, dataset.fps)
            row = {"task": task, "clip": clip, "episode": episode.index, "video": str(place), "frames": len(frames)}
            rows.append(row | {"fps": dataset.fps, "instruction": episode.instruction})
    with atomic(folder / "episodes.csv") as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)
