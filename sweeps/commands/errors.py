"""Errors at the edge: one clear line and an exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from sweeps.execution.lost import KEPT, ExecutorLostError
from sweeps.storage.errors import StorageError
from unlearn_core.checks import InputError


def answered(command: Callable[[], int]) -> int:
    """What `command` returns.

    Bad input is one clear line and 2, storage that fails or a Ray that dies one and 1, an interruption 130.
    """
    try:
        return command()
    except InputError as problem:
        print(f"error: {_one_line(problem)}", file=sys.stderr)
        return 2
    except StorageError as problem:
        print(f"error: {_one_line(problem)}", file=sys.stderr)
        return 1
    except ExecutorLostError as problem:
        print(f"error: {problem}; {KEPT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; {KEPT}", file=sys.stderr)
        return 130


def _one_line(problem: Exception) -> str:
    """The message without line breaks; other blanks stay, as a quoted value may hold them."""
    return re.sub(r"\s*[\r\n]\s*", " ", str(problem).strip())
