"""The main job from end to end, small: episodes to run folder, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS, POLICIES
from agents.trainer import TrainerConfig
from envs.recipes import Mixed
from envs.tasks import TASKS
from wvm_rl.config import DataConfig, EvaluationConfig, TrainConfig
from wvm_rl.runs import WandbConfig
from wvm_rl.train import main
from wvm_rl.values import VALUES


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def job(root: Path, agent: str = "awr", **settings) -> TrainConfig:
    """Four lift episodes without frames, 20 updates, two short rollouts."""
    data = DataConfig(episodes=4, fps=0, root=str(root), workers=1, recipe=Mixed())
    chosen = {"trainer": TrainerConfig(updates=20, interval=10, warmup=2), "wandb": WandbConfig()} | settings
    return TrainConfig(
        env=TASKS["lift"](expert_steps=20),
        agent=AGENTS[agent](),
        policy=POLICIES["flow"](width=32, layers=1),
        value=VALUES["oracle"](),
        data=data,
        evaluation=EvaluationConfig(rollouts=2, workers=1),
        **chosen,
    )


def test_run_folder_holds_everything(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    main(job(root, seeds=2, wandb=WandbConfig(mode="offline")), folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["env"], summary["agent"], summary["policy"], summary["value"]) == ("lift", "awr", "flow", "oracle")
    assert summary["rollouts"] == 4 and 0 <= summary["success_ci95"][0] <= summary["success_rate"]
    assert set(summary["wall_seconds"]) == {"episodes", "values", "policy", "rollouts"}
    assert 0 < summary["ess_fraction"] < 1
    rows = pd.read_parquet(folder / "episodes.parquet")
    assert list(rows["seed"]) == [0, 0, 1, 1] and list(rows["rollout"]) == [0, 1, 0, 1]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [10, 20] and np.isfinite(metrics[-1]["loss"])
    for name in ("config.yaml", "versions.json", "figures/value_curves.png", "checkpoints"):
        assert (folder / name).exists(), name
    assert list(folder.glob("wandb/offline-run-*"))
    assert "success" in capsys.readouterr().out

    before = (folder / "summary.json").read_bytes()
    main(job(root, seeds=2), folder)  # finished: shown, not run again
    assert "finished" in capsys.readouterr().out and (folder / "summary.json").read_bytes() == before


def test_a_job_cut_short_ends_as_if_it_had_not_been(root, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trainer = TrainerConfig(updates=20, interval=10, warmup=2, save_every=10)
    main(job(root, trainer=trainer), whole)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("wvm_rl.train.evaluate", interrupted)
        main(job(root, trainer=trainer), cut)
    assert not (cut / "summary.json").exists()
    main(job(root, trainer=trainer), cut)
    results = [pd.read_parquet(folder / "episodes.parquet") for folder in (whole, cut)]
    pd.testing.assert_frame_equal(*results)
    losses = [[json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()] for folder in (whole, cut)]
    assert losses[0] == losses[1]


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
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(override, message, tmp_path):
    repository = Path(__file__).parents[1]
    command = [sys.executable, "-m", "wvm_rl.train", override]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert not list(tmp_path.iterdir())
