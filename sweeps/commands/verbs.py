"""What `unlearn` can do: one line, an example and the function of each verb, which is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Verb(NamedTuple):
    """A word after `unlearn`.

    Args:
        summary: What it does, on one line.
        example: Words that show its use.
        module: Its `main(words, prog)` returns the exit code.
    """

    summary: str
    example: str
    module: str

    def main(self, words: Sequence[str], prog: str) -> int:
        """Do it; returns the exit code."""
        command: Callable[[Sequence[str], str], int] = importlib.import_module(self.module).main
        return command(words, prog)


VERBS = {
    "run": Verb(
        "run a sweep, or what is missing of it, and report",
        "--preset quick --set search.trials=4",
        "sweeps.commands.run",
    ),
    "plan": Verb(
        "print what a sweep would do and cost here", "--preset quick --set search.trials=4", "sweeps.commands.planning"
    ),
    "list": Verb("list what a sweep can be made of", "methods scrub", "sweeps.commands.listing"),
    "describe": Verb("show what one of these is, with its settings", "scrub", "sweeps.commands.describing"),
    "status": Verb(
        "show what is done, failed, running and left, with the hours so far and expected",
        "results/quick",
        "sweeps.commands.status",
    ),
    "failures": Verb(
        "show tracebacks of failed trials, equal ones together", "results/quick", "sweeps.commands.failures"
    ),
    "export": Verb(
        "write one archive with records, report, configuration and versions",
        "results/quick --to quick.tar.gz",
        "sweeps.commands.export",
    ),
    "report": Verb("make tables, figures and report again from the records", "results/quick", "analysis.report"),
    "scan": Verb(
        "vary one setting, all others as in a base sweep",
        "--preset quick --vary attacks.gaussian.epsilon --values 0.5 1 2",
        "sweeps.commands.scan",
    ),
    "hypotheses": Verb(
        "test why unlearning fails: model shift and orthogonality", "--preset digits", "sweeps.hypotheses.__main__"
    ),
    "sync": Verb("send MLflow what it is missing of a sweep", "results/quick", "sweeps.commands.sync"),
}
