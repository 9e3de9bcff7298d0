"""The ledger adds up, and the page tells of every fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.ledger import FAULTS, Ledger, read
from tests.faults.table import BEGIN, END, PAGE, put_into, table


def test_ledgers_add_up(tmp_path: Path) -> None:
    first, second = Ledger(), Ledger()
    first.add("disk full", lost=0, repeated=1, equal=True, seeds=[5])
    first.add("disk full", tried=3, lost=0, repeated=1, equal=True)
    second.add("disk full", lost=2, repeated=0, equal=False, seeds=[7])
    second.add("node lost", lost=0, repeated=0, equal=True)
    paths = [tmp_path / "first", tmp_path / "second"]
    for ledger, path in zip((first, second), paths, strict=True):
        ledger.write(path)
    whole = read(paths)
    assert whole.rows["disk full"] == {"tried": 5, "lost": 2, "repeated": 2, "equal": False, "seeds": [5, 7]}
    made = table(whole)
    assert "| node lost | 1 | 0 | 0 | yes |\n| disk full | 5 | 2 | 2 | **no** |\n" in made
    assert made.endswith("\nSeeds of the random moments: disk full: 5, 7.\n")


def test_a_fault_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="'disk ful' is not in FAULTS"):
        Ledger().add("disk ful", lost=0, repeated=0, equal=True)


def test_only_the_table_of_a_page_is_replaced() -> None:
    assert put_into(f"a\n{BEGIN}old\n{END}\nb\n", "new\n") == f"a\n{BEGIN}new\n{END}\nb\n"


def test_the_page_has_numbers_and_a_sentence_for_every_fault() -> None:
    page = PAGE.read_text()
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| 0 \| \d+ \| yes \|$", page.partition(BEGIN)[2].partition(END)[0], re.M)
    assert [fault for fault, _ in rows] == list(FAULTS)
    assert all(int(tried) for _, tried in rows)
    assert re.findall(r"^- \*\*([^*]+)\*\*: ", page, re.M) == list(FAULTS)
