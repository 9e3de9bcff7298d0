"""Agreement, metrics and the plane of a made sweep over discovery rates are told as they were made."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures import plane as plane_figure
from analysis.pages.summary import summary
from analysis.reading.load import Sweep, load_sweep
from analysis.reading.points import references
from analysis.report import build_report
from analysis.results.agreement import agreement, sentence
from analysis.results.analyse import Results, analyse
from analysis.results.plane import CELL, OURS, PUBLISHED, average_table, cell_table, plane
from analysis.statistics.intervals import mean_interval
from analysis.tables.metric_table import metric_table
from analysis.tables.report_tables import sanity
from tests.analysis.maker import LADDER, write_sweep
from tests.analysis.plane_maker import ATTACKS, ORACLE, RATES, UTILITY, write_plane

FLIP = "flip, discovery rate 0.5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plane(tmp_path_factory.mktemp("sweeps") / "plane", attacks=["patch", "flip"], proposals=1)


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return analyse(load_sweep(folder))


@pytest.fixture(scope="module")
def table(results: Results) -> pd.DataFrame:
    own = results.agreement
    return own[(own["attack"] == FLIP) & (own["stage"] == "confirmation")].set_index("metric")


def stored(folder: Path, **wanted: object) -> pd.DataFrame:
    rows = pd.read_parquet(folder / "records.parquet")
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows


def test_attack_and_rate_stay_apart(results: Results) -> None:
    rows = results.sweep.rows
    cases = rows.groupby("attack")[["base_attack", "discovery_rate"]].agg(["nunique", "first"])
    assert (cases.xs("nunique", axis=1, level=1) == 1).all(axis=None)
    assert tuple(cases.loc[FLIP].xs("first", level=1)) == ("flip", 0.5)


@pytest.mark.slow
def test_ensembles_are_no_results(folder: Path, results: Results, tmp_path: Path) -> None:
    rows = pd.read_parquet(folder / "records.parquet")
    rows[rows["stage"] != "ensemble"].to_parquet(tmp_path / "records.parquet")
    (tmp_path / "sweep.json").write_text((folder / "sweep.json").read_text())
    without = analyse(load_sweep(tmp_path))
    pd.testing.assert_frame_equal(without.points, results.points)
    pd.testing.assert_frame_equal(without.comparisons, results.comparisons)
    assert without.verdicts == results.verdicts
    assert "ensemble" not in set(results.sweep.rows["stage"])
    assert "klom_forget" not in set(without.agreement["metric"])


def test_built_in_agreement_is_found(table: pd.DataFrame) -> None:
    assert table.loc["faithful", ["closeness", "closeness_low", "closeness_high"]].tolist() == pytest.approx([1] * 3)
    assert table.loc["faithful", "raw"] == pytest.approx(1.0)
    assert table.loc["healed", "raw"] == pytest.approx(-1.0, abs=0.01)
    assert table.loc["klom_forget", "closeness"] == pytest.approx(1.0), "joined from the ensemble"
    assert table.loc["opposed", "closeness_high"] < -0.9
    assert table.loc["membership_deaf", "closeness_low"] < 0 < table.loc["membership_deaf", "closeness_high"]
    assert table.loc["still", "reason"] == "constant"
    assert math.isnan(table.loc["still", "closeness"])
    assert "primary_value" not in table.index


def test_missing_values_are_left_out_and_counted(table: pd.DataFrame) -> None:
    assert table.loc["faithful", "n"] == 6 * 3 * len(LADDER)
    assert table.loc["sparse", "n"] == 6 * 3 * 3
    assert table.loc["sparse", "closeness"] == pytest.approx(1.0)


def test_sentence_names_who_sees_and_who_does_not(results: Results) -> None:
    told = sentence(results.agreement, FLIP)
    kinds = dict(part.split(": ", 1) for part in told.split("; ")[1:])
    assert "0 of 1 membership measures see what score sees" in told
    assert "faithful +1.00" in kinds["rank models as score does (interval above 0.5)"]
    assert "membership_deaf" in kinds["no agreement shown (interval includes 0)"]
    assert "opposed" in kinds["go against it (interval below 0)"]
    assert "still (constant)" in kinds["cannot be said"]
    assert "and 3 more" in sentence(results.agreement, FLIP, shown=2)
    assert sentence(results.agreement, "unknown") == ""
    assert f"(up to {6 * 3 * len(LADDER)} rungs, 6 methods, 3 seeds)" in told
    assert "faithful +1.00," in told, "has the whole sample"
    assert f"sparse +1.00 ({6 * 3 * 3} rungs)" in told
    assert "18 rungs, 6 methods, 1 seed)" in sentence(results.agreement.assign(n=18, n_seeds=1), FLIP)


@pytest.mark.parametrize("methods, told", [(4, "too few methods"), (5, "too little varies")])
def test_where_nothing_can_be_said_the_sentence_is_short(results: Results, methods: int, told: str) -> None:
    unknown = results.agreement.assign(closeness_low=math.nan, closeness_high=math.nan, n_methods=methods)
    assert sentence(unknown, FLIP) == f"{told} to say which of them agree with score"


def test_where_efficacy_hardly_varies_the_sentence_says_nothing(results: Results) -> None:
    rows = results.sweep.rows
    flat = replace(results.sweep, rows=rows.assign(efficacy=rows["efficacy"] / 50))
    told = sentence(agreement(flat, references(flat)), FLIP)
    assert told.startswith("nothing to say: over confirmation efficacy differs by 0.0")
    assert "faithful" not in told


def test_metrics_have_a_noise_floor_and_a_best_value(folder: Path, results: Results) -> None:
    table = metric_table(results).set_index(["attack", "metric"])
    rows = stored(folder, attack="flip", discovery_rate=0.5, held_out="test", stage="reference")
    second, first = (rows[rows["method"] == m].set_index("seed")["faithful"] for m in ("retrain", "oracle"))
    found = table.loc[(FLIP, "faithful")]
    assert found["noise_floor"] == pytest.approx((second - first).abs().mean())
    assert (found["corrupted"], found["oracle"]) == pytest.approx((0.8, 0.5))
    own = stored(folder, attack="flip", discovery_rate=0.5, stage="confirmation", method=found["best_method"])
    own = own[np.isclose(own["budget"], found["best_budget"])]
    assert found["best_value"] == pytest.approx(own["faithful"].mean())
    assert found["best_distance"] == pytest.approx((own["faithful"] - 0.5).abs().mean())
    assert table.loc[(FLIP, "klom_forget"), "oracle"] == 0
    assert table.loc[(FLIP, "klom_forget"), "meaning"] == "distance from the oracles; target: 0"


def test_cells_are_means_at_the_largest_budget(folder: Path, results: Results) -> None:
    assert results.plane is not None
    assert results.plane.rows == ("flip", "patch"), "low regularity first"
    cells = cell_table(results.plane).set_index(["method", "base_attack", "discovery_rate"])
    own = stored(folder, attack="patch", discovery_rate=0.1, stage="confirmation", method="method_03")
    own = own[np.isclose(own["budget"], LADDER[-1])]
    found = cells.loc[("method_03", "patch", 0.1)]
    assert found["product_percent"] == pytest.approx(100 * (own["healed"] * own["utility"]).mean())
    assert found["healed_percent_high"] == pytest.approx(mean_interval(100 * own["healed"]).high)


def test_intervals_stay_in_the_possible_range(folder: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(folder / "records.parquet")
    wide = (rows["method"] == "method_03") & (rows["stage"] == "confirmation")
    rows.loc[wide, "healed"] = rows.loc[wide, "seed"].map({10: 0.0, 11: 0.5, 12: 1.0})
    rows.loc[wide, "efficacy"] = rows.loc[wide, "seed"].map({10: -2.0, 11: 0.5, 12: 1.0})
    assert mean_interval([0, 50, 100]).low < 0
    rows.to_parquet(tmp_path / "records.parquet")
    shown = analyse(load_sweep(tmp_path)).plane
    assert shown is not None
    found = cell_table(shown).set_index(CELL).loc[("method_03", "flip", 0.5)]
    assert (found["healed_percent_low"], found["healed_percent_high"]) == (0, 100)
    assert found["efficacy_low"] < -1, "efficacy has no lower end"
    assert found["efficacy_high"] == 1


@pytest.mark.parametrize("largest, budget", [(0.1, 0.1), (0.05, 0.04), (0.3 - 0.2, 0.1)])
def test_the_budget_is_the_largest_allowed(results: Results, largest: float, budget: float) -> None:
    found = plane(results.sweep, references(results.sweep), largest=largest)
    assert found is not None
    own = found.seeds[~found.seeds["method"].isin(["none", "oracle", "retrain_discovered"])]
    assert set(own["budget"]) == {budget}


@pytest.mark.slow
def test_a_single_poison_is_one_column_whatever_its_share(folder: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(folder / "records.parquet")
    few = rows["discovery_rate"] == 0.1
    rows.loc[few, "discovery_rate"] = rows.loc[few, "attack"].map({"flip": 0.01, "patch": 0.02})
    rows.assign(discovered=np.where(few, 1, 50)).to_parquet(tmp_path / "records.parquet")
    shown = analyse(load_sweep(tmp_path)).plane
    assert shown is not None
    assert shown.rates == (0.01, 0.5, 1.0)
    assert shown.single == 0.01
    assert {"flip, discovered 1 of 100", "patch, discovered 1 of 50"} < set(load_sweep(tmp_path).rows["attack"])
    cells = cell_table(shown)
    assert cells.loc[cells["single_poison"], "discovery_rate"].unique() == [0.01]
    panels = plane_figure.curves(shown, ["method_01"])["product"]
    assert "one: a single poison" in plane_figure.notes(panels)
    ax = Figure().subplots()
    plane_figure.draw(ax, panels[0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["one", "50", "100"]
    assert shown.seeds.groupby(["method", "base_attack"])["discovery_rate"].nunique().min() == 3


def test_sanity_tells_what_retraining_with_undiscovered_poisons_leaves(results: Results) -> None:
    told = sanity(results)
    left = told[told["seed"] == "mean, pooled z"].set_index("attack")["retrain_discovered"]
    assert left[FLIP] == pytest.approx(0.8 - 0.7 * 0.5)
    assert math.isnan(left["flip, discovery rate 1"])


def test_where_all_is_discovered_retraining_without_it_is_the_oracle(results: Results) -> None:
    assert results.plane is not None
    cells = cell_table(results.plane).set_index(["method", "base_attack", "discovery_rate"])
    assert cells.loc[("retrain_discovered", "flip", 0.5), "healed_percent"] == pytest.approx(100 * 0.5 * 0.5)
    assert cells.loc[("retrain_discovered", "flip", 1.0), "healed_percent"] == pytest.approx(100 * ORACLE)


@pytest.mark.slow
def test_averages_are_over_seeds_that_have_every_cell(folder: Path, results: Results, tmp_path: Path) -> None:
    assert results.plane is not None
    whole = average_table(results.plane, results.methods).set_index("method")
    assert whole.loc["oracle", "product_percent"] == pytest.approx(100 * ORACLE * UTILITY)
    assert (whole.loc["method_01", ["n_cells", "n_seeds"]] == [2 * len(RATES), 3]).all()
    own = results.plane.seeds[results.plane.seeds["method"] == "method_01"].groupby("seed")["healed"].mean()
    expected = mean_interval(100 * own)
    assert whole.loc["method_01", "healed_percent_low"] == pytest.approx(expected.low)

    rows = pd.read_parquet(folder / "records.parquet")
    lost = (rows["method"] == "method_01") & (rows["seed"] == 11) & (rows["attack"] == "flip")
    rows.loc[lost & (rows["stage"] == "confirmation") & (rows["discovery_rate"] == 0.1), "status"] = "diverged"
    rows.to_parquet(tmp_path / "records.parquet")
    part = analyse(load_sweep(tmp_path)).plane
    assert part is not None
    found = average_table(part, ["method_01"]).set_index("method")
    assert found.loc["method_01", "n_seeds"] == 2
    assert found.loc["method_01", "healed_percent"] == pytest.approx(100 * own.drop(11).mean())
    panel = next(c for c in plane_figure.curves(part, ["method_01"])["product"] if c.method == "method_01")
    assert panel.partial.tolist() == [[True, False, False], [False] * 3]
    assert "grey" not in plane_figure.notes([panel])
    holes = panel._replace(values=np.where([[True, False, False], [False] * 3], np.nan, panel.values))
    assert "grey: no value" in plane_figure.notes([panel, holes])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The three kinds of corruption of the published figures on CIFAR-10."""
    folder = write_plane(tmp_path_factory.mktemp("sweeps") / "three", n_methods=1, rates=(0.5, 1.0), proposals=1)
    sweep = load_sweep(folder)
    names = {"flip": "label_flip", "confusion": "interclass_confusion", "patch": "badnets"}
    spec = {"attacks": [{"name": name, "label": label} for label, name in names.items()]}
    return replace(sweep, rows=sweep.rows.assign(dataset="cifar10"), info={"spec": spec})


