"""The bookkeeping of studies of critics: what is run, what is kept, and the tables."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from experiments import ablations, cells, unseen_task
from experiments.ablations import AblationsConfig, main
from experiments.cells import SCORES
from wvm_rl.errors import InputError


def trajectories(shift):
    """Two hesitations at true values 0.3 and 0.4, predicted to be higher by a hundredth of `shift`."""
    steps = np.arange(4)
    row = {"task": "lift", "kind": "hesitation", "first": 0, "last": 3, "step": steps}
    truths = [np.full(4, 0.3), np.full(4, 0.4)]
    return [row | {"truth": truth, "value": truth + shift / 100} for truth in truths]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands given, each of which leaves what the real one would."""
    given = []

    def run(module, *settings):
        given.append((module, settings))
        options = dict(setting.split("=", 1) for setting in settings)
        folder = tmp_path / options.get("out", options.get("hydra.run.dir"))
        folder.mkdir(parents=True)
        if module == "wvm_rl.pretrain":
            (folder / "config.json").write_text("{}")
        else:
            content = dict.fromkeys(SCORES, float(len(given))) | {
                "critic": f"abc{len(given)}",
                "retry_voc": None,
            }  # no retries
            (folder / "bench.json").write_text(json.dumps(content))
            pd.DataFrame(trajectories(len(given))).to_parquet(folder / "trajectories.parquet")
            (folder / "versions.json").write_text(json.dumps({"commit": "c0ffee"}))

    monkeypatch.setattr(cells, "run_module", run)
    for module, name in ((ablations, "ablations"), (unseen_task, "unseen_task")):
        monkeypatch.setattr(module, "CELLS", cells.Cells(name, tmp_path, tmp_path / "runs"))
    return given


def test_a_training_that_two_machines_make_alike_counts_once(tmp_path, commands):
    for machine in ("here", "there"):
        main(AblationsConfig(variants=["full", "p0"], seeds=1, steps=400, machine=machine))
    for record in (tmp_path / "ablations" / "there").glob("*.json"):
        shutil.copy(tmp_path / "ablations" / "here" / record.name, record)
    main(AblationsConfig(steps=400, run=False))
    text = (tmp_path / "ablations-steps-400.md").read_text()
    assert "| full | the recipe | 1 | 2.000 |" in text and "| p0 | 1 | +0.020" in text


def test_finished_cells_are_kept(tmp_path, commands, capsys):
    config = AblationsConfig(variants=["full", "video_frozen"], seeds=2, steps=400, machine="here")
    main(config)
    assert [module for module, _ in commands] == ["wvm_rl.pretrain", "wvm_rl.bench"] * 4
    assert {"video_steps=200", "frozen=true", "model.steps=200", "model_seed=1"} <= set(commands[-2][1])
    assert "model.steps=400" not in commands[-2][1]
    shutil.rmtree(tmp_path / "runs")  # as in a fresh clone: the records are enough
    main(config)
    assert len(commands) == 8
    found = json.loads((tmp_path / "ablations-steps-400.json").read_text())
    assert [seed["hesitation_rmse"] for seed in found["variants"]["full"].values()] == [2, 6]
    text = (tmp_path / "ablations-steps-400.md").read_text()
    assert "| full | the recipe | 2 | 4.000 ± 2.828 | - | 4.000" in text and "- cells at: c0ffee" in text
    # Cells 4 and 8 after 2 and 6; no retries.
    assert "| video_frozen | 2 | +0.020 [+0.020, +0.020] ± 0.000 | - |" in text
    assert "video_frozen" in capsys.readouterr().out
    main(AblationsConfig(variants=["video_frozen"], seeds=1, steps=400, machine="there"))  # it has no recipe of its own
    text = (tmp_path / "ablations-steps-400.md").read_text()
    assert "| video_frozen | half" in text and "| 3 | 7.333 ± 3.055 |" in text and "Machines: here, there;" in text
    assert "| video_frozen | 2 | +0.020" in text
    main(AblationsConfig(variants=["full"], seeds=1, steps=400, machine="there"))
    text = (tmp_path / "ablations-steps-400.md").read_text()
    assert "| video_frozen | 3 | +0.007 [+0.007, +0.007] ± 0.023 |" in text
    assert len(commands) == 12
    main(
        AblationsConfig(variants=["full"], seeds=1, steps=400, machine="here")
    )  # what was finished stays in the tables
    assert "| video_frozen | 3 |" in (tmp_path / "ablations-steps-400.md").read_text()
    main(AblationsConfig(variants=["half"], seeds=1, steps=400, machine="here"))
    text = (tmp_path / "ablations-steps-400.md").read_text()
    assert "| video_frozen | 1 | -0.100" in text[text.index("| minus half |") :]  # cell 4 after cell 14
    with pytest.raises(InputError, match="no finished cell"):
        main(AblationsConfig(variants=["full"], seeds=1, steps=600, run=False))
    assert len(commands) == 14


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="unknown third: choose from full"):
        AblationsConfig(variants=["third"])
    for settings, message in (
        ({"steps": 200}, "steps=200 must be at least 202"),  # half of them is no more than the warm-up
        ({"episodes": 3}, "episodes=3"),
        ({"machine": "a/b"}, "machine=a/b must be a plain name"),
        ({"machine": ""}, "machine= must be"),
        ({"machine": ".."}, r"machine=\.\. must be"),
        ({"seeds": 0}, "seeds=0"),
    ):
        with pytest.raises(InputError, match=message):
            AblationsConfig(**settings)
    with pytest.raises(InputError, match="machine=<name> must name this machine"):
        main(AblationsConfig())


def test_a_left_out_task_is_in_no_training(tmp_path, commands):
    unseen_task.main(unseen_task.UnseenTaskConfig(tasks=["can", "milk"], machine="here"))
    trained = [settings[0] for module, settings in commands if module == "wvm_rl.pretrain"]
    assert trained == [
        "data.tasks=[lift,bread,cereal,milk,stack]",
        "data.tasks=[lift,can,bread,cereal,milk,stack]",
        "data.tasks=[lift,can,bread,cereal,stack]",
    ]
    unseen_task.main(unseen_task.UnseenTaskConfig(tasks=["milk"], machine="here"))
    found = json.loads((tmp_path / "unseen_task.json").read_text())["tasks"]
    assert found["can"]["here"]["unseen"] != found["can"]["here"]["seen"]
    text = (tmp_path / "unseen_task.md").read_text()
    assert "| milk | unseen | 1 |" in text and "| can | 1 | -0.020 [" in text
    unseen_task.main(unseen_task.UnseenTaskConfig(tasks=["milk"], machine="there"))  # a pair of its own
    text = (tmp_path / "unseen_task.md").read_text()
    assert "| milk | seen | 2 |" in text and "| can | seen | 1 |" in text and "Machines: here, there;" in text
