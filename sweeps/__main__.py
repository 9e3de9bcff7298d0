"""`python -P -m sweeps VERB`: the command `unlearn` for who has no console scripts."""

from __future__ import annotations

import sys

from sweeps.commands.main import main
from unlearn_core.host.output import run as run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(prog="python -P -m sweeps")))
