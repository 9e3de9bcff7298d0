"""A lease that another process left behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from sweeps.storage.holders import Holder, this_process


def leave(path: Path, *, seconds_ago: float = 0.0, **changes: Any) -> Holder:
    """A lease as another process would leave it behind."""
    holder = this_process()._replace(**changes)
    path.write_text(json.dumps(holder._asdict()))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return holder
