"""A short name for a JSON value, such as the settings that a trial or a model is made from. Standard library only."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(content: Any) -> str:
    """Identify a JSON value.

    Returns:
        16 hex digits; equal values give equal ones on every machine.

    Raises:
        ValueError: if it holds NaN or infinity.
    """
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
