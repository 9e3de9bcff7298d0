"""One setting against what it changes: values put side by side, with intervals known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis.results.verdict import display
from analysis.scan import scan as scans
from analysis.scan.figure import number, positions, write_figure
from analysis.scan.report import main
from analysis.scan.scan import SCAN_REFERENCES, read_scan, table
from tests.analysis.maker import write_sweep
from unlearn_core.checks import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two values of a setting: the same known sweep under two names."""
    root = tmp_path_factory.mktemp("scans")
    points = [{"value": value, "sweep": f"sides--{value}"} for value in ("26", "32")]
    for point in points:
        write_sweep(root / point["sweep"])
    made = {
        "name": "sides",
        "key": "rows.side",
        "axis": "side",
        "command": "python sweeps/commands/scan.py",
        "points": points,
    }
    (root / "sides").mkdir()
    (root / "sides" / "scan.json").write_text(json.dumps(made))
    return root / "sides"


def test_every_value_has_references_and_methods_of_test_rows(folder: Path) -> None:
    scan = read_scan(folder)
    assert scan.values == ("26", "32")
    for attack in scan.attacks:
        assert {"none", "oracle"} <= set(scan.models(attack))
        assert set(scan.models(attack)) - set(SCAN_REFERENCES)
    counted = scan.points.groupby(["order", "attack", "model", "seed"]).size()
    assert (counted == 1).all()
    assert scan.points.groupby("order").size().nunique() == 1


def test_methods_are_shown_at_the_largest_budget(folder: Path) -> None:
    points = read_scan(folder).points
    stored = pd.read_parquet(folder.parent / "sides--26" / "records.parquet")
    methods = points[~points["model"].isin(SCAN_REFERENCES)]
    assert set(methods["budget"].round(9)) == {
        round(stored.loc[stored["method"] == "retrain_at_budget", "budget"].max(), 9)
    }


def test_intervals_are_those_of_student(folder: Path) -> None:
    scan = read_scan(folder)
    attack = scan.attacks[0]
    p = scan.points
    x = p[(p["attack"] == attack) & (p["model"] == "none") & (p["order"] == 1)]["primary_value"].to_numpy()
    found = scan.interval(attack, "none", "primary_value", 1)
    low, high = stats.t.interval(0.95, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.slow
def test_the_command_writes_table_points_and_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert (folder / "table.txt").read_text().strip() in printed
    assert len(pd.read_csv(folder / "points.csv")) == len(read_scan(folder).points)
    assert (folder / "scan.png").stat().st_size > 10_000
    assert (folder / "scan.pdf").exists()
    assert table(read_scan(folder)).count("corrupted model") == 2 * len(read_scan(folder).attacks)


def test_what_is_no_scan_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not the folder of a scan" in capsys.readouterr().err
    with pytest.raises(InputError, match="not the folder of a scan"):
        read_scan(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("values", "scale", "expected"),
    [
        (("26", "28", "32"), "linear", [26, 28, 32]),
        (("0.1", "1.0"), "log", [0.1, 1.0]),
        (("none", "flip"), "linear", [0, 1]),
        (("0.0", "1"), "linear", [0, 1]),
        (("true", "1"), "linear", [0, 1]),
    ],
)
def test_values_lie_to_scale_where_they_are_numbers(values: tuple[str, ...], scale: str, expected: list[float]) -> None:
    figure, ax = plt.subplots()
    assert np.allclose(positions(ax, values), expected)
    assert ax.get_xscale() == scale
    texts = [tick.get_text() for tick in ax.get_xticklabels()]
    assert texts == list(values) or [float(text) for text in texts] == expected
    plt.close(figure)


def test_names_of_measures_are_columns_of_the_records() -> None:
    from sweeps.schema.records import RUNG_COLUMNS
    from unlearn_core.metrics import columns

    assert set(scans.MEASURES) <= {*RUNG_COLUMNS, *columns()}
    assert np.isnan(number("flip"))


def test_the_figure_has_a_panel_per_measure_with_the_means_of_the_points(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("analysis.scan.figure.save", lambda figure, stem: drawn.append(figure) or stem)
    scan = read_scan(folder)
    scan.points.loc[scan.points["order"] == 1, ["primary_value", "efficacy"]] *= 0.9  # the values must not look alike
    write_figure(scan, tmp_path / "scan")
    panels = [ax for ax in drawn[0].axes if ax.get_visible()]
    wanted = [(attack, measure) for attack in scan.attacks for measure in scan.measures(attack)]
    assert len(panels) == len(wanted) > 1
    for ax, (attack, measure) in zip(panels, wanted, strict=True):
        own = scan.points[scan.points["attack"] == attack]
        own = own[own["model"].isin(SCAN_REFERENCES) != (measure == "efficacy")]
        means = own.groupby(["model", "order"])[measure].mean().unstack()
        handles, labels = ax.get_legend_handles_labels()
        shown = {text: handle.lines[0].get_ydata() for handle, text in zip(handles, labels, strict=True)}
        assert set(shown) == {display(model) for model in means.index}
        for model, row in means.iterrows():
            assert shown[display(model)] == pytest.approx(row.to_numpy(), nan_ok=True)
    plt.close(drawn[0])
