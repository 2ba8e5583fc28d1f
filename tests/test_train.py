"""The main job from end to end, small: episodes to run folder, and what it refuses."""

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import agents.acting
from agents import AGENTS, POLICIES
from agents.base import AgentConfig
from agents.trainer import TrainerConfig
from envs import camera
from envs.observations import OBSERVATIONS
from envs.tasks import TASKS
from tests.conftest import QUICK, needs_egl
from wvm_rl.config import GROUPS, EvaluationConfig, TrainConfig
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.mirror import WandbConfig
from wvm_rl.train import Job, main, pipeline
from wvm_rl.values import VALUES
from wvm_rl.values.base import Values

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture(scope="module")
def root(shared):
    return shared


def job(
    root: Path, agent: str = "awr", policy: str = "flow", fps: int | None = 0, obs: str = "state", **settings
) -> TrainConfig:
    """Four lift episodes, 20 updates, two short rollouts."""
    chosen = {
        "env": TASKS["lift"](expert_steps=20),
        "data": GROUPS["data"]["mixed"](episodes=4, fps=fps, root=str(root), workers=1),
        "value": VALUES["oracle"](),
        "evaluation": EvaluationConfig(rollouts=2, workers=1),
        "trainer": TrainerConfig(updates=20, batch=32, interval=10, warmup=2),
    }
    return TrainConfig(
        agent=AGENTS[agent](),
        policy=POLICIES[policy](width=32, layers=1),
        obs=OBSERVATIONS[obs](**({} if obs == "state" else {"size": 16, "fps": 4})),
        **(chosen | settings),
    )


def start(*overrides: str, folder: Path) -> subprocess.Popen:
    """The command line, in `folder`."""
    environment = os.environ | QUICK | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "wvm_rl.train", *overrides]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


WHOLE = {
    "seeds": 2,
    "trainer": TrainerConfig(updates=20, batch=32, interval=10, warmup=2, save_every=10),
    "evaluation": EvaluationConfig(rollouts=3, workers=1, keep=1),
}


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory, compile_quickly):
    """Folder of a finished run of two seeds, and what it printed."""
    folder, told = tmp_path_factory.mktemp("whole") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told):
        patch.setenv("WANDB_SILENT", "true")
        main(job(root, wandb=WandbConfig(mode="offline"), **WHOLE), folder)
    return folder, told.getvalue()


def test_run_folder_holds_everything(whole, root, capsys):
    folder, told = whole
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["env"], summary["agent"], summary["policy"], summary["value"]) == ("lift", "awr", "flow", "oracle")
    assert summary["rollouts"] == 6 and 0 <= summary["success_ci95"][0] <= summary["success_rate"]
    assert set(summary["wall_seconds"]) == {"episodes", "values", "policy", "rollouts"}
    assert 0 < summary["ess_fraction"] < 1
    rows = pd.read_parquet(folder / "episodes.parquet")
    assert list(rows["seed"]) == [0, 0, 0, 1, 1, 1] and list(rows["rollout"]) == [0, 1, 2, 0, 1, 2]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [10, 20] and np.isfinite(metrics[-1]["loss"])
    for name in ("config.yaml", "versions.json", "figures/value_curves.png", "checkpoints"):
        assert (folder / name).exists(), name
    assert list(folder.glob("wandb/offline-run-*"))
    assert "6 from 2 training seed(s)" in told
    kept = Dataset(folder / "rollouts.hdf5")
    (rollout,) = kept
    with pytest.raises(InputError, match="value=oracle needs `expert_steps` and recorded lapses"):
        next(VALUES["oracle"]().source().values(kept))  # nobody recorded what went wrong
    assert (len(rollout), rollout.success) == (rows["steps"][0], rows["success"][0]) and len(rollout.obs) > 5
    assert rollout.states.shape[0] == len(rollout) and rollout.instruction == TASKS["lift"]().instruction

    before = (folder / "summary.json").read_bytes()
    main(job(root, **WHOLE), folder)  # finished: shown, not run again
    assert "finished" in capsys.readouterr().out and (folder / "summary.json").read_bytes() == before


