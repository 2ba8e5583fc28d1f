"""The residual MLP both policies share, as a plain pytree of parameters."""

from typing import Any

import jax
import jax.numpy as jnp

Params = dict[str, Any]


def init(rng: Any, inputs: int, cond: int, outputs: int, width: int, layers: int) -> Params:
    """Parameters of a network from `inputs` values and a condition of `cond` (0: none) to `outputs` values.

    LeCun-normal kernels, zero biases, zero output layer (the first prediction is 0).
    """
    keys = jax.random.split(rng, 2 * layers + 1)
    inputs += cond + 1 if cond else 0
    stand_in = {"cond": jnp.zeros(cond)} if cond else {}
    return stand_in | {
        "inner": _dense(keys[0], inputs, width),
        "blocks": [
            {
                "scale": jnp.ones(width),
                "up": _dense(keys[2 * i + 1], width, width),
                "down": _dense(keys[2 * i + 2], width, width),
            }
            for i in range(layers)
        ],
        "scale": jnp.ones(width),
        "outer": {"kernel": jnp.zeros((width, outputs)), "bias": jnp.zeros(outputs)},
    }


def apply(params: Params, x: Any) -> Any:
    """[B, inputs] -> [B, outputs]: pre-normalised residual blocks, h + W2 silu(W1 norm(h))."""
    h = _linear(params["inner"], x)
    for block in params["blocks"]:
        h = h + _linear(block["down"], jax.nn.silu(_linear(block["up"], _norm(block["scale"], h))))
    return _linear(params["outer"], _norm(params["scale"], h))


def conditioning(params: Params, cond: Any, batch: int, known: Any = None) -> Any:
    """Condition and a flag that it is known, [B, C+1]; [B, 0] for unconditioned networks.

    `params["cond"]`, [C], is the learned stand-in for an unknown condition; networks without condition lack it.

    Args:
        cond: [B,C]; None: unknown.
        known: [B], 0 where it is hidden; None: nowhere.
    """
    if "cond" not in params:
        return jnp.zeros((batch, 0))
    if cond is None:
        cond, known = jnp.zeros((batch, len(params["cond"]))), jnp.zeros(batch)
    flag = jnp.ones((batch, 1)) if known is None else known[:, None]
    return jnp.concatenate([flag * cond + (1 - flag) * params["cond"], flag], -1)


def _dense(rng: Any, inputs: int, outputs: int) -> Params:
    return {"kernel": jax.random.normal(rng, (inputs, outputs)) / jnp.sqrt(inputs), "bias": jnp.zeros(outputs)}


def _linear(layer: Params, x: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"]


def _norm(scale: Any, x: Any) -> Any:
    """Layer normalisation without offset."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale
