"""The command users run: `python sweeps/budget_sweep.py` (no arguments: the embedded `quick` sweep)."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a script, from any folder
    if not sys.flags.safe_path:
        del sys.path[0]  # this folder, whose modules are no top-level ones
    runpy.run_path(str(Path(__file__).resolve().with_name("launch.py")))["own_modules"]()()

from sweeps.commands.run import main
from unlearn_core.host.output import run as run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