def test_a_job_cut_short_ends_as_if_it_had_not_been(whole, root, tmp_path, monkeypatch):
    """It goes on with its rollouts; another run's begin anew, even where its run left some."""
    acted, together, cut = [], agents.acting.together, tmp_path / "cut"

    def noted(acts, count, rows, stop=False):
        def act(observations, rollout, step):
            if stop and 5 in rollout:
                raise KeyboardInterrupt
            acted.extend(rollout[rollout >= 0])
            return together(acts, count, rows)(observations, rollout, step)

        return act

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("wvm_rl.evaluation.together", partial(noted, stop=True))
        main(job(root, **WHOLE), cut)
    assert not (cut / "summary.json").exists()
    kept = (cut / "rollouts.jsonl").read_text()
    monkeypatch.setattr("wvm_rl.evaluation.together", noted)
    acted.clear()
    main(job(root, **WHOLE), cut)
    assert 0 < len(set(acted)) < 6 and not (cut / "rollouts.jsonl").exists()
    assert (cut / "rollouts.hdf5").read_bytes() == (whole[0] / "rollouts.hdf5").read_bytes()
    results = [pd.read_parquet(folder / "episodes.parquet") for folder in (whole[0], cut)]
    pd.testing.assert_frame_equal(*results)
    losses = [[json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()] for folder in (whole[0], cut)]
    assert losses[0] == losses[1]

    acted.clear()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rollouts.jsonl").write_text(kept)
    main(job(root, agent="bc", **WHOLE), tmp_path / "other")
    assert set(acted) == set(range(6))


@pytest.mark.parametrize(
    ("names", "policy"),
    [
        ([name for name, agent in AGENTS.items() if not agent().conditions], "flow"),
        ([name for name, agent in AGENTS.items() if agent().conditions], "flow"),
        (["rcp"], "gaussian"),
    ],
)
def test_every_method_and_policy_runs(root, tmp_path, names, policy):
    values = {name: VALUES["clock"](shuffle=name != "bc") for name in names}
    jobs = [Job(job(root, name, policy, value=value), tmp_path / name) for name, value in values.items()]
    for name, summary in zip(names, pipeline(jobs, tmp_path / "checkpoints")):
        value = "clock" if name == "bc" else "clock (shuffled)"
        assert (summary["agent"], summary["policy"], summary["value"]) == (name, policy, value)
        assert summary["rollouts"] == 2 and 0 < summary["kept_fraction"] <= 1


