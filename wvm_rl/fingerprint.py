"""Names for what results depend on."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np


def fingerprint(content: Any) -> str:
    """Hash (SHA-256, 64 hex digits) of JSON-like content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fingerprint_of_arrays(arrays: Iterable[Any], beside: str = "") -> str:
    """Hash (SHA-256, 64 hex digits) of arrays in order, of numpy or JAX, and of a text beside them."""
    digest = hashlib.sha256(beside.encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
