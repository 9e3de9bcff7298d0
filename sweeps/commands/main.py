"""The command `unlearn`: a verb and its words. Loads nothing but what the verb needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sweeps.commands.verbs import VERBS
from unlearn_core.checks import close_names

PROG = "unlearn"
DESCRIPTION = "Measures whether machine unlearning removes data poisoning, and at what share of the cost of retraining."


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command; returns the exit code: 0 done, 1 some work failed, 2 bad input."""
    verb, *words = list(sys.argv[1:] if argv is None else argv) or [""]
    if verb in VERBS:
        return VERBS[verb].main(words, f"{prog} {verb}")
    if verb == "help" and words and words[0] in VERBS:
        return VERBS[words[0]].main(["--help"], f"{prog} {words[0]}")
    if verb in ("-h", "--help", "help"):
        print(overview(prog))
        return 0
    problem = f"verb {verb!r} is unknown; {close_names(verb, VERBS)}" if verb else f"give a verb: {', '.join(VERBS)}"
    print(f"error: {problem} (see {prog} --help)", file=sys.stderr)
    return 2


def overview(prog: str) -> str:
    """The help of the command: its verbs, with one line each."""
    width = max(map(len, VERBS))
    verbs = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    usage = f"usage: {prog} VERB [OPTION ...]"
    return "\n".join([usage, "", DESCRIPTION, "", *verbs, "", f"{prog} VERB --help shows the options of a verb."])
