"""Rollouts of trained policies: what a run is judged by."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from agents.acting import Asked, actor, together
from agents.trainer import Trained
from envs.bank import Bank, bank
from envs.rollout import ROWS, Recording, rollouts
from envs.workers import cores
from wvm_rl.config import TrainConfig


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
    acts = [
        actor(config.acting, trained.seed(position), trained.statistics, ROWS, each, evaluation.seed)
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
    digest = hashlib.sha256(f"{states.path.name} {seed} {[each.guidance for each in asked]}".encode())
    for leaf in jax.tree.leaves((trained.params, trained.statistics, [each.cond for each in asked])):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
