"""One update of named parameters with AdamW, on a mesh of devices: pure functions and where their arrays lie."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wvm_rl import sharding
from wvm_rl.errors import InputError
from wvm_rl.model.layers import Array
from wvm_rl.model.weights import Params

Batch = dict[str, Any]
Shaped = Mapping[str, jax.Array | jax.ShapeDtypeStruct]
State = dict[str, Any]  # params, optimiser and, if parameters are averaged, mean
Loss = Callable[[Params, Batch, Array], tuple[Array, dict[str, Array]]]


@dataclass
class FitConfig:
    """AdamW with warm-up and cosine decay; the paper's betas, clip and decay (Table A.1)."""

    steps: int  # updates
    batch: int  # samples an update
    learning_rate: float  # peak
    warmup: int = 100  # updates
    final: float = 0.1  # learning rate at the end, as a share of the peak
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0  # global norm of the gradient
    average: float = 0.999  # decay of the parameters' running mean, which is what is released; 0: none is kept
    save_every: int = 500  # updates between two checkpoints, rounded up to whole rows of metrics

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.save_every) < 1 or not 0 <= self.warmup < self.steps:
            raise InputError(
                f"steps={self.steps}, batch={self.batch}, save_every={self.save_every} must be at least 1 "
                f"and warmup={self.warmup} at least 0 and less than the steps"
            )
        if self.learning_rate <= 0 or self.clip <= 0:
            raise InputError(f"learning_rate={self.learning_rate} and clip={self.clip} must be positive")
        for name in ("average", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.final <= 1 or not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"final={self.final} must lie in [0, 1] and weight_decay={self.weight_decay} be 0 or more")


class Training:
    """Minimises a loss over the parameters that train; the others are an argument.

    Args:
        loss: (params, batch, key) -> scalar and its parts.
        config: optimiser.
        seed: of the noise; the key of a step is a pure function of (seed, step).
        mesh: devices; None for one.
    """

    def __init__(self, loss: Loss, config: FitConfig, seed: int, mesh: Mesh | None = None):
        self.loss, self.config, self.seed = loss, config, seed
        self.mesh = mesh or sharding.alone()
        self.schedule = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, config.warmup, config.steps, config.final * config.learning_rate
        )
        self._optimiser = optax.chain(
            optax.clip_by_global_norm(config.clip),
            optax.adamw(self.schedule, config.beta1, config.beta2, weight_decay=config.weight_decay),
        )

    def target(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
        """Where a parameter lies."""
        return sharding.parameter(self.mesh, name, shape)

    def fresh(self, params: Params) -> State:
        """State before the first step."""
        state: State = {"params": params, "optimiser": self._optimiser.init(params)}
        return state | ({"mean": jax.tree.map(jnp.copy, params)} if self.config.average else {})

    def abstract(self, params: Shaped) -> State:
        """Shapes and shardings of the state, without memory."""
        shapes = jax.eval_shape(self.fresh, params)
        layout = sharding.state(self.mesh, shapes)
        return jax.tree.map(lambda a, at: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at), shapes, layout)

    def start(self, params: Params) -> State:
        """`fresh`, laid out on the mesh; the parameters given are used up."""
        layout = jax.tree.map(lambda a: a.sharding, self.abstract(params))
        return jax.jit(self.fresh, donate_argnums=0, out_shardings=layout)(params)

    def update(self, state: State, frozen: Params, batch: Batch, step: Array) -> tuple[State, dict[str, Array]]:
        """The state after a step, and the parts of its loss."""

        def loss(params: Params) -> tuple[Array, dict[str, Array]]:
            return self.loss({**frozen, **params}, batch, key)

        key = jax.random.fold_in(jax.random.key(self.seed), step)
        grads, parts = jax.grad(loss, has_aux=True)(state["params"])
        updates, optimiser = self._optimiser.update(grads, state["optimiser"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        after = {"params": params, "optimiser": optimiser}
        if self.config.average:
            decay = jnp.minimum(self.config.average, (1.0 + step) / (10.0 + step))
            after["mean"] = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, state["mean"], params)
        return after, {**parts, "gradient_norm": optax.tree.norm(grads)}

    def compiled(self, params: Shaped) -> Any:
        """`update`, jitted for the layout of parameters like `params`; the state given is used up."""
        layout = jax.tree.map(lambda a: a.sharding, self.abstract(params))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(self.update, donate_argnums=0, out_shardings=(layout, everywhere))

    def place(self, batch: Batch) -> Batch:
        """A batch's arrays on their devices."""
        layout = sharding.batch(self.mesh, batch, self.config.batch)
        return {name: sharding.placed(array, layout[name]) for name, array in batch.items()}
