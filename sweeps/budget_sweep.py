"""The command users run: `python sweeps/budget_sweep.py` (no arguments: the embedded `quick` sweep)."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a script: this folder is on the path, its parent is what imports need
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sweeps.cli import main

if __name__ == "__main__":
    sys.exit(main())
