"""The command line: keys of open mappings, sweeps with a refused job, interruption."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from wvm_rl import cli
from wvm_rl.errors import InputError


@dataclass
class Job:
    """A job of one number, and names of files."""

    files: dict[str, str] = field(default_factory=dict)
    count: int = 1


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs a command line; returns the jobs that it gave, and the status that it ended with."""

    def run(*arguments, refused=()):
        given = []

        def main(job):
            if job.count in refused:
                raise InputError(f"count={job.count} is refused")
            if job.count == 0:
                raise TypeError("a bug")
            if job.count == -2:
                raise BrokenPipeError("of a worker")
            if job.count < 0:
                raise KeyboardInterrupt
            given.append(job)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["job", *arguments])
        try:
            cli.run(main, Job, {"kind": {"plain": Job}})
        except SystemExit as end:
            return given, end.code
        return given, 0

    return run


def test_a_mapping_takes_new_keys(command, capsys):
    assert command("files.mine=a.parquet", "count=2") == ([Job({"mine": "a.parquet"}, 2)], 0)
    assert command("+other=1") == ([], 2)
    assert capsys.readouterr().err == "error: unknown key 'other': --help shows all\n"


def test_a_refused_job_of_a_sweep_leaves_the_others(command, capsys):
    given, status = command("-m", "count=1,2,3,0,4", refused=(2, 3))
    assert [job.count for job in given] == [1, 4] and status == 2
    out, error = capsys.readouterr()
    assert "# job 2 is refused: count=3 is refused\n" in out
    assert "error: count=2 is refused\n" in error and "TypeError: a bug" in error


def test_only_folders_below_the_working_folder_are_removed(tmp_path, monkeypatch):
    for place in ("work/runs/a", "theirs/out/a"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    cli._remove_empty(Path("runs/a"), parents=True)
    cli._remove_empty(tmp_path / "theirs" / "out" / "a", parents=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "theirs", "work"]


def test_an_interruption_is_one_line(command, capsys):
    assert command("count=-1") == ([], 130) and capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_is_gone_is_no_error(command, monkeypatch):
    with pytest.raises(BrokenPipeError, match="of a worker"):
        command("count=-2")
    gone, pipe = os.pipe()
    os.close(gone)
    with os.fdopen(pipe, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert command("count=-2") == ([], 1)


def test_a_field_that_hydra_cannot_hold_is_named(command, capsys, monkeypatch):
    @dataclass
    class Odd:
        """Odd."""

        kind: Literal["soft", "hard"] = "soft"

    with pytest.raises(SystemExit):
        monkeypatch.setattr("sys.argv", ["job"])
        cli.run(lambda config: None, Odd, {"agent": {"odd": Odd}})
    told = capsys.readouterr().err
    assert told.startswith("error: agent=odd: Odd has a field that Hydra cannot hold: ") and told.count("\n") == 1


def test_a_group_is_never_null(command, capsys):
    assert command("+kind=NULL")[1] == 2
    capsys.readouterr()
    assert command("kind=plain,null", "-m") == ([], 2)
    assert capsys.readouterr().err == "error: kind=plain,null: a group is never null, choose from plain\n"
