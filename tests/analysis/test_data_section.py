"""The report's section on the data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis.pages.data_section import CLASSES_SHOWN, data_section
from analysis.report import build_report
from tests.analysis.maker import INFO, write_sweep

CARD: dict[str, Any] = {
    "name": "own", "kind": "images", "classes": ["cat", "<b>dog</b>"], "shape": [8, 8, 3],
    "splits": [
        {"name": "train", "rows": 1200, "per_class": [700, 500], "low": 0, "high": 255},
        {"name": "validation", "rows": 10, "per_class": [5, 5], "low": 0, "high": 255},
        {"name": "test", "rows": 20, "per_class": [20, 0], "low": 3, "high": 250},
    ],
    "used": ["a.npz"], "columns": [], "coerced": [], "facts": [], "duplicates": [], "contradictions": [],
    "left_out": [{"text": "files that are no images", "count": 2, "examples": ["x.txt"], "rows": 0}],
    "absent": [{"text": "class has no test row", "count": 1, "examples": ["<b>dog</b>"], "rows": 0}],
    "overlaps": [], "suspicions": [], "errors": ["all rows are equal"],
}  # fmt: skip


def test_facts_classes_and_warnings_are_told() -> None:
    section = data_section(CARD)
    assert section is not None
    assert section.facts == [
        ("data set", "own (images)"),
        ("training rows", "1,200, pixels 0 to 255"),
        ("validation rows", "10, pixels 0 to 255"),
        ("test rows", "20, pixels 3 to 250"),
        ("shape of a row", "8 × 8 × 3"),
        ("used", "a.npz"),
        ("left out", "2 files that are no images (such as x.txt)"),
    ]
    assert section.classes == [(0, "cat", 700, 5, 20), (1, "<b>dog</b>", 500, 5, 0)]
    assert section.warnings == ["all rows are equal", "1 class has no test row (<b>dog</b>)"]


def test_many_classes_are_cut() -> None:
    names, counts = [str(i) for i in range(1000)], [1] * 1000
    splits = [split | {"per_class": counts} for split in CARD["splits"]]
    section = data_section(CARD | {"classes": names, "splits": splits})
    assert section is not None
    assert (len(section.classes), section.left_over) == (CLASSES_SHOWN, 1000 - CLASSES_SHOWN)


@pytest.mark.slow
def test_the_page_has_the_section_and_escapes_names(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "with", info=INFO | {"card": CARD})
    page = build_report(folder).path.read_text()
    section = re.search(r"<h2>Data</h2>.*?</section>", page, re.S)
    assert section is not None
    assert "&lt;b&gt;dog&lt;/b&gt;" in section[0]
    assert "<b>dog</b>" not in page
    assert "1 class has no test row" in section[0]


@pytest.mark.slow
def test_a_folder_without_a_card_has_no_section(tmp_path: Path) -> None:
    assert data_section(None) is None
    folder = write_sweep(tmp_path / "old", info=INFO)
    assert "<h2>Data</h2>" not in build_report(folder).path.read_text()
