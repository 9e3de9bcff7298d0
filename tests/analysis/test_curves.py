"""Figures of values and ROC curves and the table of attack costs: what is drawn is what the records say."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from analysis.figures import roc, values
from analysis.reading.load import load_sweep
from analysis.reading.measurements import metric_meanings
from analysis.results.analyse import Results, analyse
from analysis.tables.attack_costs import attack_costs
from tests.analysis.curve_maker import SEED_STEP, write_curves
from tests.analysis.maker import CONFIRMATION, LADDER, METHODS

T = 4.302652729911275  # 97.5 % quantile of Student's t with 2 degrees of freedom, from a table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return analyse(load_sweep(write_curves(tmp_path_factory.mktemp("sweeps") / "curves")))


def test_values_are_means_and_intervals_of_the_records(made: Results) -> None:
    shown = values.curve(made, "patch")
    rows = made.sweep.rows
    rows = rows[(rows["attack"] == "patch") & (rows["stage"] == "confirmation") & (rows["method"] == "loser")]
    assert shown.methods == ("retrain_at_budget", *METHODS)
    assert shown.budgets == LADDER
    for panel, column in zip(shown.panels, ("primary_value", "gaussian_tpr_exact", "test_accuracy"), strict=True):
        own = panel.points[panel.points["method"] == "loser"].set_index("budget")
        for budget in LADDER:
            x = rows.loc[rows["budget"] == budget, column].to_numpy(dtype=float)
            assert len(x) == len(CONFIRMATION)
            assert own.loc[budget, "mean"] == pytest.approx(np.mean(x))
            half = T * np.sqrt(np.sum((x - np.mean(x)) ** 2) / 2 / 3)
            assert own.loc[budget, "high"] - own.loc[budget, "low"] == pytest.approx(2 * half)


def test_lines_are_the_references_of_the_confirmation(made: Results) -> None:
    panels = values.curve(made, "patch").panels
    assert [p.label for p in panels] == ["gaussian score", "TPR at 1 % FPR", "test accuracy"]
    assert panels[0].lines["none"].mean == pytest.approx(0.8)
    assert panels[0].lines["oracle"].mean == pytest.approx(0.1)
    assert panels[1].lines["none"].mean == pytest.approx(0.2 + SEED_STEP * np.mean(CONFIRMATION))
    assert [p.label for p in values.curve(made, "noise").panels] == ["backdoor success", "test accuracy"]


def test_lost_seeds_are_in_no_mean_and_drawn_hollow(made: Results) -> None:
    points = values.curve(made, "patch").panels[0].points.set_index(["method", "budget"])
    assert points.loc[("fragile", 0.02), "n_counted"] == 3
    assert points.loc[("fragile", 0.06), ["n_counted", "n_seeds"]].tolist() == [2, 3]
    assert math.isfinite(points.loc[("fragile", 0.06), "mean"])
    figure = values.figure(values.curve(made, "patch"))
    assert "seeds lost" in [text.get_text() for text in figure.legends[0].get_texts()]
    plt.close(figure)


def test_the_drawn_marks_are_the_means(made: Results) -> None:
    shown = values.curve(made, "noise")
    figure, ax = plt.subplots()
    values.draw(ax, shown.panels[0], ["winner", "loser"], shown.budgets)
    drawn = [y for dots in ax.collections if hasattr(dots, "get_offsets") for y in np.asarray(dots.get_offsets())[:, 1]]
    points = shown.panels[0].points
    expected = points.loc[points["method"].isin(["winner", "loser"]), "mean"].to_numpy(dtype=float)
    assert set(np.round(expected, 9)) <= set(np.round(drawn, 9))
    plt.close(figure)


def test_one_seed_has_no_intervals_and_a_method_lost_on_it_a_cross(tmp_path: Path) -> None:
    results = analyse(load_sweep(write_curves(tmp_path / "one", confirmation=(10,))))
    shown = values.curve(results, "patch")
    assert shown.panels[0].points["low"].isna().all()
    fragile = shown.panels[0].points.query("method == 'fragile' and budget >= 0.06")
    assert fragile["mean"].isna().all()
    assert (fragile["n_counted"] == 0).all()
    figure = values.figure(shown)
    assert "all seeds lost" in [text.get_text() for text in figure.legends[0].get_texts()]
    plt.close(figure)
    lost = next(c for c in roc.curves(results, "patch") if c.method == "fragile")
    assert lost.budget == 0.04, "its largest budget that was reached"
    plt.close(roc.figure("patch", roc.curves(results, "patch")))


def test_far_values_stay_at_the_edge_unless_the_metric_is_a_share(made: Results) -> None:
    panel = values.curve(made, "patch").panels[0]
    far = panel.points.assign(mean=panel.points["mean"].where(panel.points["method"] != "loser", 50.0))
    _, high = values._limits(panel._replace(points=far))
    assert high < 0.8 + values.CUT * (0.8 - 0.1) + 0.5
    figure, ax = plt.subplots()
    values.draw(ax, panel._replace(points=far), ["loser"], [0.02])
    edge = ax.get_ylim()[1]
    assert any(edge in np.asarray(dots.get_offsets())[:, 1] for dots in ax.collections if hasattr(dots, "get_offsets"))
    plt.close(figure)


def test_roc_curves_are_means_and_ranges_over_seeds(made: Results) -> None:
    shown = {c.method: c for c in roc.curves(made, "patch")}
    assert list(shown) == ["none", "oracle", "retrain_at_budget", *METHODS]
    assert math.isnan(shown["none"].budget)
    assert shown["winner"].budget == 0.10
    for method, power in (("none", 0.5), ("oracle", 1.0), ("winner", 0.5)):
        own = shown[method].curves["gaussian"]
        low, middle, high = (SEED_STEP * f(CONFIRMATION) for f in (min, np.mean, max))
        assert own["mean"].to_numpy() == pytest.approx(own["rate"].to_numpy() ** power + middle)
        assert own["least"].to_numpy() == pytest.approx(own["rate"].to_numpy() ** power + low)
        assert own["largest"].to_numpy() == pytest.approx(own["rate"].to_numpy() ** power + high)
    loss = shown["winner"].curves["membership"].set_index("rate")["mean"]
    assert loss.index[loss.isna()].tolist() == [0.001, 0.002], "too few negatives"
    assert shown["winner"].poisons == 150


def test_without_gaussian_poisons_there_is_no_roc(made: Results, known: Results) -> None:
    assert roc.curves(made, "noise") == []
    assert roc.curves(known, "patch") == [], "records of an older version"


def test_points_of_curves_are_no_metrics_by_themselves(made: Results) -> None:
    assert not [name for name in metric_meanings(made.sweep) if "_roc_" in name]
    assert "gaussian_tpr_exact" in metric_meanings(made.sweep)


def test_analytic_lines_against_simulation() -> None:
    random = np.random.default_rng(0)
    rates = np.array([0.01, 0.1, 0.5])
    poisoned = random.normal(1.3, 1, 400_000)
    expected = [np.mean(poisoned > stats.norm.isf(rate)) for rate in rates]
    assert roc.shifted_normal(1.3, rates) == pytest.approx(expected, abs=0.003)
    shares = random.binomial(150, rates, size=(100_000, 3)) / 150
    low, high = roc.null_range(150, rates)
    inside = np.mean((shares >= low) & (shares <= high), axis=0)
    assert np.all(inside >= 0.95)
    narrower = np.mean((shares > low) & (shares < high), axis=0)
    assert np.all(narrower < 0.95)


def test_attack_costs_are_means_over_scenarios(made: Results, known: Results) -> None:
    table = attack_costs(made).set_index("attack")
    assert table.loc["patch", "n_scenarios"] == 5
    assert table.loc["patch", "craft_seconds"] == pytest.approx(np.mean([0, 1, 10, 11, 12]))
    assert table.loc["patch", "craft_trainings"] == pytest.approx(0.002)
    assert table.loc["patch", "surrogate_trainings"] == pytest.approx(4)
    assert attack_costs(known).empty, "older records do not tell"