def test_published_figures_are_marked(three: Sweep) -> None:
    results = analyse(three)
    assert results.plane is not None
    table = average_table(results.plane, results.methods)
    published = table[table["source"] != OURS].set_index("method")
    assert list(published.index) == list(PUBLISHED)
    assert published["source"].str.contains("other setting.*arXiv:2505.17730").all()
    assert published.loc["REM", "product_percent"] == 73.4


@pytest.mark.slow
@pytest.mark.parametrize("change", ["data set", "attack missing", "kind of flips", "attack"])
def test_published_figures_stand_beside_their_own_data_set_and_corruption_only(three: Sweep, change: str) -> None:
    rows = three.rows
    if change == "data set":
        rows = rows.assign(dataset="digits")
    if change == "attack missing":
        rows = rows[rows["base_attack"] != "confusion"]
    if change == "kind of flips":
        rows = rows.assign(regularity=rows["regularity"].replace("low", "medium"))
    labels = [a["label"] for a in three.spec["attacks"]]
    info = {"spec": {"attacks": [{"name": "sig", "label": label} for label in labels]}} if change == "attack" else None
    shown = analyse(replace(three, rows=rows, info=info or three.info)).plane
    assert shown is not None
    assert set(average_table(shown, ["method_00"])["source"]) == {OURS}


