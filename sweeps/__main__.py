"""`python -P -m sweeps status|failures|export DIR`: look into a sweep's folder, while it runs or afterwards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.commands.errors import answered
from sweeps.commands.export import export
from sweeps.commands.failures import failure_lines
from sweeps.commands.status import status_lines
from sweeps.storage.folders import at, folder_or_url
from sweeps.storage.local_copy import LocalCopy
from unlearn_core.host.output import run as run_command
from unlearn_core.host.private import private_files


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -P -m sweeps", description="Look into the folder of a sweep.")
    commands = p.add_subparsers(dest="command", required=True)
    summaries = {
        "status": "what is done, failed, running and left, with the hours so far and expected",
        "failures": "tracebacks of failed trials, equal ones together",
        "export": "one archive with records, report, configuration and versions",
    }
    for name, summary in summaries.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument(
            "sweep", type=folder_or_url, metavar="DIR", help="the sweep, such as results/quick or s3://..."
        )
        if name == "export":
            command.add_argument("--to", type=Path, metavar="FILE", help="archive (default: DIR.tar.gz)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 storage fails, 2 bad input."""
    return answered(lambda: _show(parser().parse_args(argv)))


@private_files()
def _show(options: argparse.Namespace) -> int:
    replica = LocalCopy(at(options.sweep).resolved("DIR"))
    replica.pull()
    for line in _lines(options, replica):
        print(line)
    return 0


def _lines(options: argparse.Namespace, replica: LocalCopy) -> list[str]:
    if options.command == "status":
        return status_lines(replica)
    if options.command == "failures":
        return failure_lines(replica.dir)
    return [f"wrote {export(replica.dir, options.to)}"]


if __name__ == "__main__":
    sys.exit(run_command(main))
