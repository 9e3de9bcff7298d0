"""`unlearn run`, and the named door to it, `python sweeps/budget_sweep.py`: from words to a finished sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeps.commands.arguments import add_places, add_settings, add_tracking_uri
from sweeps.commands.errors import answered
from sweeps.commands.options import RunOptions
from sweeps.tracking.uri import shown_command
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files

if TYPE_CHECKING:
    from sweeps.commands.driver import Driver

DOOR = "python sweeps/budget_sweep.py"
DESCRIPTION = """Poison, train, unlearn under compute budgets, and compare with retraining.

Without options: the embedded `quick` sweep on this machine. Running the same command again does only what is missing.
On the head of a running Ray cluster it uses the cluster."""


def parser(prog: str = DOOR) -> Parser:
    """The options of the verb."""
    p = Parser(prog, DESCRIPTION, f"{prog} --preset quick --set search.trials=4")
    add_settings(p)
    add_places(p)
    tracking = p.add_argument_group("tracking")
    add_tracking_uri(tracking)
    tracking.add_argument(
        "--no-tracking", action="store_false", dest="tracking", help="do not mirror the records to MLflow"
    )
    tracking.add_argument(
        "--sync-mlflow", action="store_true", help="only send what MLflow is missing, as `unlearn sync`"
    )
    look = p.add_argument_group("look before you run")
    look.add_argument("--dry-run", action="store_true", help="print the plan with its cost here, as `unlearn plan`")
    look.add_argument("--list", action="store_true", help="everything that can be chosen, as `unlearn list`")
    return p


def main(argv: Sequence[str] | None = None, prog: str = DOOR) -> int:
    """Run the command; returns the exit code: 0 done, 1 some work failed, 2 bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser(prog).parse_args(words)
    return answered(lambda: _run(given, shown_command([*prog.split(), *words])))


@private_files()
def _run(given: argparse.Namespace, command: str) -> int:
    if given.list:
        from sweeps.commands.listing import print_list

        print_list(given.plugin)
        return 0
    driver = driver_of(given, command)
    if given.sync_mlflow:
        return driver.mirror.sync()
    if given.dry_run:
        driver.print_plan()
        return 0
    return driver.run().code


def driver_of(given: argparse.Namespace, command: str) -> Driver:
    """The driver of the sweep that the words describe."""
    from sweeps.commands.reading import read_sweep

    sweep, options = read_sweep(given), RunOptions.from_namespace(given)
    from sweeps.commands.driver import Driver  # what only work needs is loaded once the words make sense

    return Driver(sweep, options, command)
