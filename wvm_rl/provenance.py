"""Where results come from."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "chex", "numpy", "mujoco", "robosuite", "h5py")


UNKNOWN = "unknown"  # commit of code that is in no repository


def tells_code(commit: str) -> bool:
    """Whether a commit of `provenance` names one state of the code: not if files were changed since."""
    return commit != UNKNOWN and not commit.endswith("+")


def provenance() -> dict[str, Any]:
    """Where results come from: command, commit (with `+` if more than results is changed), Python and packages."""
    here = Path(__file__).parent

    def git(*command: str) -> str:
        try:
            return subprocess.run(
                ["git", *command], cwd=here, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    ours = git("ls-files", "--error-unmatch", Path(__file__).name)  # else another repository's, installed within it
    commit = (ours and git("rev-parse", "HEAD")) or UNKNOWN
    changed = ours and git("status", "--porcelain", "--", ":/", ":(top,exclude)experiments/results")
    module = sys.modules["__main__"].__spec__
    command = shlex.join(["python", "-m", module.name if module else Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": command,
        "commit": commit + ("+" if changed else ""),
        "python": sys.version.split()[0],
        **{name: version(name) for name in PACKAGES},
    }
