"""Datasets of LeRobot's, of both layouts, become datasets of this project."""

import io
import json
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wvm_rl.convert import ConvertConfig, convert
from wvm_rl.data.episodes import Dataset
from wvm_rl.data.lerobot import LeRobot
from wvm_rl.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*os.fork")  # JAX warns of it; ffmpeg's child starts another program

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS, RATE = (70, 61), 30


def picture(row: int) -> np.ndarray:
    """A wide picture whose middle square shows the row as brightness."""
    wide = np.full((48, 64, 3), 255, np.uint8)
    wide[:, 8:56] = 20 + 3 * row
    return wide


def film(path: Path, rows: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        str(path), (64, 48), fps=RATE, quality=10, macro_block_size=1, ffmpeg_log_level="error"
    )
    writer.send(None)
    for row in rows:
        writer.send(picture(row))
    writer.close()


def table(episode: int, length: int) -> pd.DataFrame:
    rng = np.random.default_rng(episode)
    stills = [io.BytesIO() for _ in range(length)]
    for row, still in enumerate(stills):
        Image.fromarray(picture(row)).save(still, "PNG")
    return pd.DataFrame(
        {
            "action": list(rng.normal(size=(length, 6)).astype(np.float32)),
            "observation.state": list(rng.normal(size=(length, 6)).astype(np.float32)),
            WRIST: [{"bytes": still.getvalue(), "path": None} for still in stills],
            "episode_index": episode,
            "frame_index": np.arange(length),
        }
    )


def recorded(folder: Path, version: int) -> Path:
    """A small dataset: a video camera, one whose pictures lie in the tables, two tasks."""
    info = {
        "codebase_version": f"v{version}.0",
        "robot_type": "so101",
        "fps": RATE,
        "chunks_size": 1000,
        "features": {FRONT: {"dtype": "video"}, WRIST: {"dtype": "image"}, "action": {"dtype": "float32"}},
    }
    tables, tasks = [table(*each) for each in enumerate(LENGTHS)], ["fold the towel", "wipe the table"]
    (folder / "meta").mkdir(parents=True)
    if version == 2:
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        lines = [
            {"episode_index": index, "tasks": [tasks[index]], "length": length} for index, length in enumerate(LENGTHS)
        ]
        (folder / "meta" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "data" / "chunk-000").mkdir(parents=True)
        for index, rows in enumerate(tables):
            rows.to_parquet(folder / "data" / "chunk-000" / f"episode_{index:06d}.parquet")
            film(folder / "videos" / "chunk-000" / FRONT / f"episode_{index:06d}.mp4", list(range(len(rows))))
    else:
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        episodes = pd.DataFrame(
            {
                "episode_index": [0, 1],
                "tasks": [[task] for task in tasks],
                "data/chunk_index": 0,
                "data/file_index": 2,
                f"videos/{FRONT}/chunk_index": 0,
                f"videos/{FRONT}/file_index": 1,
                f"videos/{FRONT}/from_timestamp": [0.0, LENGTHS[0] / RATE],
                f"videos/{FRONT}/to_timestamp": [LENGTHS[0] / RATE, sum(LENGTHS) / RATE],
                "length": LENGTHS,
                "stats/action/mean": [[0.0], [0.0]],
            }
        )
        for path, rows in (("meta/episodes", episodes), ("data", pd.concat(tables))):
            (folder / path / "chunk-000").mkdir(parents=True)
            name = "file-002.parquet" if path == "data" else "file-000.parquet"
            rows.to_parquet(folder / path / "chunk-000" / name)
        rows = [row for length in LENGTHS for row in range(length)]
        film(folder / "videos" / FRONT / "chunk-000" / "file-001.mp4", rows)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("version", [2, 3])
def test_frames_rows_and_tasks_are_the_sources(tmp_path, version):
    source = recorded(tmp_path / "theirs", version)
    data = Dataset(convert(ConvertConfig(str(source), str(tmp_path / "ours.hdf5"), size=24)))
    assert data.cameras == ["front", "wrist"] and data.lengths == list(LENGTHS)
    assert (data.control_freq, data.fps) == (30, 5)
    for index, episode in enumerate(data):
        theirs = table(index, LENGTHS[index])
        np.testing.assert_array_equal(episode.actions, np.stack(theirs["action"]))
        np.testing.assert_array_equal(episode.obs["state"], np.stack(theirs["observation.state"]))
        assert episode.instruction == ("fold the towel", "wipe the table")[index] and episode.success
        for camera in data.cameras:
            frames, step = data.frames(index, camera)
            np.testing.assert_array_equal(step, np.arange(0, LENGTHS[index], 6))
            assert frames.shape == (len(step), 24, 24, 3)
            apart = frames.astype(int) - (20 + 3 * step)[:, None, None, None]
            assert abs(apart).max() < 3  # its own row, of which a neighbour is 3 apart, and none of the white margins
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".parts")] == []


def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch):
    """Of files that are still the same; what was made of others is made anew."""
    source, whole, cut = recorded(tmp_path / "theirs", 3), tmp_path / "whole.hdf5", tmp_path / "cut.hdf5"
    convert(ConvertConfig(str(source), str(whole), ["front"], size=24))
    made, episode = [], LeRobot.episode

    def noted(self, index, *arguments):
        made.append(index)
        if len(made) == 2:
            raise KeyboardInterrupt
        return episode(self, index, *arguments)

    monkeypatch.setattr(LeRobot, "episode", noted)
    with pytest.raises(KeyboardInterrupt):
        convert(ConvertConfig(str(source), str(cut), ["front"], size=24))
    assert convert(ConvertConfig(str(source), str(cut), ["front"], size=24)).read_bytes() == whole.read_bytes()
    assert made == [0, 1, 1]

    cut.unlink()
    video = next((source / "videos").rglob("*.mp4"))
    content = video.read_bytes()
    film(video, list(reversed(range(LENGTHS[0]))))  # the second episode's part is not there yet
    with pytest.raises(InputError, match=r"file-001\.mp4: episode 1 cannot be read \(it has 0 of 11 frames"):
        convert(ConvertConfig(str(source), str(cut), ["front"], size=24))
    video.write_bytes(content)
    assert convert(ConvertConfig(str(source), str(cut), ["front"], size=24)).read_bytes() == whole.read_bytes()


