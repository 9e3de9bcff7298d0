"""With more attacks than anybody reads, figures, page and terminal show some, say so, and the tables hold all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures.panels import KINDS
from analysis.pages.page import render
from analysis.pages.summary import summary
from analysis.reading.load import load_sweep
from analysis.results.analyse import Results, analyse
from analysis.tables.report_tables import MOST_LINES, all_tables, write_tables
from tests.analysis.maker import METHODS, write_sweep
from unlearn_core.checks import InputError

SHOWN, COUNT = 2, 4
NAMES = [f"patch{number:02d}" for number in range(COUNT)]


def write(folder: Path, attacks: list[str]) -> Path:
    methods = {"winner": METHODS["winner"]}
    return write_sweep(folder, attacks=attacks, dead=(), proposals=1, methods=methods)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sweeps") / "many", NAMES)


@pytest.fixture(scope="module")
def many(folder: Path) -> Iterator[Results]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.results.analyse.ATTACKS_SHOWN", SHOWN)
        yield analyse(load_sweep(folder))


def page(results: Results) -> str:
    return render(results, tables=all_tables(results), figures={kind: [] for kind in KINDS})


def test_the_first_are_shown_and_the_tables_hold_all(many: Results) -> None:
    assert list(many.shown) == NAMES[:SHOWN]
    assert many.attacks == NAMES
    tables = all_tables(many)
    for name in ("verdicts", "results", "comparisons", "best_per_budget"):
        assert set(tables[name]["attack"]) == set(NAMES), name
    (last,) = tables["verdicts"].loc[tables["verdicts"]["attack"] == NAMES[-1], "verdict"]
    assert "winner beats retrain@b" in last


def test_page_and_terminal_say_what_they_leave_out(many: Results) -> None:
    shown = page(many)
    assert shown.count('<div class="verdict beats">') == shown.count('<div class="plot" id="front-') == SHOWN
    assert f"of {SHOWN} of {COUNT} attacks are on this page" in shown
    assert f"<b>{NAMES[-1]}</b>" not in shown
    text = summary(many)
    assert re.findall(r"^== (\w+) ==", text, re.MULTILINE) == NAMES[:SHOWN]
    assert f"({SHOWN} of {COUNT} attacks; all: tables/verdicts.csv)" in text


def test_any_others_can_be_shown(folder: Path) -> None:
    chosen = analyse(load_sweep(folder), show=[NAMES[-1], NAMES[1]])
    assert chosen.shown == (NAMES[1], NAMES[-1])
    assert [v.attack for v in chosen.shown_verdicts] == [NAMES[1], NAMES[-1]]
    assert f"of 2 of {COUNT} attacks are on this page" in page(chosen)
    with pytest.raises(InputError, match="--show 'patch99' is unknown"):
        analyse(load_sweep(folder), show=["patch99"])


def test_few_attacks_are_all_shown_without_a_word(tmp_path: Path) -> None:
    few = analyse(load_sweep(write(tmp_path / "few", NAMES[:2])))
    assert "attacks are on this page" not in page(few)
    assert "of 2 attacks" not in summary(few)


def test_a_long_table_is_cut_for_people_and_whole_as_csv(tmp_path: Path) -> None:
    table = pd.DataFrame({"number": range(MOST_LINES + 1)})
    write_tables({"long": table, "short": table.head(MOST_LINES)}, tmp_path)
    text = (tmp_path / "long.md").read_text()
    assert text.endswith(f"\nFirst {MOST_LINES} of {MOST_LINES + 1} rows; all of them: `long.csv`.\n")
    assert len(text.splitlines()) == MOST_LINES + 4
    assert len(pd.read_csv(tmp_path / "long.csv")) == MOST_LINES + 1
    assert "First" not in (tmp_path / "short.md").read_text()
