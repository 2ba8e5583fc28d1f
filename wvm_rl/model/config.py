"""Dataclass configurations from JSON, strictly."""

import dataclasses
import typing
from typing import Any, TypeVar

from wvm_rl.errors import InputError

T = TypeVar("T")


def read(kind: type[T], content: dict[str, Any], source: str, **kinds: type) -> T:
    """Builds a (nested) dataclass from a dict that must name exactly its fields.

    Args:
        kind: the dataclass.
        content: its fields.
        source: named in errors.
        kinds: narrower types of some of its fields.

    Raises:
        InputError: an unknown or missing key, or a value of another type, named with `source`.
    """
    if not isinstance(content, dict):
        raise InputError(f"{source}: expected the keys of {kind.__name__}, found {content!r}")
    known = typing.get_type_hints(kind) | kinds
    hints = {each.name: known[each.name] for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in sorted(content.keys() ^ hints.keys()):
        raise InputError(f"{source}: {'unknown' if key in content else 'missing'} key {key} of {kind.__name__}")
    return kind(**{key: _value(hints[key], content[key], f"{source}: {key}") for key in hints})


def _value(hint: Any, value: Any, source: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return read(hint, value, source)  # type: ignore[arg-type]
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise InputError(f"{source} is {value!r}, expected a list")
        return [_value(typing.get_args(hint)[0], entry, source) for entry in value]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{source} is {value!r}, expected {hint.__name__}")
    return value
