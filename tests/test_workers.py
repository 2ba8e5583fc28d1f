"""Worker processes: what they inherit, how they fail, that they end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs.workers import ENVIRONMENT, Workers, _quotas, cores
from wvm_rl.errors import InputError


def build(prefix: str):
    """A worker for these tests: obeys commands."""

    def answer(message):
        command, value = message
        if command == "say":
            return f"{prefix} {value}"
        if command == "modules":
            return [name for name in value if name in sys.modules]
        if command == "environment":
            return {name: os.environ.get(name) for name in value}
        if command == "die":
            os.kill(os.getpid(), value)
        if command == "sleep":
            time.sleep(value)
        if command == "refuse":
            raise InputError(value)
        raise ZeroDivisionError(value)

    return answer


def ask(workers: Workers, *message, worker: int = 0):
    workers.send(worker, message)
    return workers.receive()[1]


def test_messages_are_shared_out_and_answered():
    with Workers(build, ("hello",), 2) as workers:
        answers = dict(workers.map([("say", number) for number in range(5)]))
    assert answers == {("say", number): f"hello {number}" for number in range(5)}
    assert not multiprocessing.active_children()


def test_workers_are_single_threaded_and_the_parent_keeps_its_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with Workers(build, ("",), 1) as workers:
        assert ask(workers, "environment", list(ENVIRONMENT)) == ENVIRONMENT
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_workers_do_not_import_what_the_main_module_imports(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import colorsys\n"
        "from envs.workers import Workers\n"
        "from tests.test_workers import build\n"
        "with Workers(build, ('',), 1) as workers:\n"
        "    workers.send(0, ('modules', ['colorsys', 'jax', 'envs.workers']))\n"
        "    print(workers.receive()[1])\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, script], cwd=root, env=os.environ | {"PYTHONPATH": "."}, capture_output=True)
    assert done.stdout.decode().strip() == "['envs.workers']", done.stderr.decode()


def test_errors_arrive_with_their_traceback_and_input_errors_as_they_are():
    with Workers(build, ("",), 1) as workers:
        with pytest.raises(RuntimeError, match=r"worker 0 failed(.|\n)*test_workers.py(.|\n)*ZeroDivisionError: why"):
            ask(workers, "fail", "why")
        with pytest.raises(InputError, match=r"^key=3 is wrong$"):
            ask(workers, "refuse", "key=3 is wrong")
        assert ask(workers, "say", "still here") == " still here"


def test_a_killed_worker_is_named():
    with Workers(build, ("",), 2) as workers:
        pid = workers.pids[1]
        with pytest.raises(InputError, match=rf"worker 1 \(process {pid}\) died \(killed by SIGKILL\)"):
            ask(workers, "die", signal.SIGKILL, worker=1)


def test_a_silent_worker_is_given_up():
    silence = pytest.raises(InputError, match=r"worker 0 .* gave no answer in 1 s")
    with Workers(build, ("",), 1, timeout=1.0) as workers, silence:
        ask(workers, "sleep", 60)
    assert not multiprocessing.active_children()


def test_workers_end_with_a_killed_parent():
    script = (
        "from envs.workers import Workers\n"
        "from tests.test_workers import build\n"
        "workers = Workers(build, ('',), 1)\n"
        "workers.send(0, ('say', 'up')); workers.receive()\n"
        "workers.send(0, ('sleep', 60)); print(workers.pids[0], flush=True); workers.receive()\n"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_as_many_workers_as_cores_that_may_be_used():
    """A process that is bound to one core, as by a cluster's scheduler, has one."""
    allowed, before = os.sched_getaffinity(0), cores()
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == before <= len(allowed)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_a_container_may_have_less_time_than_cores(files, quota, tmp_path):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert min(_quotas(tmp_path)) == quota
