"""Outlives the process that runs a sweep on Ray: `python -m sweeps.execution.ray_keeper LAST_WORDS [FOLDER]`.

That process holds the other end of this one's standard input and says goodbye when it is done. If it ends without,
because it was killed or because Ray's own code ended it, this one says the last words in its place, kills what is left
of its Ray, whose agents would keep their ports open for more than a minute, and removes Ray's folder.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from sweeps.execution.ray_home import GOODBYE, clear


def main(last_words: str, folder: str) -> None:
    """Wait for the end of the process that started this one, and clear up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not sys.stdin.buffer.read().startswith(GOODBYE):
        print(last_words, file=sys.stderr, flush=True)
    if folder:
        clear(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
