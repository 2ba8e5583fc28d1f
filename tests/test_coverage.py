"""How often intervals hold the truth, of few simulated studies."""

import json

import pytest

from experiments import coverage
from experiments.coverage import CoverageConfig
from wvm_rl.errors import InputError


def test_shares_are_counted_for_each_number_of_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "RESULTS", tmp_path)
    coverage.main(CoverageConfig(seeds=[2, 3], rollouts=4, repeats=4))
    (path,) = tmp_path.iterdir()
    assert path.name == "coverage-seeds-2+3-rollouts-4-repeats-4.json"
    results = json.loads(path.read_text())["results"]
    assert results.keys() == {"2", "3"}
    assert all(share in (0, 0.25, 0.5, 0.75, 1) for found in results.values() for share in found.values())
    assert all(found["rate difference"] >= 0.5 for found in results.values())


def test_impossible_studies_are_refused():
    with pytest.raises(InputError, match=r"seeds=\[1\] must be at least 2"):
        CoverageConfig(seeds=[1])
    with pytest.raises(InputError, match="runs=2 must be a standard deviation"):
        CoverageConfig(runs=2)