def test_damaged_videos_are_refused(tmp_path):
    """Which ffmpeg would mend in its own way; and one that lost pictures that were not asked for."""
    source = recorded(tmp_path / "theirs", 2)
    video = next((source / "videos").rglob("*000000.mp4"))
    content = video.read_bytes()
    at = content.index(b"mdat") + len(content) // 4
    video.write_bytes(content[:at] + bytes(200) + content[at + 200 :])
    with pytest.raises(InputError, match=r"000000\.mp4: episode 0 cannot be read \((?!it has)"):
        convert(ConvertConfig(str(source), str(tmp_path / "ours.hdf5"), ["front"], size=24))
    film(video, list(range(3, LENGTHS[0])))
    with pytest.raises(InputError, match=r"episode 0 cannot be read \(it has 12 of 13 frames"):
        convert(ConvertConfig(str(source), str(tmp_path / "ours.hdf5"), ["front"], size=24))


def test_a_video_that_is_shorter_than_its_rows_is_refused(tmp_path):
    """Not continued by the next episode's frames."""
    source = recorded(tmp_path / "theirs", 3)
    (listed,) = (source / "meta" / "episodes").rglob("*.parquet")
    rows = pd.read_parquet(listed)
    rows[f"videos/{FRONT}/to_timestamp"] -= [10 / RATE, 0]
    rows.to_parquet(listed)
    with pytest.raises(InputError, match=r"episode 0 cannot be read \(it has 10 of 13 frames"):
        convert(ConvertConfig(str(source), str(tmp_path / "ours.hdf5"), ["front"], size=24))


def test_an_episode_cut_short_is_refused(tmp_path):
    """Its last row would be taken for the task's end."""
    source = recorded(tmp_path / "theirs", 2)
    rows = next((source / "data").rglob("*000000.parquet"))
    pd.read_parquet(rows).iloc[:-9].to_parquet(rows)
    with pytest.raises(InputError, match=r"episode 0 is not there whole \(61 of 70 rows\)"):
        convert(ConvertConfig(str(source), str(tmp_path / "ours.hdf5"), ["wrist"], size=24))


def test_what_an_episode_lacks_is_said(tmp_path):
    source, out = recorded(tmp_path / "theirs", 3), str(tmp_path / "ours.hdf5")
    (listed,) = (source / "meta" / "episodes").rglob("*.parquet")
    rows = next((source / "data").rglob("*.parquet"))
    whole = pd.read_parquet(listed)
    whole.drop(columns=[name for name in whole if name.startswith("videos/")]).to_parquet(listed)
    with pytest.raises(InputError, match=r"episode 0 is not LeRobot's \(KeyError\('chunk_index'\)\)"):
        convert(ConvertConfig(str(source), out, ["front"], size=24))
    pictures = pd.read_parquet(rows)
    pictures.assign(**{WRIST: [{"bytes": None, "path": "gone.png"}] * len(pictures)}).to_parquet(rows)
    with pytest.raises(InputError, match=r"episode 0 is not LeRobot's \(FileNotFoundError"):
        convert(ConvertConfig(str(source), out, ["wrist"], size=24))
    pictures.drop(columns=[WRIST]).to_parquet(rows)
    with pytest.raises(InputError, match=r"episode 0 is not LeRobot's \(KeyError\('observation.images.wrist'\)\)"):
        convert(ConvertConfig(str(source), out, ["wrist"], size=24))
    pictures.drop(columns=["action"]).to_parquet(rows)
    with pytest.raises(InputError, match="has no column action"):
        convert(ConvertConfig(str(source), out, ["wrist"], size=24))


def test_what_cannot_be_converted_is_refused(tmp_path):
    source, out = recorded(tmp_path / "theirs", 2), tmp_path / "ours.hdf5"
    for settings, message in (
        ({"cameras": ["top"]}, r"has no camera top: choose from front, wrist"),
        ({"fps": 60}, r"has 30 frames a second: give fps=30 or less"),
        ({"fps": 3}, r"episode 0 \(2 in all\) keeps fewer frames than the 9 of a critic's clip"),
        ({"dataset": str(tmp_path)}, r"is no dataset of LeRobot: it has no meta/info\.json"),
    ):
        with pytest.raises(InputError, match=message):
            convert(ConvertConfig(**{"dataset": str(source), "out": str(out), **settings}))
    out.write_text("mine")
    with pytest.raises(InputError, match="is there: choose another out"):
        convert(ConvertConfig(str(source), str(out)))
    assert out.read_text() == "mine"
    out.unlink()
    rows = next((source / "data").rglob("*.parquet"))
    rows.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"is no parquet file .*download it whole"):
        convert(ConvertConfig(str(source), str(out)))
    (source / "meta" / "episodes.jsonl").write_text('{"episode_index": 0, "tasks"')
    with pytest.raises(InputError, match="meta: what it says of episodes is not LeRobot's"):
        convert(ConvertConfig(str(source), str(out)))
    (source / "meta" / "info.json").write_text("{}")
    with pytest.raises(InputError, match=r"info\.json is not LeRobot's"):
        convert(ConvertConfig(str(source), str(out)))
