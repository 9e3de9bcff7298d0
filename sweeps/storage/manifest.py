"""Reads `sweep.json`: what the sweep in a folder is."""

from __future__ import annotations

import json
from typing import Any

from sweeps.schema.manifest_kinds import wrong_in_manifest
from sweeps.storage.base import Folder
from unlearn_core.checks import InputError

NAME = "sweep.json"


def read_manifest(sweep_dir: Folder) -> dict[str, Any]:
    """Its content. Raises InputError if there is none, or it is damaged."""
    try:
        content = dict(json.loads((sweep_dir / NAME).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no sweep in {sweep_dir}; name the folder with its {NAME}") from None
    except (ValueError, TypeError, RecursionError):
        content = {}
    wrong = wrong_in_manifest(content) if "spec" in content else ["spec"]
    if wrong:
        raise InputError(
            f"{sweep_dir / NAME} is damaged ({wrong[0]}); delete it, and the sweep's own command writes it again"
        )
    return content