@needs_egl
def test_a_policy_that_sees_pictures_runs(root, tmp_path):
    config = job(root, fps=None, obs="images")
    config.data.episodes = 2
    main(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rollouts"] == 2 and list((root / "episodes").glob("*-workspace+robot0_eye_in_hand-4fps-16-*.hdf5"))


@needs_egl
def test_the_shipped_critic_labels_and_its_curve_is_drawn_in(root, tmp_path):
    """The main job as it stands in the README, small: frames, critic, videos."""
    evaluation = EvaluationConfig(rollouts=1, workers=1, videos=1)
    config = job(root, fps=None, value=VALUES["wvm"](), evaluation=evaluation)
    config.data.episodes = 2
    main(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["value"] == "wvm" and summary["inputs"]["values"] == config.value.source().fingerprint
    (labels,) = (root / "episodes").glob("lift-mixed-2-*.wvm-*.parquet")
    progress = pd.read_parquet(labels).groupby("episode_index")["progress_sparse"]
    assert progress.first().max() < 0.3 and progress.max().max() > 0.8  # it saw real episodes
    (video,) = (tmp_path / "run" / "videos").glob("rollout_00_*.mp4")
    assert video.stat().st_size > 1000


@pytest.fixture
def weights_of(monkeypatch):
    """The weights [N] of each training seed that a job would train with."""
    seen = {}

    def spy(policy, data, statistics, columns, *rest, **more):
        seen["weights"] = [each.weight for each in columns]
        raise KeyboardInterrupt

    def weights(one: Job) -> list[np.ndarray]:
        with pytest.raises(KeyboardInterrupt):
            pipeline([one], one.folder / "checkpoints")
        return seen["weights"]

    monkeypatch.setattr("wvm_rl.train.train", spy)
    return weights


class Doubtful:
    """Time as value, and doubt about the later half of every episode."""

    name = fingerprint = "doubtful"

    def values(self, dataset, start=0):
        for index in range(start, len(dataset)):
            share = np.linspace(0, 1, len(dataset[index]), dtype=np.float32)
            yield Values(np.arange(len(share), dtype=np.int32), share, np.where(share > 0.5, 0.2, 0).astype(np.float32))


def test_a_lower_bound_trusts_the_doubtful_less(root, tmp_path, weights_of):
    plain, lowered = (
        weights_of(Job(job(root, value=VALUES["oracle"](lower=lower)), tmp_path / f"{lower}", Doubtful()))[0]
        for lower in (0.0, 1.0)
    )
    length = len(Dataset(next((root / "episodes").glob("lift-mixed-4-seed0-????????.hdf5")))[0])
    early, late = slice(0, length // 4), slice(3 * length // 4, length - 1)
    assert np.ptp(plain[early]) < 1e-3 and lowered[late].max() < plain[late].min() < lowered[early].min()


class Flat(Doubtful):
    """The same value always."""

    name = fingerprint = "flat"

    def values(self, dataset, start=0):
        for each in super().values(dataset, start):
            yield Values(each.step, 0 * each.value, None)


def test_values_without_ranking_are_warned_of(root, tmp_path, weights_of, capsys):
    for source, agent, warned in ((Flat(), "awr", True), (Flat(), "bc", False), (None, "awr", False)):
        weights_of(Job(job(root, agent), tmp_path / f"{source}-{agent}", source))
        assert ("the values carry no ranking information" in capsys.readouterr().err) == warned


def test_what_would_change_nothing_is_refused(root, tmp_path):
    for name, given in (("shuffle", True), ("scale", "rank"), ("lower", 1.0)):
        with pytest.raises(InputError, match=f"value.{name}={given}: this agent does not read advantages"):
            Job(job(root, "bc", value=VALUES["clock"](**{name: given})), tmp_path / "run")
    with pytest.raises(InputError, match=r"value\.scale=rank: this agent reads only sign and order of advantages"):
        Job(job(root, "rcp", value=VALUES["clock"](scale="rank")), tmp_path / "run")
    with pytest.raises(InputError, match="does not read advantages"):
        Job(replace(job(root, value=VALUES["clock"](shuffle=True)), agent=AGENTS["rcp"](condition="return")), tmp_path)
    with pytest.raises(InputError, match=r"obs\.size=128 is of pictures"):
        OBSERVATIONS["state"](size=128)


def test_videos_that_cannot_be_made_are_refused_before_training(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    monkeypatch.setattr(camera, "_GRAPHICS", camera._Graphics())
    filming = EvaluationConfig(rollouts=2, workers=1, videos=1)
    with pytest.raises(InputError, match="no OpenGL to render with"):
        main(job(root, evaluation=filming), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_shuffles_differ_between_training_seeds(root, tmp_path, weights_of):
    one, other = weights_of(Job(job(root, value=VALUES["oracle"](shuffle=True), seeds=2), tmp_path / "run"))
    assert not np.array_equal(one, other) and np.array_equal(np.sort(one), np.sort(other))


def test_a_folder_of_another_run_is_neither_shown_nor_continued(whole, root):
    folder, _ = whole
    content = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"holds a run with seeds=2, now it is 1: choose another folder"):
        main(job(root, **WHOLE | {"seeds": 1}), folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match="input values=oracle-1, now it is oracle-2"),
    ):
        patch.setattr("wvm_rl.values.oracle.Oracle.fingerprint", "oracle-2")
        main(job(root, **WHOLE), folder)
    assert content == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_condition_that_nobody_asks_for_is_refused(root, tmp_path, monkeypatch):
    """Else a policy would act on what it never learned."""
    monkeypatch.setattr(AGENTS["rcp"], "act_cond", AgentConfig.act_cond)
    with pytest.raises(InputError, match="RCPConfig: columns, act_cond and conditions must all tell of one, or none"):
        pipeline([Job(job(root, "rcp"), tmp_path / "run")], tmp_path / "checkpoints")


def test_a_killed_job_ends_as_if_it_had_not_been(root, tmp_path):
    """SIGKILL of the whole process after its first checkpoint."""
    overrides = ["value=oracle", "data.episodes=4", "data.fps=0", "data.workers=1", f"data.root={root}"]
    overrides += ["policy.width=32", "trainer.updates=40", "trainer.interval=5", "trainer.save_every=5"]
    overrides += ["evaluation.rollouts=1", "evaluation.workers=1", "env.expert_steps=20"]
    for name in ("whole", "cut"):
        process = start(*overrides, f"hydra.run.dir={name}", folder=tmp_path)
        if name == "cut":
            deadline = time.monotonic() + 300
            while not list((tmp_path / "cut" / "checkpoints").glob("step_*")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.002)
            process.kill()
            process.communicate()
            assert not (tmp_path / "cut" / "summary.json").exists()
            kept = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()[0]
            process = start(*overrides, f"hydra.run.dir={name}", folder=tmp_path)
        process.communicate()
        assert process.returncode == 0
    results = [pd.read_parquet(tmp_path / name / "episodes.parquet") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*results)
    losses = [
        [(row["step"], row["loss"]) for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open())]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8
    assert (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()[0] == kept  # not trained again


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agent=awl", "awr"),
        ("env=lft", "lift"),
        ("sead=1", "unknown key 'sead'"),
        ("agent.tau=-1", "agent.tau"),
        ("data.episodes=0", "data.episodes=0"),
        ("evaluation.rollouts=many", "evaluation.rollouts"),
        ("data.recipe.shares.expert=0.9", "add up to 1"),
        ("env.expert_steps=0", "env.expert_steps=0"),
        ("evaluation.seed=5000000000", "evaluation.seed=5000000000"),
        ("seed=4294967296", "seed=4294967296"),
        ("+data.recipe.colour=red", "unknown key 'data.recipe.colour'"),
        ("data.fps=0", "value=wvm reads 5 frames a second"),
        ("value.critic=absent", "critic=absent is neither a folder nor a shipped critic: tiny"),
        ("data=file", "data.path has no default: give data.path=..."),
        ("match_ess=1.5", "match_ess=1.5"),
        ("hydra.run.dir=/dev/null/run", "cannot be made"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_bad_input_is_one_line_and_leaves_nothing(override, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wvm_rl.train", override])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("wvm_rl.train", run_name="__main__", alter_sys=True)
    error = capfd.readouterr().err
    assert end.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


def test_a_process_ends_with_status_2_and_one_line(tmp_path):
    process = start("agent=awl", folder=tmp_path)
    error = process.communicate()[1]
    assert process.returncode == 2 and error.startswith("error: ") and error.count("\n") == 1


TINY = (
    "env.expert_steps=20 data.episodes=4 data.fps=0 data.workers=1 value=oracle policy.width=32 policy.layers=1 "
    "trainer.updates=20 trainer.interval=10 trainer.warmup=2 evaluation.rollouts=2 evaluation.workers=1"
)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_cell_runs_in_a_process_of_hydras_launchers(launcher, root, tmp_path):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher", reason="requirements-launchers.txt")
    overrides = ["-m", f"hydra/launcher={launcher}", "agent=bc", f"data.root={root}", *TINY.split()]
    process = start(*overrides, folder=tmp_path)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert len(list(tmp_path.glob("runs/*/summary.json"))) == 1


@pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is here")
def test_of_hydras_launchers_slurms_ends_with_one_line_where_there_is_none(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="requirements-launchers.txt")
    process = start("-m", "hydra/launcher=submitit_slurm", "seed=0,1", folder=tmp_path)
    error = process.communicate()[1]
    assert process.returncode == 2 and error.startswith("error: ") and error.count("\n") == 1
