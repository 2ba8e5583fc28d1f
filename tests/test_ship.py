"""Shipping a critic: its card gains the scores of this very critic, and nothing else is touched."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from experiments import readme, ship
from experiments.readme import read
from experiments.ship import ShipConfig, main
from tests.model_toy import random_critic
from tests.synthetic import dataset, episode
from wvm_rl.bench_sources import rows_of
from wvm_rl.errors import InputError
from wvm_rl.model.critic import Critic
from wvm_rl.report import report
from wvm_rl.runs import write_json
from wvm_rl.values.clock import Blind


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A trained critic, a run folder of its benchmark, and notes."""
    critic = random_critic()
    critic.card = "# World Value Model critic\n\n## Model\n\nx\n\n## Scores\n\nold\n\n## Versions\n\ny\n"
    critic.save(tmp_path / "critic")
    plain = dataset(tmp_path / "plain.hdf5", [episode(0, 200, [("retry", 60, 89)], quality="retry"), episode(1, 120)])
    clips = {("lift", "bench"): plain, ("lift", "lit"): plain}
    rows = rows_of({name: lambda task, clip, name=name: Blind(name) for name in ("reversed", "clock")}, clips, 20)
    runs = [tmp_path / "run", tmp_path / "again"]
    for seed, run in enumerate(runs, 9000):
        (run / "figures").mkdir(parents=True)
        for name in ship.FIGURES:
            (run / "figures" / name).write_bytes(b"png")
        write_json(run / "bench.json", report(rows, None, {"fps": 10, "horizon_k": 20, "seed": seed}, {}))
        pd.DataFrame(rows).to_parquet(run / "trajectories.parquet")
        origin = {"command": "python -m wvm_rl.bench", "commit": "abc", "inputs": {"critic": critic.fingerprint}}
        (run / "versions.json").write_text(json.dumps(origin))
    (tmp_path / "notes.md").write_text("Weakest on lift.\n\n<!-- table: pairs tiny -->\n\n<!-- end -->\n")
    monkeypatch.setattr(ship, "SHIPPED", tmp_path / "critics")
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    run = str(runs[0])
    settings = {"bench": [*map(str, runs)], "shifts": run, "unseen": run, "notes": str(tmp_path / "notes.md")}
    return ShipConfig(str(tmp_path / "critic"), **settings, name="tiny")


def test_a_shipped_critic_has_its_scores_in_its_card(tmp_path, config):
    main(config)
    shipped = Critic.load(tmp_path / "critics" / "tiny")
    assert shipped.fingerprint == random_critic().fingerprint
    before, scores, after = (shipped.card.index(part) for part in ("## Model", "## Scores", "## Versions"))
    assert before < scores < after and shipped.card.count("## Scores") == 1 and "old" not in shipped.card
    assert "| all | clock |" in shipped.card and "at commit `abc`" in shipped.card and "Weakest on lift" in shipped.card
    assert (tmp_path / "critics" / "tiny" / "curves.png").exists()
    for suffix in ("", "_1", "_shifts", "_unseen", "_pairs"):
        assert readme.result("tiny", suffix).exists() and read("tiny", suffix)["origin"]["commit"]
    scores = read("tiny", "")["models"]
    gap = scores["reversed"]["retry_voc"] - scores["clock"]["retry_voc"]
    assert read("tiny", "_pairs")["models"]["clock"]["retry_voc"] == pytest.approx(gap)
    assert "| seeds 9000, 9001: `tiny` minus | Hesitation-RMSE |" in shipped.card and "| clock t/T | " in shipped.card
    main(config)  # again, over itself
    assert Critic.load(tmp_path / "critics" / "tiny").card == shipped.card
    shutil.rmtree(tmp_path / "critics" / "tiny")
    Critic(replace(shipped.config, camera="elsewhere"), shipped.params).save(tmp_path / "critics" / "tiny")
    with pytest.raises(InputError, match="stays as released"):
        main(config)


def test_scores_of_another_critic_are_refused(tmp_path, config):
    path = tmp_path / "run" / "versions.json"
    path.write_text(path.read_text().replace(random_critic().fingerprint, "0" * 64))
    with pytest.raises(InputError, match="scored another critic"):
        main(config)
    assert not (tmp_path / "critics").exists()


def test_a_benchmark_that_did_not_end_is_refused(tmp_path, config):
    for name in ("trajectories.parquet", "versions.json"):
        (tmp_path / "run" / name).unlink()
        with pytest.raises(InputError, match=f"run holds no {name}"):
            main(config)
    assert not (tmp_path / "critics").exists()


def test_a_benchmark_counts_once(tmp_path, config):
    with pytest.raises(InputError, match=r"two benchmarks of one seed \(\[9000, 9000\]\)"):
        main(replace(config, bench=config.bench[:1] * 2))
    assert not (tmp_path / "critics").exists()


def test_absent_notes_are_refused(tmp_path, config):
    with pytest.raises(InputError, match=r"notes=.*absent is no file"):
        main(replace(config, notes=str(tmp_path / "absent")))
    assert not (tmp_path / "critics").exists()
