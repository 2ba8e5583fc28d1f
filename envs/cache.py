"""The data folder: finished files named by what shapes their content, made once, by one process at a time."""

import ast
import hashlib
import json
from collections.abc import Collection
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

from wvm_rl.data.episodes import LAYOUT
from wvm_rl.files import exclusive

__all__ = ["data_folder", "exclusive", "key"]

SIMULATORS = ("mujoco", "robosuite")
# Files of `envs` that shape neither an episode nor an initial state, or whose content is in the settings; an edit of
# any other file outdates what is cached.
NEUTRAL = {
    "__init__",
    "bank",
    "cache",
    "collect",
    "observations",
    "performer",
    "render",
    "rollout",
    "tasks",
    "video",
    "workers",
}
# Edits that left all that was recorded before as it was, bit for bit, and so its name: file and hash now -> hash then.
SAME = {  # hands may start raised; what cannot be drawn is refused in a line; another module writes, what is solved
    # at once is refused, texts may be bytes; a model's uploads are hashed once; cameras as the collection names them
    "camera 9cc930f407eab177": "3616e2513bfe68ce22e42d4c5ff952146be561663a4b7d79ee4f7d10861eb78e",
    "recorder 05d946d36da07639": "6be5f411baa5c4350ed3edd68ad074191ae563e90468c1fb82c745945c5025a7",
    "render 858e9b652ce1c9ab": "6d1905f66cf9e29d1e459f95204ca9595a4a0a6301865725b7b0ab1d953d3e72",
    "operator 693c3992df85e621": "00c5bfbac57faa7313b43ce2715480b3a6af384ee86515aba05c3072ecb087fd",
    "recipes 9092711c3fa58ece": "99dbdaab23e71e6c3dbe05acdcb38008b8e5a360bf4a9d1406ed2cfdc43f34da",
    "recording 0bf715cedfa4c1e5": "947fec90536e1e9f97de3e98ab354a33b15c68122a33edf776c75d1a5499cf0e",
}


def data_folder(root: str | None) -> Path:
    """Folder of everything that can be made again: `root`, or `wvm_rl` in the user's cache."""
    return Path(root).expanduser() if root else platformdirs.user_cache_path("wvm_rl")


def key(settings: Any, made_by: Collection[str] | None = None) -> str:
    """Hash [8 hex digits] of JSON-like settings, the simulators' versions, the code of `envs` and the file layout.

    Comments, docstrings and formatting of the code do not count, nor do the edits in SAME.

    Args:
        made_by: files of `envs` whose code counts; None: all that shape episodes.
    """
    versions = {name: version(name) for name in SIMULATORS}
    every = sorted(Path(__file__).parent.glob("*.py"))
    files = [path for path in every if (path.stem not in NEUTRAL if made_by is None else path.stem in made_by)]
    hashes = {path.stem: _code(path) for path in files}
    code = {stem: SAME.get(f"{stem} {now[:16]}", now) for stem, now in hashes.items()}
    text = json.dumps([settings, versions, code, LAYOUT], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _code(path: Path) -> str:
    return _hashed(path.read_text())


@cache
def _hashed(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
