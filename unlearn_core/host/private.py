"""Files of a command are for the user who started it, unless the environment says otherwise."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from unlearn_core.checks import InputError

UMASK = "UNLEARN_UMASK"


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """What is made meanwhile is for this user alone, or for those that UNLEARN_UMASK lets in. Raises InputError."""
    text = os.environ.get(UMASK, "077")
    if not re.fullmatch("0?[0-7]{3}", text, re.ASCII) or int(text, 8) & 0o700:
        raise InputError(
            f"{UMASK} is {text!r}; it must be three octal digits that begin with 0: 077 for you alone, 027 to let your "
            "group read, 007 to let it write as well"
        )
    before = os.umask(int(text, 8))
    try:
        yield
    finally:
        os.umask(before)
