"""Flow matching in the paper's convention (Eq. 5), and the one boundary to Wan's.

Ours: y_tau = tau * y + (1 - tau) * eps, velocity y - eps; tau = 0 is noise, tau = 1 is data.
Wan's: x_s = (1 - s) * x + s * eps, velocity eps - x, timestep 1000 * s. The mirror: s = 1 - tau.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wvm_rl.model.layers import Array


def noised(data: Array, noise: Array, tau: Array) -> Array:
    """y_tau; `tau` is broadcast over the trailing axes it lacks."""
    tau = tau.reshape(tau.shape + (1,) * (data.ndim - tau.ndim))
    return tau * data + (1 - tau) * noise


def velocity(data: Array, noise: Array) -> Array:
    """The regression target y - eps, the same at every tau."""
    return data - noise


def through_wan(forward: Callable[[Array, Array], Array], y_tau: Array, tau: Array) -> Array:
    """Velocity y - eps from a network of Wan's convention: feeds 1000 * (1 - tau), negates the output."""
    return -forward(y_tau, 1000.0 * (1.0 - tau))


def draw_tau(key: Array, shape: tuple[int, ...], shift: float) -> Array:
    """tau = 1 - s with s = shift*u / (1 + (shift-1)*u), u uniform: Wan's shift, which favours noise; 1 is uniform."""
    uniform = jax.random.uniform(key, shape)
    return 1.0 - shift * uniform / (1.0 + (shift - 1.0) * uniform)


def euler(field: Callable[[Array, Array], Array], start: Array, steps: int = 1) -> Array:
    """Integrates dy/dtau = field(y, tau) from `start` at tau = 0 to tau = 1 in equal steps; tau is a scalar array.

    The critic takes one step from eps = 0, the mode of the noise.
    """
    y = start
    for step in range(steps):
        y = y + field(y, jnp.asarray(step / steps, y.dtype)) / steps
    return y
