"""Names of sweeps, and the presets that come with the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from unlearn_core.checks import InputError, close_names, shown

PRESETS = Path(__file__).parents[1] / "presets"
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,79}")
TAKEN = ("store", "mlflow.db", "mlartifacts")  # what lies beside the sweeps in an output folder


def check_label(field_name: str, value: Any) -> str:
    """Names become folder names: letters, digits and `_.=-` only, so that none can leave the output folder."""
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise InputError(f"{field_name} must be letters, digits and _.=- (at most 80), but got {shown(value)}")
    return value


def check_name(field_name: str, value: Any) -> str:
    """A sweep's name: a label that is free in the output folder."""
    if check_label(field_name, value) in TAKEN:
        raise InputError(f"{field_name} {value!r} is taken: the output folder keeps something else there")
    return str(value)


def preset_names(folder: Path = PRESETS) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_preset(name: str, folder: Path = PRESETS) -> dict[str, Any]:
    """The settings of a preset; an unknown name raises InputError with the nearest ones."""
    from sweeps.config.strict_yaml import read_mapping  # loads torch, which listing the presets does not need

    if name not in preset_names(folder):
        raise InputError(f"preset {name!r} is unknown; {close_names(name, preset_names(folder))}")
    return {"name": name} | read_mapping(folder / f"{name}.yaml")
