"""With 28 methods and several attacks figures, page and terminal stay readable."""

from __future__ import annotations

import re

import pytest

from analysis.figures import front, style
from analysis.figures.panels import KINDS
from analysis.pages.interactive import OTHERS, front_spec, tradeoff_spec
from analysis.pages.page import render
from analysis.pages.summary import MOST_ROWS, summary
from analysis.reading.load import load_sweep
from analysis.results.analyse import HIGHLIGHTS, Results, analyse
from analysis.tables.report_tables import all_tables
from tests.analysis.plane_maker import write_plane

N_METHODS = 28


FIRST = "flip, discovery rate 0.5"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("sweeps") / "many"
    made = write_plane(folder, n_methods=N_METHODS, attacks=["flip"], rates=(0.5, 1.0), proposals=1)
    return analyse(load_sweep(made))


@pytest.mark.slow
def test_the_best_methods_have_looks_of_their_own(many: Results) -> None:
    looks = style.looks(many.methods, many.highlighted)
    told_apart = [looks[m] for m in many.highlighted]
    assert len(told_apart) == HIGHLIGHTS == len({look.colour for look in told_apart})
    assert sum(look.faint for look in looks.values()) == N_METHODS - HIGHLIGHTS
    assert "method_27" in many.highlighted, "the best by far"
    assert "method_00" not in many.highlighted
    for attack in many.attacks:
        points = front.curve(many, attack).points
        assert set(points.loc[points["on_front"], "method"]) <= set(many.highlighted)


def test_few_methods_are_all_told_apart() -> None:
    looks = style.looks([f"m{i}" for i in range(10)])
    assert len({(look.colour, look.marker) for look in looks.values()}) == 11
    assert style.others(looks) == ""


def test_the_page_has_one_legend_entry_for_the_others(many: Results) -> None:
    for spec in (front_spec(many, many.attacks[0], "flops"), tradeoff_spec(many, FIRST)):
        faint = [trace for trace in spec["data"] if trace.get("legendgroup") == OTHERS]
        assert len(faint) == N_METHODS - HIGHLIGHTS
        assert [trace["showlegend"] for trace in faint] == [True] + [False] * (len(faint) - 1)
        assert faint[0]["name"] == "21 other methods"
        assert all("method_" in trace["text"][0] for trace in faint), "hovering names each"


def test_terminal_shows_the_best_and_says_what_it_leaves_out(many: Results) -> None:
    text = summary(many)
    each = MOST_ROWS // 2
    assert len(re.findall(r"^method_\d\d +0\.\d\d±", text, re.MULTILINE)) == 2 * each
    assert f"(the best {each} of 28 methods; all: tables/results.csv)" in text
    assert "the best 5 of 28 methods ==" in text
    assert "retrain (discovered)" in text
    assert len(text.splitlines()) < 90


@pytest.mark.slow
def test_the_page_has_every_method(many: Results) -> None:
    page = render(many, tables=all_tables(many), figures={kind: [] for kind in KINDS})
    grid = page.split("Results by method and budget")[1].split("<details")[1]
    assert len(re.findall(r"<td[^>]*>method_\d\d<", grid)) == N_METHODS
    assert "Which metrics see what the primary metric sees?" in page
    assert "of 28 methods the 7 with the largest area" in page
