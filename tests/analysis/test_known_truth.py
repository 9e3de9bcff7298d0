"""The known sweep is told as it was made: points, comparisons, verdicts, fronts, areas."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import front, ladder, tradeoff, tuning_gap
from analysis.reading.load import load_sweep
from analysis.reading.points import AXES, CASE, VALUES, points
from analysis.results.analyse import Results, analyse
from analysis.results.compare import BEATS, COSTLY, FAILING, NO_RIVAL, SCORED, UNDECIDED, WORSE, comparisons
from analysis.results.verdict import Verdict, list_budgets, verdict
from analysis.tables.report_tables import best_per_budget, sanity
from tests.analysis.maker import LADDER, Maker, rows, write_sweep


def outcomes(results: Results, method: str) -> list[str]:
    table = results.comparisons
    own = table[(table["attack"] == "patch") & (table["method"] == method) & (table["against"] == "retrain_at_budget")]
    return list(own.sort_values("budget")["outcome"])


def from_trials(trials: list[dict[str, object]], folder: Path) -> Results:
    folder.mkdir()
    rows(trials).to_parquet(folder / "records.parquet")
    return analyse(load_sweep(folder))


def test_outcomes_are_those_that_were_built_in(known: Results) -> None:
    assert outcomes(known, "winner") == [UNDECIDED, *[BEATS] * 4]
    assert outcomes(known, "tie") == [UNDECIDED] * 5
    assert outcomes(known, "careless") == [COSTLY] * 5
    assert outcomes(known, "loser") == [WORSE] * 5
    assert outcomes(known, "fragile") == [BEATS] * 2 + [FAILING] * 3


def test_means_are_those_of_the_records(known: Results, known_folder: Path) -> None:
    table = pd.read_parquet(known_folder / "records.parquet")
    own = table[(table["stage"] == "confirmation") & (table["method"] == "tie") & (table["attack"] == "noise")]
    expected = own.groupby("budget")["efficacy"].mean()
    points = known.points[(known.points["attack"] == "noise") & (known.points["method"] == "tie")]
    assert points.set_index("budget")["efficacy"].to_dict() == pytest.approx(expected.to_dict())


def test_verdicts(known: Results) -> None:
    patch, _, flip = known.verdicts
    assert patch.kind == "beats"
    assert "winner beats retrain@b at b >= 4 %" in patch.text
    assert "fragile beats retrain@b at b = 2, 4 %" in patch.text
    assert any("careless" in r and "exceeds the tolerance" in r for r in patch.remarks)
    assert any("fragile: 1 of 3 seeds failed at b >= 6 %" in r for r in patch.remarks)
    assert flip.kind == "not_taken"
    assert "did not take in any of 3" in flip.text


def test_attacks_that_did_not_take_are_never_averaged(known: Results) -> None:
    flip = known.points[known.points["attack"] == "flip"]
    assert flip["efficacy"].isna().all()
    assert (flip["n_not_taken"] == 3).all()
    assert "flip" not in set(known.hypervolumes["attack"])


@pytest.mark.parametrize(
    "methods, kind, words",
    [
        (["loser"], "retrain_beats_all", "retrain@b significantly beats every method at every budget"),
        (["loser", "tie"], "none_beats", "of 10 comparisons, 5 are undecided; retrain@b is significantly better in 5"),
        (["careless"], "none_beats", "cannot win for the reasons below, in 5"),
        (["tie"], "undecided", "undecided: no method differs significantly"),
    ],
)
def test_other_verdicts(tmp_path: Path, methods: list[str], kind: str, words: str) -> None:
    kept = [
        t for t in Maker(attacks=["patch"], dead=[]).trials() if t["stage"] == "reference" or t["method"] in methods
    ]
    (verdict,) = from_trials(kept, tmp_path / "some").verdicts
    assert verdict.kind == kind
    assert words in verdict.text


def test_without_confirmation_nothing_is_claimed(tmp_path: Path) -> None:
    kept = [t for t in Maker(dead=[]).trials() if t["stage"] == "tuning"]
    results = from_trials(kept, tmp_path / "tuning")
    assert {v.kind for v in results.verdicts} == {"no_results"}
    assert any("no confirmation trials" in note for note in results.notes)
    assert len(front.curve(results, "patch").cloud)


def test_one_seed_is_too_few(tmp_path: Path) -> None:
    results = analyse(load_sweep(write_sweep(tmp_path / "one", confirmation=[10])))
    assert results.verdicts[0].kind == "no_results"
    assert any("Only 1 confirmation seed" in note for note in results.notes)


def test_a_missing_seed_supports_no_win(tmp_path: Path) -> None:
    trials = Maker(attacks=["patch"], dead=[]).trials()
    kept = [t for t in trials if (t["stage"], t["method"], t["seed"]) != ("confirmation", "winner", 12)]
    results = from_trials(kept, tmp_path / "missing")
    points = results.points.set_index("method")
    assert (points.loc["winner", "n_missing"] == 1).all()
    assert BEATS not in outcomes(results, "winner")


def test_retrain_outside_the_tolerance_is_said(tmp_path: Path) -> None:
    trials = list(Maker(attacks=["patch"], dead=[]).trials())
    for trial in trials:
        if trial["method"] == "retrain_at_budget":
            trial["rungs"] = [r | {"utility_gap": 0.07 if r["budget"] < 0.05 else 0.0} for r in trial["rungs"]]
    results = from_trials(trials, tmp_path / "outside")
    assert outcomes(results, "loser") == [NO_RIVAL] * 2 + [WORSE] * 3
    assert any("retrain@b itself is outside the tolerance at b = 2, 4 %" in r for r in results.verdicts[0].remarks)


def test_nine_seeds_use_the_bootstrap_and_still_find_the_truth(tmp_path: Path) -> None:
    results = analyse(load_sweep(write_sweep(tmp_path / "nine", confirmation=range(10, 19))))
    assert outcomes(results, "winner")[1:] == [BEATS] * 4
    assert outcomes(results, "loser") == [WORSE] * 5


def test_front_is_over_eligible_unlearners(known: Results) -> None:
    shown = front.curve(known, "patch")
    on = shown.points[shown.points["on_front"]]
    assert set(on["method"]) == {"fragile"}
    assert on["eligible"].all()
    assert shown.band.mean == pytest.approx(0.985, abs=0.02)
    assert shown.outline[-1, 0] == pytest.approx(0.98 * LADDER[-1])


@pytest.mark.parametrize("axis, largest", [("flops", 0.098), ("seconds", 0.11), ("passes", 1000.0)])
def test_budget_axes(known: Results, axis: str, largest: float) -> None:
    assert front.curve(known, "noise", AXES[axis]).points["x"].max() == pytest.approx(largest)


def test_areas(known: Results) -> None:
    areas = known.hypervolumes[known.hypervolumes["attack"] == "patch"].set_index("front")
    # retrain@b is flat from its first rung (2 %) to its last (10 %): mean efficacy times 8 / 10
    points = known.points[(known.points["attack"] == "patch") & (known.points["method"] == "retrain_at_budget")]
    assert areas.loc["retrain_at_budget", "mean"] == pytest.approx(0.8 * points["efficacy"].mean())
    assert areas.loc["careless", "mean"] == 0
    assert areas.loc["all unlearners", "mean"] >= areas.loc["winner", "mean"]
    assert areas["low"].le(areas["mean"]).all()


def test_best_per_budget(known: Results) -> None:
    best = best_per_budget(known)
    assert list(best[best["attack"] == "patch"]["method"]) == ["fragile"] * 2 + ["winner"] * 3


def test_sanity_pools_z_over_confirmation(known: Results) -> None:
    table = sanity(known)
    pooled = table[table["seed"] == "mean, pooled z"].set_index("attack")
    assert pooled.loc["patch", "corrupted_z"] == pytest.approx(6 * math.sqrt(3))
    assert pooled["took"].to_dict() == {"patch": "3 of 3", "noise": "3 of 3", "flip": "0 of 3"}


def test_sanity_names_the_parts_of_a_bundle_that_did_not_take(known: Results) -> None:
    references = known.references.copy()
    references["failed_parts"] = references["attack"].map({"flip": "gaussian,label_flip"}).astype(object)
    table = sanity(replace(known, references=references)).set_index("attack")
    single = table[table["seed"] != "mean, pooled z"]
    assert set(single.loc["flip", "took"]) == {"no: gaussian, label_flip"}
    assert set(single.loc[["patch", "noise"], "took"]) == {"yes"}
    assert table[table["seed"] == "mean, pooled z"]["took"].to_dict()["flip"] == "0 of 3"


def test_tuning_gap_pairs_equal_settings(known: Results) -> None:
    both = tuning_gap.pairs(known)
    assert both["same_settings"].all()
    assert len(both) == 2 * 5 * len(LADDER)
    assert both["gap"].to_numpy() == pytest.approx((both["tuned"] - both["confirmed"]).to_numpy())


def test_three_way_front_keeps_cheap_and_faithful_points(known: Results) -> None:
    points = tradeoff.curve(known, "patch").points
    careless = points[points["method"] == "careless"]
    assert careless["on_front"].any(), "largest efficacy, though it costs utility"
    assert not points[points["method"] == "loser"]["on_front"].iloc[1:].any()
    assert np.all(np.diff(careless["size"]) > 0)


def test_ladder_has_one_curve_per_method(known: Results) -> None:
    curves = ladder.curves(known, "patch")
    assert [c.method for c in curves] == ["winner", "tie", "careless", "fragile", "loser"]
    assert all(len(c.own) == len(c.retrain) == len(LADDER) for c in curves)


@pytest.mark.parametrize(
    "budgets, expected",
    [
        ([0.04, 0.06, 0.08, 0.1], "b >= 4 %"),
        ([0.02, 0.1], "b = 2, 10 %"),
        ([0.1], "b = 10 %"),
        (LADDER, "every budget"),
    ],
)
def test_budgets_in_words(budgets: list[float], expected: str) -> None:
    assert list_budgets(budgets, LADDER) == expected


def crippled_rival(*, efficacy: float) -> tuple[pd.DataFrame, Verdict]:
    """Six seeds in which retrain@b removes all and loses 10 points of accuracy; the method loses none."""
    seeds, budgets = range(1, 7), (0.02, 0.1)
    noise = np.random.default_rng(0).normal(0, 0.01, size=(6, 2))
    frame = pd.DataFrame(
        [
            {
                "attack": "a", "method": method, "budget": budget, "seed": seed, "took": True, "failed": False,
                "counted": True, "n_scenarios": 6, "efficacy": (1.0 if rival else efficacy) + noise[i, j],
                "utility_gap": 0.1 if rival else 0.0, "retrain_at_budget_efficacy": 1.0, "retrain_at_budget_gap": 0.1,
                "retrain_efficacy": 1.0, "settings": "{}",
            }
            for i, seed in enumerate(seeds) for j, budget in enumerate(budgets)
            for method, rival in (("m", False), ("retrain_at_budget", True))
        ]
    ).reindex(columns=[*dict.fromkeys([*CASE, "seed", "took", "failed", "counted", "n_scenarios", "settings", *VALUES,
                                       "retrain_at_budget_gap", "retrain_efficacy"])])  # fmt: skip
    means = points(frame, tolerance=0.02)
    table = comparisons(frame, means, tolerance=0.02)
    return table, verdict("a", seeds=frame, points=means, comparisons=table)


def test_a_rival_without_accuracy_is_beaten_by_score_not_by_efficacy() -> None:
    table, told = crippled_rival(efficacy=0.9)
    scored = table[table["against"] == SCORED]
    assert list(scored["outcome"]) == [BEATS] * 2
    assert scored["difference"].tolist() == pytest.approx([0.9 - (1 - 0.8)] * 2, abs=0.02)  # 10 * (0.1 - 0.02) = 0.8
    assert list(table.loc[table["against"] == "retrain_at_budget", "outcome"]) == [NO_RIVAL] * 2
    assert told.kind == "beats_with_utility"
    assert told.text.startswith("counting utility, m beats retrain@b at every budget")


def test_doing_nothing_beats_no_rival() -> None:
    table, told = crippled_rival(efficacy=0.0)
    assert BEATS not in set(table["outcome"])
    assert told.kind != "beats_with_utility"


def test_an_attack_that_took_nowhere_is_told_with_several_rates_too(known_folder: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(known_folder / "records.parquet")
    dead = table["attack"] == "flip"
    table = table[~dead | (table["stage"] == "reference")]  # its studies never ran
    other = table[~(table["attack"] == "flip")].assign(discovery_rate=0.5)
    other["trial_id"] += "-half"
    pd.concat([table, other]).to_parquet(tmp_path / "records.parquet")
    kinds = {v.attack: v.kind for v in analyse(load_sweep(tmp_path)).verdicts}
    assert [kind for attack, kind in kinds.items() if attack.startswith("flip")] == ["not_taken"]
