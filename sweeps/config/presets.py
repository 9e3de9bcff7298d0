"""The sweeps that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.config.strict_yaml import read_mapping
from unlearn_core.checks import InputError, close_names

PRESETS = Path(__file__).parents[1] / "presets"


def preset_names(folder: Path = PRESETS) -> list[str]:
    """Names of the YAML files in `folder`, in order."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_preset(name: str, folder: Path = PRESETS) -> dict[str, Any]:
    """The settings of a preset; an unknown name raises InputError with the nearest ones."""
    if name not in preset_names(folder):
        raise InputError(f"preset {name!r} is unknown; {close_names(name, preset_names(folder))}")
    return {"name": name} | read_mapping(folder / f"{name}.yaml")


def preset_text(name: str) -> str:
    """The file of a preset; its first line says what it is for."""
    return (PRESETS / f"{name}.yaml").read_text()
