"""A parser of command lines whose complaints are one line with the nearest word that exists."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from unlearn_core.checks import close_names


class Parser(argparse.ArgumentParser):
    """An argument parser that answers wrong words with one line and exit code 2."""

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(self._strange(rest[0]))
        return options

    def _strange(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} is one word too many"
        option = word.partition("=")[0]
        return f"option {option} is unknown; {close_names(option, self._option_string_actions)}"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")
