"""Worker processes: spawned, single-threaded, without JAX; their deaths and errors are reported, not waited for."""

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wvm_rl.errors import InputError

# Simulation is serial and the workers share the cores: no thread pools inside them. LP_*: Mesa's software renderer.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
    "MUJOCO_GL": "disable",  # `import mujoco` must not look for OpenGL; cameras ask for EGL themselves
}
SHUTDOWN = 5.0  # s a worker has to leave before it is killed


def cores() -> int:
    """Cores that this process may run on: a cluster's job or a container may have fewer than the machine."""
    return max(1, int(min(len(os.sched_getaffinity(0)), *_quotas())))


def _quotas(root: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """Cores' worth of time that a container may use, of either version of cgroups; infinite if it is not limited."""
    yield float("inf")
    with suppress(OSError, ValueError):
        given, period = (root / "cpu.max").read_text().split()
        yield float(given) / float(period)
    with suppress(OSError, ValueError):
        given, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        yield float(given) / float(period) if float(given) > 0 else float("inf")


class Workers:
    """A fixed number of processes, each answering messages with a function of its own.

    Example:
        with Workers(build, ("lift",), count=2) as workers:  # each runs `answer = build("lift")`
            workers.send(0, "first message")
            worker, reply = workers.receive()  # reply = answer("first message")

    Args:
        build: importable function (not of `__main__`) that a worker calls once for its `answer(message)`.
        arguments: of `build`; picklable.
        count: number of processes.
        timeout: seconds a worker may take to start and answer; a deadlocked graphics driver ends there.
    """

    def __init__(self, build: Callable[..., Callable[[Any], Any]], arguments: tuple, count: int, timeout: float = 600):
        if count < 1:
            raise InputError(f"workers={count} must be at least 1")
        self.timeout = timeout
        self._processes, self._pipes = [], []
        self._asked: dict[int, float] = {}  # worker -> when its pending message was sent
        context = multiprocessing.get_context("spawn")
        try:
            with _child_environment():
                for _ in range(count):
                    here, there = context.Pipe()
                    process = context.Process(target=_serve, args=(there, build, arguments), daemon=True)
                    process.start()
                    there.close()
                    self._processes.append(process)
                    self._pipes.append(here)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._processes)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid or 0 for process in self._processes]

    def send(self, worker: int, message: Any) -> None:
        """Asks a worker that has no message pending."""
        assert worker not in self._asked, f"worker {worker} has not answered yet"
        self._asked[worker] = time.monotonic()
        try:
            self._pipes[worker].send(message)
        except OSError:
            self._raise_death(worker)

    def receive(self) -> tuple[int, Any]:
        """Waits for the next answer; returns (worker, answer).

        Raises:
            InputError: as raised in the worker, or the worker was killed or gave no answer in time.
            RuntimeError: any other exception of the worker, with its traceback.
        """
        assert self._asked, "no message is pending"
        oldest = min(self._asked, key=self._asked.__getitem__)
        left = self._asked[oldest] + self.timeout - time.monotonic()
        pipes = {self._pipes[worker]: worker for worker in self._asked}
        ready = multiprocessing.connection.wait(list(pipes), max(0.0, left))
        if not ready:
            raise InputError(
                f"worker {oldest} (process {self.pids[oldest]}) gave no answer in {self.timeout:.0f} s: the machine is "
                "overloaded or its graphics driver hangs; try workers=1"
            )
        worker = min(worker for pipe, worker in pipes.items() if pipe in ready)
        try:
            kind, answer = self._pipes[worker].recv()
        except (EOFError, OSError):
            self._raise_death(worker)
        del self._asked[worker]
        if kind == "input error":
            raise InputError(answer)
        if kind == "error":
            raise RuntimeError(f"worker {worker} failed:\n{answer}")
        return worker, answer

    def map(self, messages: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Shares messages out over the workers; yields (message, answer) as they finish."""
        left, pending = iter(messages), {}

        def ask(worker: int) -> None:
            for message in left:
                pending[worker] = message
                self.send(worker, message)
                return

        for worker in range(len(self)):
            ask(worker)
        while pending:
            worker, answer = self.receive()
            message = pending.pop(worker)
            ask(worker)
            yield message, answer

    def waiting(self) -> bool:
        """Whether an answer lies ready, so that `receive` would return at once."""
        pipes = [self._pipes[worker] for worker in self._asked]
        return bool(pipes and multiprocessing.connection.wait(pipes, 0))

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(SHUTDOWN)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes, self._pipes, self._asked = [], [], {}

    def _raise_death(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(SHUTDOWN)
        code = process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        raise InputError(
            f"worker {worker} (process {process.pid}) died ({how}): out of memory? try fewer workers; "
            "finished work is kept"
        )


@contextmanager
def _child_environment() -> Iterator[None]:
    """Sets what children inherit: ENVIRONMENT, and an empty `__main__`.

    Spawned processes import their parent's main module anew; ours imports JAX, which workers must not.
    """
    main, saved = sys.modules["__main__"], {name: os.environ.get(name) for name in ENVIRONMENT}
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Any, build: Callable[..., Callable[[Any], Any]], arguments: tuple) -> None:
    """Body of a worker: answers messages until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    answer = None
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if answer is None:
                answer = build(*arguments)
                gc.freeze()  # what was built stays, and a twentieth of the time went into looking through it
            reply = ("answer", answer(message))
        except InputError as error:
            reply = ("input error", str(error))
        except Exception:
            reply = ("error", traceback.format_exc())
        try:
            pipe.send(reply)
        except OSError:
            return


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the main thread may be deep in a simulation
