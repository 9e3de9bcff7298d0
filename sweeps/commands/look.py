"""What the verbs share that look into the folder of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sweeps.commands.errors import answered
from sweeps.commands.verbs import VERBS
from sweeps.storage.folders import at, folder_or_url
from sweeps.storage.local_copy import LocalCopy
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files


def folder_parser(prog: str) -> Parser:
    """The parser of a verb that takes the folder of a sweep."""
    verb = VERBS[prog.split()[-1]]
    p = Parser(prog, verb.summary[0].upper() + verb.summary[1:] + ".", f"{prog} {verb.example}")
    p.add_argument(
        "sweep", type=folder_or_url, metavar="DIR", help="the sweep, such as results/quick or s3://BUCKET/..."
    )
    return p


def show(p: Parser, words: Sequence[str] | None, lines: Callable[[LocalCopy, Any], Iterable[str]]) -> int:
    """Print what `lines` makes of the folder and the options; returns the exit code."""
    given = p.parse_args(words)

    @private_files()
    def print_lines() -> int:
        replica = LocalCopy(at(given.sweep).resolved("DIR"))
        replica.pull()
        for line in lines(replica, given):
            print(line)
        return 0

    return answered(print_lines)
