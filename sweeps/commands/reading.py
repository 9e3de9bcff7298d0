"""From the words of a command to the sweep that they describe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sweeps.config.overrides import parsed
from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from sweeps.config.strict_yaml import read_mapping
from unlearn_core.checks import InputError


def read_raw(options: argparse.Namespace, preset: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The settings in the file of --config, named after it, else those that `preset` reads."""
    if options.preset and options.config:
        raise InputError("--preset and --config both say what to run; give one of them")
    return {"name": options.config.stem} | read_mapping(options.config) if options.config else preset()


def read_sweep(options: argparse.Namespace) -> Sweep:
    """The sweep that the options describe."""
    raw = read_raw(options, lambda: read_preset(options.preset or "quick"))
    if options.plugin:
        raw = raw | {"plugins": [*(raw.get("plugins") or []), *options.plugin]}
    return Sweep.changed(raw, parsed(options.assignments), options.name)
