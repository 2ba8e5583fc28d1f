"""Names for what results depend on."""

import hashlib
import json
from typing import Any


def fingerprint(content: Any) -> str:
    """Hash (SHA-256, 64 hex digits) of JSON-like content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
