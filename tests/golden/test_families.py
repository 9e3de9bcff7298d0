"""Every family returns exactly its columns, leaves its arrays alone, and runs exactly when its arrays are there."""

import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

from unlearn_core.metrics import Family, columns, compute_all, families
from unlearn_core.registry import METRICS

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
EXPECTED = {
    "accuracy_test": {"test_accuracy", "test_loss"},
    "accuracy_retain": {"retain_accuracy", "retain_loss"},
    "accuracy_forget": {"forget_accuracy", "forget_accuracy_se", "forget_loss"},
    "agreement": {"agreement_test", "js_test", "agreement_forget", "js_forget"},
    "backdoor": {"backdoor_success", "backdoor_success_se", "backdoor_corrected_accuracy"},
    "canceling": {"canceling_tau", "canceling_residual"},
    "clipped_noise": {"gaussian_clipped_z"},
    "corrective": {"healed", "healed_se", "utility", "utility_times_healed"},
    "decoy": {"decoy_success", "decoy_success_se", "untriggered_success"},
    "direction": {"shift_along", "shift_across"},
    "distance": {"l1_from_corrupted", "l2_from_corrupted", "l1_from_oracle", "l2_from_oracle"},
    "gaussian": {
        "gaussian_score",
        "gaussian_score_se",
        "gaussian_z",
        "gaussian_p",
        "gaussian_p_two_sided",
        "gaussian_tpr_exact",
        "gaussian_tpr_fresh",
        "gaussian_null_mean",
        "gaussian_null_ks",
        "gaussian_dropped",
        *(f"gaussian_roc_{rate}" for rate in RATES),
    },
    "interclass_confusion": {
        "interclass_confusion",
        "interclass_confusion_se",
        "interclass_error",
        "other_classes_accuracy",
    },
    **{
        f"klom_{rows}": {f"klom_{rows}{end}" for end in ("", "_floor", "_excess", "_excess_se", "_p95", "_p95_floor")}
        for rows in ("forget", "retain", "test")
    },
    "membership": {
        "membership_auc",
        "membership_tpr",
        "membership_advantage",
        *(f"membership_roc_{rate}" for rate in RATES),
    },
    "matching": {"matching_first", "matching_last"},
    "mia_efficacy": {"mia_correctness", "mia_confidence", "mia_entropy", "mia_modified_entropy"},
    "neurips": {
        "neurips_forgetting",
        "neurips_forgetting_floor",
        "neurips_utility",
        "neurips_score",
        "neurips_score_normalised",
    },
    "relearn": {"relearn_passes", "relearn_censored"},
    "targeted": {"target_hits", "target_hits_se", "target_confidence", "target_accuracy", "target_base_rate"},
    "test_error": {"test_error", "test_error_se"},
    "tug_of_war": {"tow", "tow_mia", "average_gap"},
    "ulira": {"ulira_accuracy", "ulira_accuracy_se", "ulira_auc", "ulira_tpr"},
    "zrf": {"zrf"},
}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    made = {}
    for name in ("oracle_test", "oracle_retain", "oracle_forget", "untrained_forget"):
        made[f"{name}_logits"] = rng.standard_normal((20, 4)).astype(np.float32)
    for name in ("test", "retain", "forget", "unseen", "triggered", "decoy", "targeted"):
        made[f"{name}_logits"] = rng.standard_normal((20, 4)).astype(np.float32)
        made[f"{name}_targets"] = rng.integers(0, 4, 20)
    made["triggered_targets"][:] = 1
    made["triggered_true"] = rng.choice([0, 2, 3], 20)
    made["decoy_targets"], made["decoy_true"] = made["triggered_targets"], made["triggered_true"]
    made["targeted_true"] = (made["targeted_targets"] + 1) % 4
    made["forget_true"] = rng.integers(0, 4, 20)
    made |= {"relearn_losses": np.array([3.0, 2.0, 1.0]), "relearn_at": np.arange(3.0), "relearn_target": np.array(2.0)}
    for who, rows in itertools.product(("oracle", "second_oracle", "unlearned"), ("forget", "retain", "test")):
        made[f"{who}_{rows}_margins"] = rng.standard_normal((16, 20))
        made |= {f"{who}_{rows}_accuracies": rng.uniform(0.5, 1, 16)} if rows != "forget" else {}
    made |= {name: rng.standard_normal((8, 20)) for name in ("ulira_seen_scores", "ulira_unseen_scores")}
    made |= {"noise_scores": rng.standard_normal(15), "fresh_noise_scores": rng.standard_normal((8, 15))}
    return made | {
        "canceling": np.array([0.02, 0.03, 0.5]),
        "matching": np.array([1.1, 0.2]),
        "noise_dropped": np.array(2),
        "clipped_noise_scores": rng.standard_normal(15),
        "shift_from_corrupted": np.array([2.0, 1.0]),
        "shift_from_oracle": np.array([4.0, 3.0]),
        "oracle_from_corrupted": np.array([5.0, 3.5]),
        "confused_classes": np.array([1, 3]),
    }


