"""Columns are defined once, in the fields of the records: what is derived from them, and what never changes."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from sweeps.schema.columns import Column, column, columns_of, record
from sweeps.schema.columns_page import PAGE, PARQUET, columns_table, page
from sweeps.schema.lines import DamagedError, from_line, sealed, to_content, to_line
from sweeps.schema.records import COLUMNS
from sweeps.storage.table import TYPES, compact
from sweeps.tracking.rows import params, points
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import record as write_records

FROZEN = Path(__file__).parent / "frozen"
LINES = (FROZEN / "lines.jsonl").read_bytes().splitlines(keepends=True)
"""As an older version wrote them: a reference, a tuning and a confirmation trial, and one that failed."""


class Colour(StrEnum):
    RED = "red"


@record
class Example:
    length: float = column("how long it is", unit="m", least=0)
    colour: Colour | None = column("how it looks | in the light")
    parts: tuple[int, ...]


def test_a_field_is_a_column_and_one_without_meaning_is_none() -> None:
    assert columns_of(Example) == {
        "length": Column(kind=float, may_be_empty=False, meaning="how long it is", unit="m", least=0),
        "colour": Column(kind=str, may_be_empty=True, meaning="how it looks | in the light"),
    }


def test_every_value_of_a_record_must_be_given() -> None:
    with pytest.raises(TypeError, match="colour"):
        Example(length=1.0, parts=())  # type: ignore[call-arg]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -P -m sweeps.schema.columns_page"


def test_a_row_of_the_page_says_what_the_field_says() -> None:
    *_, length, colour = columns_table(columns_of(Example)).splitlines()
    assert length == "| `length` | how long it is | m | double |"
    assert colour == r"| `colour` | how it looks \| in the light |  | string |"


def test_the_page_names_the_types_of_the_table() -> None:
    assert {kind: str(name) for kind, name in TYPES.items()} == PARQUET


def test_the_table_keeps_the_order_and_the_types_of_its_columns(done: Done, tmp_path: Path) -> None:
    write_records(tmp_path, done.trials)
    table = compact(tmp_path)
    assert table is not None
    schema = pyarrow.parquet.read_schema(table.path)
    frozen = json.loads((FROZEN / "columns.json").read_text())
    assert {field.name: str(field.type) for field in schema}.items() >= frozen.items()
    assert schema.names[: len(frozen)] == list(frozen)


@pytest.mark.parametrize("line", LINES, ids=["reference", "tuning", "confirmation", "failed"])
def test_a_line_of_an_older_version_is_read_and_written_as_it_is(line: bytes) -> None:
    assert to_line(from_line(line.rstrip(b"\n"))) == line


def test_a_column_that_a_line_lacks_is_empty() -> None:
    content = to_content(from_line(LINES[1].rstrip()))
    del content["regularity"], content["rungs"][0]["peak_memory_bytes"]
    found = from_line(sealed(content).rstrip())
    assert (found.regularity, found.rungs[0].peak_memory_bytes) == (None, None)


BEYOND: dict[str, Any] = {
    "discovery_rate": 1.5, "oracle_flops": -1.0, "oracle_seconds": float(10**301), "seed": None, "attack": 3,
    "discovered": 0.5, "attack_took": 1, "machine": "[]",
}  # fmt: skip


@pytest.mark.parametrize("name", BEYOND)
def test_a_value_that_its_column_cannot_hold_is_damage(name: str) -> None:
    content = to_content(from_line(LINES[1].rstrip())) | {name: BEYOND[name]}
    with pytest.raises(DamagedError, match=name):
        from_line(sealed(content).rstrip())


def test_what_mlflow_shows_of_a_trial_is_marked_in_its_fields() -> None:
    trial = replace(from_line(LINES[2].rstrip()), regularity="high", sweep="s")
    shown = params(trial)
    marked = {name for name, one in COLUMNS.items() if one.tracked == "parameter"}
    assert marked == {name for name in shown if not name.startswith(("settings.", "attack_settings."))}
    assert {"corrupted_value", "oracle_value"} <= {point.name for point in points(trial) if point.step == 0}
