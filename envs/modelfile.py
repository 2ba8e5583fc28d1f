"""Model XML without machine paths: assets are written as `robosuite/models/...`, wherever robosuite lies."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import mujoco

from wvm_rl.errors import InputError

_ASSET = re.compile(r'file="(?:[^"]*/)?robosuite/(models/[^"]*)"')


def portable(xml: str) -> str:
    """Cuts what lies before `robosuite/` off the asset paths; robosuite's `edit_model_xml` reads such paths."""
    return _ASSET.sub(r'file="robosuite/\1"', xml)


def local(xml: str) -> str:
    """Completes the asset paths of any robosuite model, ours or robomimic's, for this machine."""
    return _ASSET.sub(lambda found: f'file="{_robosuite()}/{found[1]}"', xml)


def compiled(xml: str) -> mujoco.MjModel:
    """Builds the model of a `model_file`.

    Raises:
        InputError: it does not compile, for instance because another robosuite's assets are missing.
    """
    try:
        return mujoco.MjModel.from_xml_string(local(xml))
    except ValueError as error:
        raise InputError(f"model_file does not compile with this robosuite: {error}") from error


@cache
def _robosuite() -> str:
    spec = importlib.util.find_spec("robosuite")
    if spec is None or spec.origin is None:
        raise InputError("robosuite is not installed: pip install robosuite")
    return Path(spec.origin).parent.as_posix()