def test_all_families_and_columns_are_registered():
    assert {name: set(family.columns) for name, family in families().items()} == EXPECTED
    assert set(columns()) == set().union(*EXPECTED.values())


@pytest.mark.parametrize("name", METRICS.names())
def test_family_returns_exactly_its_columns(name, arrays):
    before = {key: value.copy() for key, value in arrays.items()}
    values = METRICS.get(name)(arrays)
    assert values.keys() == EXPECTED[name]
    meanings = METRICS.get(name).columns
    for column, value in values.items():
        assert type(value) is float
        assert math.isfinite(value) or "undefined (NaN) with fewer" in meanings[column], column
    for key, value in arrays.items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", METRICS.names())
def test_family_is_described(name):
    summary = METRICS.summary(name)
    assert summary.endswith(".")
    assert "Metrics that are computed together" not in summary
    for meaning in METRICS.get(name).columns.values():
        assert "\n" not in meaning
        assert len(meaning) > 20


@pytest.mark.parametrize("name", METRICS.names())
def test_family_survives_pickling(name, arrays):
    family = METRICS.get(name)
    copied = pickle.loads(pickle.dumps(family))
    assert copied == family
    assert copied(arrays) == family(arrays)


def test_every_pair_of_families_runs_from_just_its_arrays(arrays):
    known = families()
    for size in (0, 1, 2, len(known)):
        for chosen in itertools.combinations(known, size):
            needed = {key: arrays[key] for name in chosen for key in known[name].needs}
            runs = [name for name, family in known.items() if needed.keys() >= set(family.needs)]
            assert set(chosen) <= set(runs)
            assert compute_all(needed).keys() == set().union(*(EXPECTED[name] for name in runs))


def test_any_missing_array_switches_off_only_those_who_need_it(arrays):
    for key in arrays:
        rest = {name: value for name, value in arrays.items() if name != key}
        off = [name for name, family in families().items() if key in family.needs]
        assert off
        assert compute_all(rest).keys() == set(columns()).difference(*(EXPECTED[name] for name in off))


def test_nothing_gives_nothing():
    assert compute_all({}) == {}


def test_misspelt_array_is_refused(arrays):
    with pytest.raises(ValueError, match=r"array 'test_logit' is unknown.*did you mean 'test_logits'"):
        compute_all({"test_logit": arrays["test_logits"], "test_targets": arrays["test_targets"]})


def test_calling_a_family_without_its_arrays_names_them():
    with pytest.raises(ValueError, match="shift_from_oracle"):
        METRICS.get("distance")({"shift_from_corrupted": np.ones(2)})


@pytest.mark.parametrize("returned", [{}, {"a": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0}])
def test_broken_declaration_is_an_error(returned):
    family = Family(columns={"a": "first", "b": "second"}, needs=(), compute=lambda arrays: returned)
    with pytest.raises(RuntimeError, match="declared columns"):
        family({})


def test_family_sees_only_what_it_declared():
    family = Family(columns={"seen": "arrays"}, needs=("x",), compute=lambda arrays: {"seen": len(arrays)})
    assert family({"x": np.ones(1), "y": np.ones(1)}) == {"seen": 1.0}


def test_two_families_cannot_share_a_column(monkeypatch):
    copy = Family(columns={"test_loss": "again"}, needs=(), compute=lambda arrays: {"test_loss": 0.0})
    monkeypatch.setitem(METRICS._items, "copy", copy)
    with pytest.raises(RuntimeError, match="columns of another family: \\['test_loss'\\]"):
        columns()


def test_metrics_load_without_heavy_libraries():
    program = (
        "import sys, unlearn_core.metrics; print(sorted({'torch', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
