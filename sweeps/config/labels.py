"""Names that become folder names: of sweeps, and labels of attacks."""

from __future__ import annotations

import re
from typing import Any

from unlearn_core.checks import InputError, shown

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,79}")
TAKEN = ("store", "mlflow.db", "mlartifacts")  # what lies beside the sweeps in an output folder


def check_label(field_name: str, value: Any) -> str:
    """The label if it has letters, digits and `_.=-` only, so that none can leave the output folder."""
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise InputError(f"{field_name} must be letters, digits and _.=- (at most 80), but got {shown(value)}")
    return value


def check_name(field_name: str, value: Any) -> str:
    """A sweep's name: a label that is free in the output folder."""
    if check_label(field_name, value) in TAKEN:
        raise InputError(f"{field_name} {value!r} is taken: the output folder keeps something else there")
    return str(value)