def test_where_labels_are_right_averages_are_of_efficacy_and_apart(three: Sweep) -> None:
    right = three.rows["base_attack"] == "patch"
    healed = three.rows["healed"].mask(right)
    shown = analyse(replace(three, rows=three.rows.assign(healed=healed))).plane
    assert shown is not None
    table = average_table(shown, ["method_00"]).set_index(["method", "over"])
    assert table.loc[("oracle", "healed"), "n_cells"] == 2 * 2
    assert table.loc[("oracle", "healed"), "product_percent"] == pytest.approx(100 * ORACLE * UTILITY)
    assert table.loc[("oracle", "efficacy"), "n_cells"] == 2
    assert math.isnan(table.loc[("oracle", "efficacy"), "product_percent"])


def test_panels_start_with_references_and_go_from_best_to_worst(results: Results) -> None:
    assert results.plane is not None
    panels = plane_figure.curves(results.plane, results.methods)["product"]
    names = [p.method for p in panels]
    assert names[:4] == ["none", "oracle", "retrain_discovered", "retrain_at_budget"]
    assert names[4:] == sorted(results.methods, reverse=True)
    assert panels[0].attacks == ("flip (low)", "patch (high)")


@pytest.mark.slow
def test_without_healed_the_plane_shows_efficacy(folder: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(folder / "records.parquet").drop(columns=["healed", "utility_times_healed", "regularity"])
    rows[rows["method"] != "method_00"].to_parquet(tmp_path / "records.parquet")
    results = analyse(load_sweep(tmp_path))
    assert results.plane is not None
    (panels,) = plane_figure.curves(results.plane, results.methods).values()
    oracle = next(p for p in panels if p.method == "oracle")
    assert oracle.measure == "efficacy"
    assert oracle.values.tolist() == [[1.0] * 3] * 2
    assert set(oracle.attacks) == {"flip", "patch"}
    assert "REM" not in summary(results)


@pytest.mark.slow
def test_the_plane_is_drawn_and_named_on_the_page(tmp_path: Path) -> None:
    report = build_report(write_plane(tmp_path / "small", n_methods=1, attacks=["flip"], rates=(0.5, 1), proposals=1))
    assert (report.path.parent / "figures" / "plane_product.png").read_bytes().startswith(b"\x89PNG")
    assert (report.path.parent / "figures" / "plane_product.pdf").read_bytes().startswith(b"%PDF")
    page = report.path.read_text(encoding="utf-8")
    assert "Incomplete knowledge of the poison" in page
    for words in ("retrain (discovered)", "plane_product.png"):
        assert words in page
    assert "arXiv:2505.17730" not in page, "no published figures beside digits"


def test_one_rate_and_no_healed_make_no_plane(tmp_path: Path) -> None:
    assert analyse(load_sweep(write_sweep(tmp_path / "usual"))).plane is None


@pytest.fixture(scope="module")
def one_rate(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return load_sweep(write_plane(tmp_path_factory.mktemp("one") / "s", rates=[0.5], proposals=1, n_methods=2))


def test_one_rate_and_several_attacks_with_healed_make_a_plane(one_rate: Sweep) -> None:
    shown = analyse(one_rate).plane
    assert shown is not None
    assert (shown.rows, shown.rates) == (tuple(ATTACKS), (0.5,))


@pytest.mark.parametrize("regularity, lost, rows", [
    ({"patch": "low", "confusion": "low"}, "", None),
    ({"patch": ""}, "confusion", None),
    ({}, "confusion", ("flip", "patch")),
])  # fmt: skip
def test_one_rate_needs_healed_attacks_of_different_regularity(
    one_rate: Sweep, regularity: dict[str, str], lost: str, rows: tuple[str, ...] | None
) -> None:
    told = one_rate.rows
    of_attack = told["base_attack"].map(ATTACKS | regularity)
    healed = told["healed"].mask(told["base_attack"] == lost)
    shown = analyse(replace(one_rate, rows=told.assign(regularity=of_attack, healed=healed))).plane
    assert (shown.rows if shown else None) == rows
