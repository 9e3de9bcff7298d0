"""`unlearn sync DIR`: sends MLflow what it is missing of a sweep."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.commands.arguments import add_tracking_uri
from sweeps.commands.errors import answered
from sweeps.commands.look import folder_parser
from sweeps.commands.mirroring import Mirroring
from sweeps.commands.options import RunOptions
from sweeps.storage.folders import at
from sweeps.storage.local_copy import LocalCopy
from unlearn_core.host.private import private_files


def main(words: Sequence[str] | None = None, prog: str = "unlearn sync") -> int:
    """Run the verb; returns the exit code: 0 done, 1 the store fails, 2 bad input."""
    p = folder_parser(prog)
    add_tracking_uri(p)
    given = p.parse_args(words)
    return answered(lambda: _sync(given))


@private_files()
def _sync(given: argparse.Namespace) -> int:
    replica = LocalCopy(at(given.sweep).resolved("DIR"))
    return Mirroring(replica, RunOptions.from_namespace(given)).sync()
