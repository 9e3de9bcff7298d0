"""The section of a kept page: its numbers are those of the sweep, whose truth is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.page_section import gates, grid, main, section
from analysis.results.analyse import Results
from tests.analysis.maker import CONFIRMATION, LADDER


def test_gates_tell_references_of_the_confirmation_scenarios(known: Results) -> None:
    table = gates(known).set_index("attack")
    assert list(table.index) == known.attacks
    assert table.loc["patch", "took"] == f"{len(CONFIRMATION)} of {len(CONFIRMATION)}"
    assert table.loc["flip", "took"] == f"0 of {len(CONFIRMATION)}"
    assert table.loc["patch", ["corrupted", "oracle", "second oracle"]].tolist() == [
        "0.8 (0.8 to 0.8)", "0.1 (0.1 to 0.1)", "0.12 (0.12 to 0.12)",
    ]  # fmt: skip


def test_the_grid_holds_the_points(known: Results) -> None:
    table = grid(known, "patch", LADDER)
    assert list(table.columns) == ["method", "2 %", "4 %", "6 %", "8 %", "10 %"]
    assert table["method"].iloc[0] == "retrain@b" and set(table["method"].iloc[1:]) == set(known.methods)
    points = known.points.set_index(["attack", "method", "budget"])
    cells = table.set_index("method")
    for method, gap in (("winner", "+0.010"), ("loser", "+0.000")):
        mean = points.loc[("patch", method, 0.08), "efficacy"]
        assert cells.loc[method, "8 %"] == f"{mean:.2f} ({gap})"
    assert cells.loc["careless", "4 %"].endswith("(+0.080)!")
    assert cells.loc["fragile", "10 %"].endswith(" 1F")


def test_chosen_budgets_are_the_columns(known: Results) -> None:
    text = section(known, budgets=[0.02, 0.1])
    assert "| method | 2 % | 10 % |" in text and "4 %" not in text.split("Verdict")[0].split("### patch")[1]


def test_a_section_has_every_attack_and_its_verdict(known: Results) -> None:
    text = section(known)
    assert re.findall(r"^### (.+)$", text, re.MULTILINE) == known.attacks
    assert text.count("Verdict: ") == len(known.attacks)
    assert "Verdict: the attack did not take in any of 3 confirmation scenarios" in text
    assert "-0.00" not in text
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 120


def test_command_line(known_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(known_folder)]) == 0
    assert "### patch" in capsys.readouterr().out
    assert main([str(known_folder / "nowhere")]) == 2
    assert "error: results folder" in capsys.readouterr().err
