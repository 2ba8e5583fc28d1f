"""Precomputes umT5 embeddings of instructions: `python -m wvm_rl.embed "instructions=[lift the red cube]"`.

Presets with Wan's own text encoder read them from one file (`wvm_rl.model.text.Umt5TextConfig`). Needs PyTorch and
transformers: `pip install -r requirements-text.txt`. umT5-xxl takes about 11 GB in bf16, of the CPU's memory.
"""

import html
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from envs.tasks import TASKS
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.files import atomic, exclusive
from wvm_rl.model.text import default_cache, origin_of

NEEDED = ("torch", "transformers", "sentencepiece", "ftfy")
TOKENS = 512  # Wan reads at most


@dataclass
class EmbedConfig:
    """Instructions to embed, and with what."""

    instructions: list[str] = field(default_factory=list)  # none: those of all tasks
    encoder: str = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"  # name or folder of a pipeline with text_encoder/ and tokenizer/
    file: str = field(default_factory=default_cache)  # of all embeddings; new ones are added
    dtype: str = "bfloat16"  # of the encoder: bfloat16 | float32

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float32"):
            raise InputError(f"dtype={self.dtype}: choose bfloat16 or float32")
        if any(text and not text.strip() for text in self.instructions):
            raise InputError('instructions holds a blank one; "" is what a critic reads that is told none')


class Encoder:
    """Wan's text encoder, umT5-xxl, and its tokenizer."""

    def __init__(self, model: str, dtype: str):
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise InputError(f"{', '.join(missing)} not installed: pip install -r requirements-text.txt")
        import torch
        from transformers import AutoTokenizer, UMT5EncoderModel

        self._torch = torch
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, subfolder="tokenizer")
            encoder, found = UMT5EncoderModel.from_pretrained(
                model,
                subfolder="text_encoder",
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"encoder={model} cannot be read: {str(error).splitlines()[0]}") from error
        if lost := sorted(found["missing_keys"]):  # transformers would draw them at random
            raise InputError(f"encoder={model}: tensor {lost[0]} is missing ({len(lost)} in all): fetch it again")
        self._model = encoder.eval()

    def __call__(self, instruction: str) -> np.ndarray:
        """Embeddings [n,width] f32 of an instruction's n tokens, the end's included, padding not.

        Raises:
            InputError: more than Wan's 512 tokens.
        """
        ids = self._tokenizer(cleaned(instruction), return_tensors="pt").input_ids
        if ids.shape[1] > TOKENS:
            raise InputError(f"instruction `{instruction[:40]}...` has {ids.shape[1]} tokens, Wan reads {TOKENS}")
        with self._torch.no_grad():
            return self._model(ids).last_hidden_state[0].float().numpy()


def cleaned(instruction: str) -> str:
    """As Wan's pipeline reads a prompt: broken and escaped characters mended, spaces collapsed."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(instruction))).split())


def check(path: Path, origin: dict[str, str]) -> None:
    """Refuses a file that holds another encoder's embeddings, or the same one's of another type."""
    if path.exists() and (found := origin_of(path)) != origin:
        there, here = (" ".join(f"{name}={each[name]}" for name in sorted(each)) for each in (found, origin))
        raise InputError(f"{path} holds embeddings of {there}, these are of {here}: give another file=")


def add(path: Path, new: dict[str, np.ndarray], origin: dict[str, str]) -> None:
    """Adds embeddings of one origin to a file, which may not exist yet.

    Raises:
        InputError: the file is damaged or of another origin.
    """
    check(path, origin)
    known: dict[str, Any] = load_file(path) if path.exists() else {}
    with atomic(path) as partial:
        save_file({**known, **new}, partial, metadata=origin)


def main(config: EmbedConfig) -> None:
    instructions = config.instructions or sorted({task().instruction for task in TASKS.values()})  # type: ignore[call-arg]
    path, folder = Path(config.file).expanduser(), Path(config.encoder).expanduser()
    model = str(folder) if folder.is_dir() else config.encoder
    origin = {"encoder": folder.resolve().name, "dtype": config.dtype}  # alike for a folder and a name on the hub
    check(path, origin)
    encode = Encoder(model, config.dtype)
    found = {instruction: encode(instruction) for instruction in tqdm(instructions, desc="embedding")}
    with exclusive(path):
        add(path, found, origin)
    print(f"{len(found)} instructions in {path}")


if __name__ == "__main__":
    cli.run(main, EmbedConfig, {})
