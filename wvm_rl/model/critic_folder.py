"""Where critics lie: shipped ones by their names, others by their folders."""

import json
from collections.abc import Collection
from pathlib import Path

from wvm_rl.errors import InputError

SHIPPED = Path(__file__).parents[1] / "critics"
FILES = ("config.json", "model.safetensors", "README.md")  # of a critic


def folder_of(critic: str) -> Path:
    """The folder of a shipped critic, by its name, or the folder given.

    Raises:
        InputError: neither, or both.
    """
    shipped = {path.name: path for path in SHIPPED.iterdir()}
    folder = shipped.get(critic, Path(critic).expanduser())
    if critic in shipped and holds_critic(Path(critic)) and Path(critic).resolve() != folder.resolve():
        raise InputError(f"critic={critic} is shipped and a folder here, too: give ./{critic}, or rename the folder")
    if not folder.is_dir():
        raise InputError(f"critic={critic} is neither a folder nor a shipped critic: {', '.join(shipped)}")
    return folder


def check_vacant(folder: Path, beside: Collection[str] = ()) -> None:
    """Whether a critic can be saved at a path, where it replaces what is there.

    Args:
        beside: names of files that it brings along.

    Raises:
        InputError: the path holds something else than a critic, or other files beside one.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose a folder")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if names and not holds_critic(folder):
        raise InputError(f"{folder} is not empty and holds no critic: choose another folder")
    if others := [name for name in names if name not in (*FILES, *beside)]:
        raise InputError(f"{folder} holds {others[0]}, which a critic saved there would replace: move it elsewhere")


def holds_critic(folder: Path) -> bool:
    """Whether a folder's config.json is a critic's, of whatever format."""
    try:
        content = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "preset", "latents"} <= content.keys()
