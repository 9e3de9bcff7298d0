"""What each fault cost, measured by the tests that bring it about; `tests.faults.table` makes the table of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FAULTS = (
    "driver killed", "driver on Ray killed", "worker killed in a training", "worker killed in a trial",
    "worker killed while it writes a record", "worker killed while it writes an artifact", "node lost",
    "node joins late", "Ray's own process on the driver's machine killed", "raylet killed while Ray starts",
    "gcs_server killed while Ray starts", "two drivers at once", "mirror killed while it makes MLflow's database",
    "mirror killed while it sends", "analysis killed",
    "a trial hangs", "a trial ends its process", "MLflow server killed", "disk full", "artifact store read-only",
    "artifact with a flipped byte", "record cut in the middle", "record damaged",
    "clock set back", "lease dated ahead", "checkpoint of a base model damaged",
    "upload to an object store cut off",
)  # fmt: skip
"""In the order of the table."""

Row = dict[str, Any]


class Ledger:
    """Per fault: how often it was tried, trials lost and repeated, and whether every result was equal."""

    def __init__(self, rows: Mapping[str, Row] | None = None) -> None:
        self.rows: dict[str, Row] = {name: dict(row) for name, row in (rows or {}).items()}

    def add(
        self, fault: str, *, tried: int = 1, lost: int, repeated: int, equal: bool, seeds: Iterable[int] = ()
    ) -> None:
        """fault: one of FAULTS. seeds: of random moments."""
        if fault not in FAULTS:
            raise ValueError(f"{fault!r} is not in FAULTS")
        row = self.rows.setdefault(fault, {"tried": 0, "lost": 0, "repeated": 0, "equal": True, "seeds": []})
        row["tried"] += tried
        row["lost"] += lost
        row["repeated"] += repeated
        row["equal"] = row["equal"] and equal
        row["seeds"] += seeds

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({fault: self.rows[fault] for fault in FAULTS if fault in self.rows}, indent=1))


def read(paths: Iterable[Path]) -> Ledger:
    """The sum of several ledgers."""
    whole = Ledger()
    for path in paths:
        for fault, row in json.loads(path.read_text()).items():
            whole.add(fault, **row)
    return whole


LEDGER = Ledger()
"""Of this process's tests, wherever they are."""
