"""`unlearn plan`: what a sweep would do, and what that would cost on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.commands.arguments import add_places, add_settings
from sweeps.commands.errors import answered
from sweeps.commands.run import driver_of
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files

DESCRIPTION = """Check a sweep and print what it would do and what that would cost here. Nothing is written.

It takes the options of `unlearn run`, so that the plan is that of the same words."""


def parser(prog: str) -> Parser:
    """The options of the verb."""
    p = Parser(prog, DESCRIPTION, f"{prog} --preset quick --set search.trials=4")
    add_settings(p)
    add_places(p)
    return p


def main(words: Sequence[str] | None = None, prog: str = "unlearn plan") -> int:
    """Run the verb; returns the exit code: 0 possible, 2 bad input."""
    given = parser(prog).parse_args(words)

    @private_files()
    def plan() -> int:
        driver_of(given, "").print_plan()
        return 0

    return answered(plan)
