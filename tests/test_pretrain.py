"""Pretraining: resume equals an uninterrupted run, finished stages are reused, NaN stops it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import QUICK
from tests.model_toy import corpus, small, stages
from wvm_rl import cli, pretrain
from wvm_rl.data.windows import Windows, WindowsConfig
from wvm_rl.errors import InputError
from wvm_rl.footage import FOOTAGE
from wvm_rl.model import stages as module
from wvm_rl.model.critic import Critic
from wvm_rl.model.fit import Metrics, fit
from wvm_rl.model.initial import PretrainedConfig
from wvm_rl.model.pool import CHUNK_WINDOWS, fill, shuffled_rows
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.stage import Stage
from wvm_rl.model.stages import Stages, train
from wvm_rl.model.training import FitConfig, Training

LINE = FitConfig(steps=60, batch=4, learning_rate=0.2, warmup=5, average=0.5, save_every=20)


pytestmark = pytest.mark.usefixtures("compile_quickly")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def line(folder, stop_at=None, poison_at=None, config=LINE):
    """Fits y = 3x with noise; dies or meets a NaN at a step."""

    def batches(step):
        if step == stop_at:
            raise Killed
        x = np.random.default_rng(step).normal(size=config.batch).astype(np.float32)
        return {"x": x * (np.nan if step == poison_at else 1.0)}

    def loss(params, batch, key):
        noise = 0.1 * jax.random.normal(key, batch["x"].shape)
        value = ((params["w"] * batch["x"] - params["slope"] * batch["x"] - noise) ** 2).mean()
        return value, {"loss": value}

    def start():
        return {"w": jnp.zeros(()), "slope": jnp.float32(3.0)}

    training = Training(loss, config, 0)
    return fit("line", training, start, batches, folder, {"line": 1}, trains=lambda name: name == "w")


def rows(folder):
    content = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "samples_per_second"} for row in content]


def test_resume_equals_an_uninterrupted_fit(tmp_path):
    whole = line(tmp_path / "whole")
    assert abs(whole["w"] - 3) < 0.5 and whole["slope"] == 3.0
    for stop in (33, 47):
        with pytest.raises(Killed):
            line(tmp_path / "cut", stop_at=stop)
    np.testing.assert_array_equal(line(tmp_path / "cut")["w"], whole["w"])
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_the_running_mean_is_released(tmp_path):
    """decay = min(average, (1 + step) / (10 + step)): 1/10 after the first update, 2/11 after the second."""
    two = replace(LINE, steps=2, warmup=0)
    last, released = (line(tmp_path / str(mean), config=replace(two, average=mean))["w"] for mean in (0.0, 0.5))
    one = line(tmp_path / "one", stop_at=None, config=replace(two, steps=1, average=0.0, final=1.0))["w"]
    mean = 0.9 * one
    assert released == pytest.approx(2 / 11 * mean + 9 / 11 * last, rel=1e-5) != pytest.approx(float(last), rel=1e-3)


def test_another_seed_of_the_model_shares_all_that_comes_before(tmp_path):
    class Rows:
        def __len__(self):
            return 1000

        def batch(self, rows):
            return {"rows": rows}

    one, other = (Stages(stages(model_seed=seed), corpus(), tmp_path) for seed in (0, 1))
    same = {name for name, stage in one.stages.items() if stage.folder == other.stages[name].folder}
    assert same == {"vae", "pool"}
    drawn = [made._batches(Rows())(3)["rows"].tolist() for made in (one, other)]
    assert drawn[0] != drawn[1]


def test_nan_stops_with_the_step_and_keeps_a_sound_checkpoint(tmp_path):
    with pytest.raises(InputError, match="line: loss is nan at step 40"):
        line(tmp_path, poison_at=33)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000000020"]
    assert rows(tmp_path)[-1]["step"] == 20


def test_foreign_checkpoint_is_refused(tmp_path):
    line(tmp_path)
    with pytest.raises(InputError, match="belongs to another run"):
        fit("line", Training(lambda *_: None, LINE, 0), lambda: {"v": jnp.zeros(2)}, None, tmp_path, {"line": 1})


def test_metrics_forget_half_written_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path, "a", 0)
    first.add(20, {"loss": 1.0})
    first.add(40, {"loss": 0.5})
    with path.open("a") as file:
        file.write('{"stage": "a", "st')
    Metrics(path, "a", 20)
    assert [json.loads(row)["step"] for row in path.read_text().splitlines()] == [20]


def test_every_epoch_visits_the_pool_once():
    seen = np.concatenate([shuffled_rows(10, 0, step, 4) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:])
    np.testing.assert_array_equal(shuffled_rows(10, 0, 3, 4), seen[12:16])


def test_interrupted_pool_equals_a_whole_one(tmp_path):
    windows = Windows(corpus().training, WindowsConfig(), 0)
    calls = []

    def encode(frames, die_at=None):
        calls.append(len(frames))
        if len(calls) == die_at:
            raise Killed
        return np.repeat(frames[:, ::4, :1, :1, :1], 1, -1).astype(np.float32) / 255

    arguments = (2 * CHUNK_WINDOWS + 1, (1, 1, 1), {"seed": 0})
    whole = fill(tmp_path / "whole", windows, encode, *arguments)
    assert len(whole) == 3 * CHUNK_WINDOWS
    calls.clear()
    with pytest.raises(Killed):
        fill(tmp_path / "cut", windows, lambda frames: encode(frames, die_at=2), *arguments)
    resumed = fill(tmp_path / "cut", windows, encode, *arguments)
    assert len(calls) == 4  # one done, one died, two more
    for name in ("latents", "values", "instructions"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(resumed, name))
    with pytest.raises(InputError, match="pool of other windows"):
        fill(tmp_path / "cut", windows, encode, *arguments[:2], {"seed": 1})


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.conftest import QUICK
from tests.model_toy import corpus, small
from wvm_rl.model import stages

made, folder = stages.shuffled_rows, Path(sys.argv[1])
def rows(size, seed, step, batch):
    if step == 22:  # between two checkpoints
        os.kill(os.getpid(), signal.SIGKILL)
    return made(size, seed, step, batch)
stages.shuffled_rows = rows
stages.train(stages.Stages(small(), corpus(), folder))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    """All stages trained without a stop: folder, critic, scores and the steps made."""
    folder, steps, rows = tmp_path_factory.mktemp("whole"), [], module.shuffled_rows

    def rows_of(size, seed, step, batch):
        steps.append(step)
        return rows(size, seed, step, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "shuffled_rows", rows_of)
        critic, scores = train(Stages(small(), corpus(), folder))
    return folder, critic, scores, steps


def encoded(whole, folder):
    """A copy of everything before the last stage."""
    return shutil.copytree(whole[0], folder / "copy", ignore=shutil.ignore_patterns("wvm-*"))


@pytest.fixture(scope="module")
def begun(whole, tmp_path_factory):
    """The folder that a SIGKILL in the last stage left; copy it to go on."""
    folder = encoded(whole, tmp_path_factory.mktemp("begun"))
    command = [sys.executable, "-c", KILLED, str(folder)]
    killed = subprocess.run(command, env=os.environ | QUICK | {"PYTHONPATH": "."}, cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    return folder


def test_killed_stages_resume_to_the_same_critic_and_are_made_once(whole, begun, tmp_path, monkeypatch):
    """Trained without a stop, then on after a kill, then not at all."""
    _, critic, scores, made = whole
    assert scores["wvm step"] == 24 and np.isfinite(scores["wvm held_out_rmse"]) and made == list(range(24))

    folder, steps = shutil.copytree(begun, tmp_path / "copy"), []

    def rows_of(size, seed, step, batch):
        steps.append(step)
        return shuffled_rows(size, seed, step, batch)

    monkeypatch.setattr(module, "shuffled_rows", rows_of)
    for expected in (list(range(20, 24)), []):
        steps.clear()
        resumed, _ = train(Stages(small(), corpus(), folder))
        assert steps == expected and resumed.fingerprint == critic.fingerprint
    (pool,) = folder.glob("pool-*")
    (pool / "training" / "latents.npy").unlink()
    with pytest.raises(InputError, match=r"lacks latents\.npy: remove the folder"):
        Stages(small(), corpus(), folder).pools({}, critic.config.latents)
    shutil.rmtree(pool)
    assert train(Stages(small(), corpus(), folder))[0].fingerprint == critic.fingerprint and not pool.exists()


def test_trainings_that_share_a_stage_make_it_once(whole, tmp_path):
    """Another one that asks while it is being made waits and reads it."""
    stage, params = Stage("vae", {}, tmp_path), whole[1].part("vae")
    shapes = {name: value.shape for name, value in params.items()}
    with ThreadPoolExecutor() as pool:
        waiting = []

        def make():
            waiting.append(pool.submit(stage.kept, lambda: pytest.fail("made twice"), shapes))
            time.sleep(0.5)
            assert not waiting[0].done()
            return params

        first = stage.kept(make, shapes)
        second = waiting[0].result(timeout=60)
    for name, value in params.items():
        np.testing.assert_array_equal(first[name], value)
        np.testing.assert_array_equal(second[name], value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.fps=2", "data.fps=2: the critic reads 5 frames"),
        ("data=file", "data.paths has no default"),
        ("data=file data.paths=[absent.hdf5]", "absent.hdf5: no such dataset"),
        ("mantissa=11", "choose 1 to 10"),
        ("pretrained.critic=tini", "neither a folder nor a shipped critic"),
        ("pretrained.path=absent", "absent"),
        ("mesh.fsdp=7", "fsdp"),
        ("wvm=wan2.2-ti2v-5b", "no precomputed text embeddings"),
        ("out=full", "holds no critic"),
        ("wvm.vae.dim_mult=[1,2,4]", "dim_mult=[1, 2, 4]: widths of neighbouring levels"),
        ("wvm.size=-96", "size=-96 must be a multiple of 32"),
        ("wvm.transformer.freq_dim=65", "freq_dim=65 must be even"),
        ("seed=4294967296", "seed=4294967296 + 1000 model_seed=0 must be below"),
        ("out=full/thesis.tex", "is a file"),
        ("out=/dev/null/critic", "/dev/null"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_collecting(override, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("all of it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pretrain", *override.split()])
    with pytest.raises(SystemExit) as ended:
        cli.run(pretrain.main, pretrain.PretrainConfig, {"wvm": PRESETS, "data": FOOTAGE})
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1 and message in told, told
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def hosts(root: Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.two_hosts", str(root), str(port), str(index)],
            env=os.environ | QUICK,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def test_two_processes_train_what_one_does(whole, begun, tmp_path):
    """Two hosts that share the parameters go on from one's checkpoint, end where one ends, and one reads theirs."""
    two = shutil.copytree(begun, tmp_path / "two")
    (folder,) = two.glob("wvm-*")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000020"]
    ended = [(process.communicate(timeout=600), process.returncode) for process in hosts(two)]
    assert [code for _, code in ended] == [0, 0], ended
    (made,) = {output.splitlines()[-1] for (output, _), _ in ended}  # both hold the same critic

    found = load_file(folder / "params.safetensors")
    for name, value in whole[1].part("wvm").items():
        np.testing.assert_allclose(found[name], value, atol=2e-4 * max(1.0, float(np.abs(value).max())))
    (one,) = whole[0].glob("wvm-*")
    for found, expected in zip(rows(folder), rows(one), strict=True):
        assert found.pop("stage") == expected.pop("stage")
        assert found == pytest.approx(expected, rel=1e-5)  # loss and norm of the gradient, means over steps
    (folder / "params.safetensors").unlink()
    assert train(Stages(small(), corpus(), two))[0].fingerprint == made


