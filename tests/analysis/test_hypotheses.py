"""Tables and verdicts on the hypotheses, from synthetic numbers whose truth is known."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.hypotheses import figures
from analysis.hypotheses.report import build, main
from analysis.hypotheses.tables import (
    comparison,
    direction_table,
    distance_table,
    effect_table,
    load,
    per_seed,
    shift_table,
)
from sweeps.schema.hypotheses import HYPOTHESIS_COLUMNS
from unlearn_core.checks import InputError

SEEDS = 10
FACTOR = {"dirty": 3.0, "same": 1.0, "mild": 0.5}  # poison's distance as a multiple of the random rows'


def rows():
    random = np.random.default_rng(4)
    made = []
    for attack, factor in FACTOR.items():
        for seed in range(SEEDS):
            base = 10 + random.normal(0, 2)  # shared by poison and controls: what pairing takes out
            for group, times in (("poison", factor), ("random", 1.0), ("matched", 1.1)):
                for share in (0.5, 1.0):
                    value = base * times * share * np.exp(random.normal(0, 0.05))
                    made += [row(attack, seed, group, "softmax", "l1", share, value)]
                    made += [row(attack, seed, group, "softmax", "l2", share, value / 4)]
                made += [row(attack, seed, group, "softmax", "residual", 1.0, times)]
                for problem in ("softmax", "squared"):
                    cosine = 0.5 - 0.2 * (attack == "dirty") * (group == "poison") + random.normal(0, 0.01)
                    made += [row(attack, seed, group, problem, "full_cosine", 0, cosine)]
                    made += [row(attack, seed, group, problem, "batch_cosine", i, cosine / 10) for i in range(3)]
                    made += [row(attack, seed, group, problem, "residual_share", r, 1 - r) for r in (0.1, 0.5)]
                    for measure in ("path_cosine_batch", "path_cosine_full", "path_length_batch", "path_length_full"):
                        made += [row(attack, seed, group, problem, measure, k, k / 200) for k in (1, 100)]
            made += [row(attack, seed, "corrupted", "softmax", "took", 0, float(seed < 7))]
            for group, value in (("corrupted", 0.9), ("oracle", 0.1)):
                made += [row(attack, seed, group, "softmax", "primary", 0, value)]
                made += [row(attack, seed, group, "softmax", "test_accuracy", 0, value)]
    return pd.DataFrame(made)


def row(*values):
    return dict(zip(HYPOTHESIS_COLUMNS, values, strict=True))


@pytest.fixture(scope="module")
def measured():
    return rows()


def test_distances_are_judged_in_pairs(measured):
    table = shift_table(measured).set_index("attack")
    assert dict(table["against_random"]) == {"dirty": "above", "same": "not above", "mild": "below"}
    assert dict(table["against_matched"]) == {"dirty": "above", "same": "below", "mild": "below"}
    assert dict(table["ratio"]) == {attack: pytest.approx(factor, rel=0.05) for attack, factor in FACTOR.items()}
    assert dict(table["l2_against_random"]) == {"dirty": "above", "same": "not above", "mild": "below"}
    assert table.loc["mild", "l2_ratio"] == pytest.approx(table.loc["mild", "ratio"]), "every value is a quarter"
    assert (table["ratio_low"] < table["ratio"]).all()
    assert (table["ratio"] < table["ratio_high"]).all()
    assert set(table["took"]) == {"7 of 10"}
    assert table.loc["dirty", "poison"] == pytest.approx(30, rel=0.15)
    assert table.loc["dirty", "residual_poison"] == 3


def test_verdicts_count_seeds_in_which_the_attack_took(measured):
    """Attack `dirty` is above on the seven seeds in which it took; in the other tables it never took, or once."""
    assert dict(shift_table(measured).set_index("attack")["verdict_taken"]) == {
        "dirty": "above",
        "same": "not above",
        "mild": "not above",
    }
    for count in (0, 1):
        own = measured.copy()
        own.loc[(own["measure"] == "took") & (own["attack"] == "dirty") & (own["seed"] >= count), "value"] = 0.0
        table = shift_table(own).set_index("attack")
        assert table.loc["dirty", ["took", "verdict", "verdict_taken"]].tolist() == [f"{count} of 10", "above", ""]


def test_a_verdict_may_rest_on_seeds_that_did_not_take(measured):
    own = measured.copy()
    taken = (own["attack"] == "dirty") & (own["measure"] == "l1") & (own["group"] == "poison") & (own["seed"] < 7)
    own.loc[taken, "value"] /= 3  # above only where the attack did not take
    table = shift_table(own).set_index("attack")
    assert table.loc["dirty", "verdict_taken"] == "not above"


def test_no_attack_took_at_all(measured):
    none = measured.assign(value=measured["value"].where(measured["measure"] != "took", 0.0))
    assert set(shift_table(none)["verdict_taken"]) == {""}


def test_differences_are_per_seed():
    values = pd.DataFrame(
        {"poison": [2.0, 3.0, 5.0], "random": [1.0, 2.0, 3.0], "matched": [2.0, 3.0, 5.0]},
        index=pd.MultiIndex.from_product([["a"], range(3)], names=["attack", "seed"]),
    )
    table = comparison(values).set_index("control")
    assert table.loc["random", "difference"] == pytest.approx(4 / 3)
    assert table.loc["matched", "difference"] == 0
    assert table.loc["matched", "verdict"] == "not above"


def test_more_attacks_make_verdicts_stricter(measured):
    values = per_seed(measured, "l1", at=1)
    alone = comparison(values[values.index.get_level_values("attack") == "dirty"])
    assert (comparison(values).set_index("attack").loc["dirty", "q"].min()) >= alone["q"].min()
    table = comparison(values)
    assert (table["q"] >= table["p"]).all()


def test_directions_are_judged_against_random_rows(measured):
    table = direction_table(measured).set_index(["problem", "attack"])
    assert len(table) == 6
    for problem in ("softmax", "squared"):
        assert table.loc[(problem, "dirty"), "full_verdict"] == "below"
        assert table.loc[(problem, "same"), "full_verdict"] == "not above"
    assert table.loc[("softmax", "dirty"), "full_poison"] == pytest.approx(0.3, abs=0.02)
    assert table.loc[("softmax", "dirty"), "batch_poison"] == pytest.approx(0.03, abs=0.002), "a mean over batches"
    assert table.loc[("softmax", "dirty"), "update_random"] == 0.5
    assert table.loc[("softmax", "dirty"), "outside_poison"] == pytest.approx(0.9)


def test_without_directions_there_is_no_table_of_them(measured):
    assert direction_table(measured[measured["measure"] == "l1"]).empty


def test_distances_by_share_are_means_over_seeds(measured):
    table = distance_table(measured).set_index(["attack", "share"])
    own = measured[(measured["measure"] == "l1") & (measured["attack"] == "mild") & (measured["group"] == "matched")]
    assert table.loc[("mild", 0.5), "matched"] == pytest.approx(own.loc[own["at"] == 0.5, "value"].mean())


def test_effects_stand_beside_the_distance(measured):
    table = effect_table(measured).set_index("attack")
    assert table.loc["same", "primary_corrupted"] == pytest.approx(0.9)
    assert table.loc["dirty", "l1_poison"] > 2 * table.loc["same", "l1_poison"]


def test_bands_are_quantiles_of_the_seeds(measured):
    own = measured[(measured["measure"] == "l1") & (measured["attack"] == "same") & (measured["group"] == "random")]
    x, middle, low, high = figures.bands(own.sample(frac=1, random_state=0))
    assert x.tolist() == [0.5, 1.0]
    whole = sorted(own.loc[own["at"] == 1, "value"])
    assert middle[1] == pytest.approx((whole[4] + whole[5]) / 2)
    assert whole[0] < low[1] < whole[1] < whole[8] < high[1] < whole[9]


@pytest.mark.slow
def test_a_folder_becomes_a_report(tmp_path, measured, capsys):
    measured[measured["problem"] == "softmax"].to_parquet(tmp_path / "hypotheses.parquet")
    (tmp_path / "hypotheses.json").write_text(json.dumps({"spec": {"protocol": {"seeds": SEEDS}}}))
    assert main([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "H1 dirty: holds (took 7 of 10)" in told
    assert "H1 mild: does not hold (took 7 of 10)" in told
    assert "H1 where attacks took holds for: dirty; not for: same, mild; took in fewer than 2: none" in told
    table = shift_table(measured).set_index("attack")
    low, high = (f"{table.loc['dirty', f'ratio_{end}']:.3g}" for end in ("low", "high"))
    assert f"[{low}, {high}]" in told
    assert "below that of random clean rows in 1 (all rows) and 1 (mini-batches) of 3 cases" in told
    found = pd.read_csv(tmp_path / "report" / "tables" / "shift.csv")
    assert list(found["attack"]) == list(FACTOR)
    images = sorted(path.name for path in (tmp_path / "report" / "figures").glob("*.png"))
    assert images == ["directions_softmax.png", "shift.png"]


def test_missing_results_are_said_to_be(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "run python -P -m sweeps.hypotheses" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no test"):
        load(tmp_path)
    with pytest.raises(InputError):
        build(tmp_path)
