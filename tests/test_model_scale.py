"""Sizes, precision and memory."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.model_toy import of, preset, random
from wvm_rl.errors import InputError
from wvm_rl.model.codec import Codec
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.wvm import LossConfig, WorldValueModel
from wvm_rl.plan import PlanConfig, plan

pytestmark = pytest.mark.usefixtures("compile_quickly")


def test_full_size_has_the_papers_sizes():
    """5.0 B of video and 0.7 B of value stream, by shapes alone."""
    shapes = WorldValueModel(PRESETS["wan2.2-ti2v-5b"]()).graph.shapes
    count = {part: sum(np.prod(s) for n, s in shapes.items() if n.startswith(part)) for part in ("video", "value")}
    assert count == {"video": 4_999_787_712, "value": 666_074_625}
    assert shapes["value.stack.blocks.attn1.to_q.kernel"] == (30, 512, 3072)


def test_bf16_keeps_norms_and_sums_in_f32():
    """Outputs are close to f32's; storing kernels in bf16 changes no bit."""
    exact, quick = WorldValueModel(of()), WorldValueModel(of(compute_dtype="bfloat16"))
    params = {name: jnp.asarray(value) for name, value in random(exact.graph.shapes).items()}
    stored = {name: value.astype(quick.stored(name)) for name, value in params.items()}
    kinds = {name: str(value.dtype) for name, value in stored.items()}
    assert kinds["video.stack.blocks.ffn_in.kernel"] == "bfloat16" and kinds["value.head.proj_out.kernel"] == "float32"
    assert {kind for name, kind in kinds.items() if not name.endswith(".kernel")} == {"float32"}
    rng = np.random.default_rng(1)
    current, prefix = rng.normal(size=(3, *exact.config.latent)).astype(np.float32), np.full(3, 0.5, np.float32)
    tokens = np.stack([exact.config.text.tokenize("lift")] * 3)
    values = [
        np.asarray(jax.jit(m.predict)(p, current, prefix, tokens))
        for m, p in ((exact, params), (quick, params), (quick, stored))
    ]
    assert 0 < np.abs(values[1] - values[0]).max() < 0.05
    np.testing.assert_array_equal(values[1], values[2])
    kinds = set(of_half(jax.make_jaxpr(quick.predict)(stored, current, prefix, tokens).jaxpr))
    assert kinds == {"convert_element_type", "concatenate", "scan"}  # bf16 only on its way into a matmul


def of_half(jaxpr):
    """Primitives with a result in bf16, nested ones too."""
    for equation in jaxpr.eqns:
        if any(getattr(out.aval, "dtype", None) == jnp.bfloat16 for out in equation.outvars):
            yield str(equation.primitive)
        for inner in jaxprs_in_params(equation.params):
            yield from of_half(inner)


def test_plan_counts_bytes_without_allocating():
    config = PlanConfig(wvm=preset(), batch=4, loss=LossConfig(video=0.0))
    count = sum(np.prod(shape) for shape in WorldValueModel(preset()).graph.shapes.values())
    full = plan(config)
    assert full.parameters == 4 * count
    assert 3 * 4 * count <= full.optimiser < 3 * 4 * count + 100 and full.temporary > 4 * count
    low = plan(replace(config, wvm=replace(of(lora_rank=2), first_frame=True), average=0.0))
    assert low.batch > full.batch  # the first frames
    assert low.optimiser < full.optimiser and low.parameters > full.parameters
    inference = plan(replace(config, mode="inference"))
    vae = sum(np.prod(shape) for shape in Codec(preset()).graph.shapes.values())
    assert inference.parameters == 4 * (count + vae) and inference.optimiser == 0
    for changes, message in (({"mode": "full"}, "choose one of train, inference"), ({"batch": 0}, "at least 1")):
        with pytest.raises(InputError, match=message):
            replace(config, **changes)
