"""The model card that is shipped with a critic."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wvm_rl.provenance import provenance

if TYPE_CHECKING:
    from wvm_rl.model.critic import Critic


def write_card(
    critic: "Critic",
    start: str,
    seed: int,
    data: dict[str, Any],
    scores: dict[str, float],
    commits: dict[str, str],
    seconds: float,
) -> str:
    """Markdown: what the critic is, how to make it again, what it was trained on, how it scored while training.

    Args:
        critic: trained.
        start: its first parameters, in words.
        seed: of the training.
        data: name -> what it was trained on.
        scores: last metrics of each training stage.
        commits: stage -> those that its training ran by.
        seconds: wall time of this command; a resumed one counts its last part only.
    """
    origin = provenance()
    model = critic.config.model
    first = "; the episode's first frame is seen beside every window" if model.first_frame else ""
    sizes = {
        "preset": critic.config.preset,
        "value head": model.value.head,
        "read by": ", ".join(f"{name} {number}" for name, number in asdict(critic.config.reading).items()),
        "first parameters": start,
        "parameters": f"{sum(value.size for value in critic.params.values()):,}",
        "frames": f"{model.size}x{model.size} at {model.fps:g} a second, camera {critic.camera}{first}",
        "fingerprint": critic.fingerprint,
        "seed": seed,
        "wall time since the last start": f"{seconds / 60:.0f} min",
    }
    command, commit = origin.pop("command"), origin.pop("commit")
    sections = {
        "Model": sizes,
        "Data": data,
        "Last metrics of training": {name: f"{value:.5g}" for name, value in scores.items()},
        "Versions": {"commit": commit, **{f"commits of {name}": made for name, made in commits.items()}, **origin},
    }
    lines = ["# World Value Model critic", "", INTRODUCTION, "", "```", command, "```"]
    for title, rows in sections.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
        ]
    seen = "itself and the episode's first frame" if model.first_frame else "itself"
    drawn = "Value and video draw their own tau" if model.value.head == "flow" else "Video draws its tau"
    choices = CHOICES.format(seen=seen, drawn=drawn)
    return "\n".join([*lines, "", choices, PREDICTED[model.value.head], TEXT[type(model.text).__name__], ""])


INTRODUCTION = """Values the frames of a manipulation episode by progress in [0,1], from pixels and the instruction
(arXiv 2606.24742). `model.safetensors` holds the weights, `config.json` the sizes. Made by:"""

CHOICES = """## Choices the paper leaves open

- A clip is prefix o[t-4], current o[t-3..t], future o[t+1..t+4]; current video attends to {seen} only.
- The prefix token is the chunk's first value; the other three are predicted.
- Value tokens sit in rotary time at their frame's place within the current latent, (j - 1.5) / 4, mid-image, and
  carry a learned vector of their place. Values are mapped from [0,1] to [-1,1] inside.
- {drawn}, with Wan's timestep shift.
- Rewinding rearranges all nine frames; the plateau ratio is a share of the rewound windows; `turn` is the share
  of both kinds that changes direction within the clip.
- Windows overlap at stride 1; windows of the first four frames repeat the first one; std is the disagreement of the
  overlapping predictions, before smoothing.
- `prefixes` other than the running mean count half, and `smooth` neighbours on either side are averaged into a value;
  with 0 of both the critic is read as the paper does."""

PREDICTED = {
    "flow": "- The value head is a flow, read by one Euler step from eps = 0.",
    "hl_gaussian": "- The value head is a histogram of 51 bins, read by its mean.",
    "regression": "- The value head is a scalar.",
}

TEXT = {
    "ByteTextConfig": """- Text tokens come from a small byte-level encoder trained along; instructions it never saw
  mean little to it.""",
    "Umt5TextConfig": "- Text tokens are umT5's, precomputed by `python -m wvm_rl.embed`.",
}
