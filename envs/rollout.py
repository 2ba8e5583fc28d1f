"""Rollouts of a policy from a bank of initial states, spread over worker processes."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from envs.bank import Bank
from envs.observations import ObservationConfig, State
from envs.performer import Job, Recording, Report, Start, performer
from envs.tasks import CONTROL_FREQUENCY, TaskConfig
from envs.workers import Workers
from wvm_rl.errors import InputError
from wvm_rl.files import atomic

# (observations [B, O] f32, or records [B] if there are pictures (`envs.observations.packed`), rollout [B] i64, -1 in
# rows that stand for none, control step [B] i64) -> actions [B, E, 7], E of which are executed.
Act = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
MAX_LIVE = 8  # simulations a worker may hold, 110 MB each
ROWS = 16  # of a policy call


def rollouts(
    task: TaskConfig,
    bank: Bank,
    act: Act,
    count: int,
    workers: int,
    *,
    observation: ObservationConfig | None = None,
    horizon: int | None = None,
    record: Iterable[int] = (),
    rows: int = ROWS,
    live: int = 4,
    timeout: float = 600,
    kept: Path | None = None,
    identity: str = "",
) -> tuple[list[dict], dict[int, Recording]]:
    """Runs rollouts 0 .. count-1, each until success or `horizon` control steps (default: the task's).

    Rollout i starts from entry i of the bank (modulo its length). Its observations stand in row i % rows of a policy
    call of always `rows` rows, so that its result depends neither on the number of workers nor on other rollouts,
    provided `act` treats its rows alike, and draws noise from (rollout, control step) alone.

    Args:
        act: the policy; rows that stand for no rollout hold zeros, and -1 as rollout.
        observation: what the policy sees (default: the state).
        record: rollouts whose states are returned.
        live: simulations a worker runs in turn, at most 8.
        kept: file of the finished ones' rows, from which an interrupted call goes on; those in `record` run again.
        identity: of everything that the rows depend on; a file of another one is begun anew.

    Returns:
        One row a rollout, in order: rollout, bank (entry), success, success_in_budget, seconds (to success, NaN if
        none), steps. And the recordings by rollout.

    Raises:
        InputError: unknown observation key, actions of the wrong shape, or a worker died.
    """
    if count < 1:
        raise InputError(f"rollouts={count} must be at least 1")
    if not 1 <= live <= MAX_LIVE:
        raise InputError(f"live={live} simulations a worker must lie in [1, {MAX_LIVE}]")
    job = Job(task, observation or State(), horizon or task.horizon, frozenset(record))
    schedule = _Schedule(task, bank, _rows(kept, identity, count, job.record) if kept else {}, kept)
    schedule.left = [number for number in range(count) if number not in schedule.rows]
    if not schedule.left:
        return schedule.table, {}
    workers = min(workers, len(schedule.left))
    live = min(live, -(-len(schedule.left) // workers))
    bar = tqdm(total=count, initial=len(schedule.rows), desc=f"rollouts of {task.name}", unit="rollout")
    with bar, Workers(performer, (job,), workers, timeout) as pool:
        for worker in range(workers):
            pool.send(worker, {slot: schedule.start() for slot in range(live)})
        while schedule.active:
            heard = [pool.receive()]
            while pool.waiting():
                heard.append(pool.receive())
            reports = {(worker, slot): report for worker, answer in heard for slot, report in answer.items()}
            running = {report.rollout: report for report in reports.values() if not report.done}
            actions = call(act, running, rows)
            for worker, answer in heard:
                orders: dict[int, Start | np.ndarray | None] = {}
                for slot, report in answer.items():
                    if report.done:
                        schedule.finish(report)
                        bar.update()
                        bar.set_postfix(success=f"{schedule.success_rate:.2f}", refresh=False)
                        orders[slot] = schedule.start()
                    else:
                        orders[slot] = actions[report.rollout]
                orders = {slot: order for slot, order in orders.items() if order is not None}
                if orders:
                    pool.send(worker, orders)
    return schedule.table, dict(sorted(schedule.recordings.items()))


def _rows(kept: Path, identity: str, count: int, record: Iterable[int]) -> dict[int, dict]:
    """Rollout -> row, of an interrupted call's file, but for those to be recorded; the file then holds these alone."""
    lines = kept.read_text().splitlines(keepends=True) if kept.exists() else []
    head, *found = [json.loads(line) for line in lines if line.endswith("\n")] or [None]  # a kill may cut the last one
    whole = {"identity": identity, "count": count}
    rows = {row["rollout"]: row for row in found if head == whole and row["rollout"] not in record}
    with atomic(kept) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in (whole, *rows.values())))
    return rows


@dataclass
class _Schedule:
    """Which rollouts are still to start, how many run, and what came of the others."""

    task: TaskConfig
    bank: Bank
    rows: dict[int, dict]  # of finished ones
    kept: Path | None
    left: list[int] = field(default_factory=list)
    active: int = 0
    recordings: dict[int, Recording] = field(default_factory=dict)

    def start(self) -> Start | None:
        if not self.left:
            return None
        number = self.left.pop(0)
        entry = number % len(self.bank)
        self.active += 1
        return Start(number, self.bank.model_files[entry], self.bank.states[entry])

    def finish(self, report: Report) -> None:
        success = bool(report.success)
        self.rows[report.rollout] = row = {
            "rollout": report.rollout,
            "bank": report.rollout % len(self.bank),
            "success": success,
            "success_in_budget": success and report.step <= self.task.budget,
            "seconds": report.step / CONTROL_FREQUENCY if success else float("nan"),
            "steps": report.step,
        }
        if report.recording:
            self.recordings[report.rollout] = report.recording
        if self.kept:
            with self.kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
        self.active -= 1

    @property
    def success_rate(self) -> float:
        return float(np.mean([row["success"] for row in self.rows.values()]))

    @property
    def table(self) -> list[dict]:
        return [row for _, row in sorted(self.rows.items())]


def call(act: Act, running: dict[int, Report], rows: int) -> dict[int, np.ndarray]:
    """Asks the policy for the running rollouts' actions: rollout i in row i % rows, as few calls as that allows."""
    actions, left = {}, sorted(running)
    while left:
        batch: dict[int, int] = {}  # row -> rollout
        for rollout in left:
            batch.setdefault(rollout % rows, rollout)
        first = running[left[0]].observation
        observations = np.zeros((rows, *first.shape), first.dtype)
        rollout_index, step = np.full(rows, -1), np.zeros(rows, np.int64)
        for row, rollout in batch.items():
            observations[row] = running[rollout].observation
            rollout_index[row], step[row] = rollout, running[rollout].step
        chunk = np.asarray(act(observations, rollout_index, step), np.float32)
        if chunk.ndim != 3 or len(chunk) != rows or chunk.shape[1] < 1 or not np.isfinite(chunk).all():
            raise InputError(f"the policy gave actions of shape {chunk.shape} or not finite: need [{rows}, E, A]")
        actions |= {rollout: chunk[row] for row, rollout in batch.items()}
        left = [rollout for rollout in left if rollout not in actions]
    return actions