def test_the_video_stream_learns_first_and_stays_frozen(whole, tmp_path):
    """On the windows of the other trainings; the video loss moves video and text, then the value's moves its stream."""
    config = replace(small(), model=replace(small().model, steps=20, average=0.0), video_steps=20, frozen=True)
    made = Stages(config, corpus(), encoded(whole, tmp_path))
    critic, scores = train(made)
    assert scores["video step"] == scores["wvm step"] == 20
    assert made.commits().keys() == {"vae", "video", "wvm"} and all(made.commits().values())
    (folder,) = (tmp_path / "copy").glob("video-*")
    first, ended = load_file(folder / "params.safetensors"), critic.part("wvm")
    fresh = Stages(config, corpus(), tmp_path).model.graph.init(1)
    for name, value in ended.items():
        np.testing.assert_array_equal(first[name], fresh[name] if name.startswith("value.") else value)
    moved = [name for name in ended if not np.array_equal(ended[name], fresh[name])]
    assert any(name.startswith("video.") for name in moved) and any(name.startswith("value.") for name in moved)
    with pytest.raises(InputError, match="frozen=true needs video_steps"):
        replace(config, video_steps=0)


def test_a_critic_learns_to_see_the_first_frame(whole, tmp_path):
    """From the streams of one that never saw it, whose VAE it keeps."""
    whole[1].save(tmp_path / "critic")
    preset = replace(small().wvm, first_frame=True)
    pretrained = PretrainedConfig(critic=str(tmp_path / "critic"))
    config = replace(small(), wvm=preset, pretrained=pretrained, model=replace(small().model, steps=20))
    with pytest.raises(InputError, match=r"which learned with wvm\.first_frame=false"):
        Stages(replace(config, frozen=True), corpus(), tmp_path)
    critic, scores = train(Stages(config, corpus(), tmp_path))
    assert critic.config.model.first_frame and np.isfinite(scores["wvm held_out_rmse"])
    (pool,) = tmp_path.glob("pool-*")
    assert np.load(pool / "training" / "latents.npy", mmap_mode="r").shape[1] == 3
    critic.save(tmp_path / "watching")
    assert Critic.load(tmp_path / "watching").fingerprint == critic.fingerprint
