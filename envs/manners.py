"""Manners of hesitating: how a hand gets nowhere for a while, and ends where it began."""

from collections.abc import Callable, Iterator

import numpy as np

from envs.tasks import CONTROL_FREQUENCY


def _waver(rng: np.random.Generator, steps: int) -> Iterator[np.ndarray]:
    """Stands still, or wavers a few millimetres about the place."""
    sway = rng.choice([0.0, 0.006])
    phases, rates = rng.uniform(0, 2 * np.pi, 3), rng.uniform(1.0, 3.0, 3)
    for step in range(steps):
        time = step / CONTROL_FREQUENCY
        yield sway * (np.sin(rates * time + phases) - np.sin(phases)) / 2


def _jitter(rng: np.random.Generator, steps: int) -> Iterator[np.ndarray]:
    """Trembles, as an operator's hand does: centimetres, several times a second."""
    size, offset = rng.uniform(0.008, 0.016), np.zeros(3)
    for _ in range(steps):
        offset = 0.6 * offset + 0.8 * size * rng.normal(size=3)
        yield offset


def _drift(rng: np.random.Generator, steps: int) -> Iterator[np.ndarray]:
    """Slides off slowly to one side and up, and slides back: it never stands still."""
    way = _aside(rng) * rng.uniform(0.04, 0.07)
    for step in range(steps):
        yield way * np.sin(np.pi * step / steps)


def _detour(rng: np.random.Generator, steps: int) -> Iterator[np.ndarray]:
    """Leaves for a round high above the place, and comes back."""
    away, reach, turn = _aside(rng), rng.uniform(0.10, 0.16), rng.choice([-0.5, 0.5])
    across = turn * np.array([-away[1], away[0], 0.0])
    for step in range(steps):
        angle = 2 * np.pi * step / steps
        yield reach * (away * (1 - np.cos(angle)) / 2 + across * np.sin(angle))


def _aside(rng: np.random.Generator) -> np.ndarray:
    """A direction [3] of length 1, more up than aside: the hand may be within a bin, or hold something."""
    way = rng.uniform(0, 2 * np.pi)
    return np.array([0.6 * np.cos(way), 0.6 * np.sin(way), 0.8])


# Offsets [3] in m from where the hand was, one a control step, for so many steps.
MANNERS: dict[str, Callable[[np.random.Generator, int], Iterator[np.ndarray]]] = {
    "waver": _waver,
    "jitter": _jitter,
    "drift": _drift,
    "detour": _detour,
}
