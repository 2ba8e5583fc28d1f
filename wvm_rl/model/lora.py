"""Low-rank updates of the video stream: which parameters train with them, and how they are merged (see `Linear`)."""

import numpy as np

Arrays = dict[str, np.ndarray]

FACTORS = (".lora_a", ".lora_b")


def trains(name: str, rank: int) -> bool:
    """Whether a World Value Model's parameter trains: with low-rank updates, those and all but the video stream."""
    return not rank or name.endswith(FACTORS) or not name.startswith("video.")


def merged(params: Arrays) -> Arrays:
    """The plain parameters that compute the same: every kernel W becomes W + A B; layers may be stacked in front.

    A critic that keeps bf16 kernels rounds W + A B to 2^-9 of each entry, where training summed x W and x A B in f32.
    """
    plain = {name: value for name, value in params.items() if not name.endswith(FACTORS)}
    for name in params:
        if name.endswith(FACTORS[0]):
            stem = name.removesuffix(FACTORS[0])
            plain[f"{stem}.kernel"] = plain[f"{stem}.kernel"] + params[name] @ params[stem + FACTORS[1]]
    return plain
