"""Rollouts of trained policies: what a run is judged by."""

from collections.abc import Sequence
from pathlib import Path

import jax

from agents.acting import Asked, actor, together
from agents.trainer import Trained
from envs.bank import Bank, bank
from envs.performer import Recording
from envs.rollout import ROWS, rollouts
from envs.workers import cores
from wvm_rl.config import TrainConfig
from wvm_rl.fingerprint import fingerprint_of_arrays


def _workers(config: TrainConfig) -> int:
    return cores() if config.evaluation.workers is None else config.evaluation.workers


def initial_states(config: TrainConfig) -> Bank:
    """Where the rollouts begin."""
    evaluation = config.evaluation
    return bank(config.env, evaluation.seed, evaluation.rollouts, config.data.root, _workers(config))


def evaluate(
    config: TrainConfig, trained: Trained, asked: Sequence[Asked], recorded: set[int], kept: Path
) -> tuple[list[list[dict]], dict[int, dict[int, Recording]]]:
    """Rolls out every policy from the same initial states.

    Args:
        asked: of each policy.
        recorded: policies of whose first rollouts recordings are made, as many as are filmed or kept.
        kept: file of finished rollouts, from which an interrupted call goes on.

    Returns:
        Rows of `episodes.parquet` of each policy; policy -> rollout -> recording.
    """
    evaluation = config.evaluation
    workers, count, states = _workers(config), evaluation.rollouts, initial_states(config)
    seen = len(config.obs.cameras), config.obs.size
    acts = [
        actor(config.acting, trained.seed(position), trained.statistics, ROWS, each, evaluation.seed, *seen)
        for position, each in enumerate(asked)
    ]
    shown = range(max(evaluation.videos, evaluation.keep))
    table, found = rollouts(
        config.env,
        states,
        together(acts, count, ROWS),
        count * len(acts),
        workers,
        observation=config.obs,
        record=[policy * count + number for policy in recorded for number in shown],
        kept=kept,
        identity=_identity(trained, asked, states, evaluation.seed),
    )
    rows = [
        [{"seed": seed, **row, "rollout": row["rollout"] % count} for row in table[policy * count :][:count]]
        for policy, seed in enumerate(trained.seeds)
    ]
    recordings: dict[int, dict[int, Recording]] = {}
    for number, recording in found.items():
        recordings.setdefault(number // count, {})[number % count] = recording
    return rows, recordings


def _identity(trained: Trained, asked: Sequence[Asked], states: Bank, seed: int) -> str:
    """Hash of what rollouts depend on beside the code: weights, what is asked of them, initial states, noise."""
    leaves = jax.tree.leaves((trained.params, trained.statistics, [each.cond for each in asked]))
    return fingerprint_of_arrays(leaves, f"{states.path.name} {seed} {[each.guidance for each in asked]}")
