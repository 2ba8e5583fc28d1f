"""Makes `wan.npz`, what diffusers computes on `wan_cases`: `python -m tests.golden.make_wan` (PyTorch, diffusers).

Also compares it with the file that is there, so that a new diffusers can be checked against the recorded one.
"""

from pathlib import Path
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from tests.golden import wan_cases as cases

GOLDEN = Path(__file__).parent / "wan.npz"


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """The model with the weights of `cases.weight`."""
    state = {name: torch.from_numpy(cases.weight(name, tuple(old.shape))) for name, old in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).movedim(-1, 1)


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.detach().movedim(1, -1).numpy()


def transformer(name: str) -> dict[str, np.ndarray]:
    config, (_, _, height, width), _, kind = cases.TRANSFORMERS[name]
    model = filled(WanTransformer3DModel(**config, cross_attn_norm=True, qk_norm="rms_norm_across_heads"))
    inputs = cases.transformer_inputs(name)
    timestep = torch.from_numpy(inputs["timestep"])
    if kind == "frame":  # diffusers knows one a sample or one a token
        timestep = timestep.repeat_interleave(height * width // 4, dim=1)
    latents, text = channels_first(inputs["latents"]), torch.from_numpy(inputs["text"])
    output = model(latents, timestep, text, return_dict=False)[0]
    (output * channels_first(inputs["cotangent"])).sum().backward()
    result = {"output": channels_last(output)}
    result |= {f"gradient/{key}": model.get_parameter(key).grad.numpy() for key in cases.GRADIENTS}
    with torch.no_grad():
        tokens = model.patch_embedding(latents).flatten(2).transpose(1, 2)
        groups = timestep.shape[1] if timestep.ndim == 2 else None
        _, modulation, words, _ = model.condition_embedder(timestep.flatten(), text, None, timestep_seq_len=groups)
        modulation = modulation.unflatten(-1, (6, -1))
        result["block"] = model.blocks[0](tokens, words, modulation, model.rope(latents)).numpy()
    return result


def vae(name: str) -> dict[str, np.ndarray]:
    config, _ = cases.VAES[name]
    channels = 3 * config["patch_size"] ** 2
    model = filled(AutoencoderKLWan(**config, is_residual=True, in_channels=channels, out_channels=channels))
    inputs = cases.vae_inputs(name)
    with torch.no_grad(), patch("torch.clamp", lambda x, *_, **__: x):  # diffusers cuts the video to [-1,1], we do not
        latents = model.encode(channels_first(inputs["video"])).latent_dist.mode()
        video = model._decode(channels_first(inputs["latents"]), return_dict=False)[0]
    return {"latents": channels_last(latents), "video": channels_last(video).astype(np.float32)}


def main() -> None:
    torch.set_num_threads(1)
    results = {f"{name}/{key}": value for name in cases.TRANSFORMERS for key, value in transformer(name).items()}
    results |= {f"{name}/{key}": value for name in cases.VAES for key, value in vae(name).items()}
    if GOLDEN.exists():
        with np.load(GOLDEN) as old:
            shared = [key for key in old if key in results and old[key].shape == results[key].shape]
            worst = max((float(np.abs(old[key] - results[key]).max()) for key in shared), default=0.0)
            print(f"{len(shared)} arrays shared with the recorded file, largest difference {worst:.2e}")
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    np.savez_compressed(GOLDEN, **results, versions=np.array(str(versions)))
    print(f"{GOLDEN}: {len(results)} arrays, {GOLDEN.stat().st_size / 1e3:.0f} kB, {versions}")


if __name__ == "__main__":
    main()
