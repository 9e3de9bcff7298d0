"""`python -P -m sweeps.hypotheses`: settings, what is measured and kept, and bad input."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch

from sweeps.hypotheses import __main__ as command
from sweeps.hypotheses.__main__ import main
from sweeps.hypotheses.bench import HypothesisBench
from sweeps.hypotheses.check import check_attacks
from sweeps.hypotheses.spec import Hypotheses, preset_names, read_preset
from sweeps.schema.hypotheses import HYPOTHESIS_COLUMNS, HYPOTHESIS_MEASURES
from sweeps.trials.scenario_cache import RunEnvironment
from unlearn_core.checks import InputError
from unlearn_core.datasets import Digits
from unlearn_core.hypotheses.convex import Softmax

TINY = {
    "name": "tiny",
    "features": {
        "base": {"name": "digits", "size": 8},
        "model": {"name": "mlp", "hidden": [12]},
        "recipe": {"epochs": 2, "lr": 0.05},
        "train_rows": 400,
        "held_out_rows": 60,
    },
    "attacks": [
        {"name": "gaussian", "fraction": 0.05, "epsilon": 1.0},
        {"name": "gradient_canceling", "acts_on": "features", "box": False, "fraction": 0.2, "weight_decay": 0.001},
        {"label": "flip", "name": "label_flip", "fraction": 0.05},
    ],
    "protocol": {"seeds": 2, "orthogonality_seeds": 1, "shares": [0.5, 1], "batches": 5, "steps": [1, 100]},
}


def changed(**keys):
    return Hypotheses.from_dict(TINY | keys)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return HypothesisBench(changed(), RunEnvironment(tmp_path_factory.mktemp("out")))


@pytest.mark.parametrize("name", preset_names())
def test_presets_read_and_round_trip(name):
    spec = Hypotheses.from_dict(read_preset(name))
    assert Hypotheses.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.name == f"hypotheses-{name}"


def test_the_default_needs_no_files():
    assert Hypotheses.from_dict(read_preset("digits")).features.base["name"] == Digits.name


def test_rows_are_in_the_documented_columns(bench):
    rows = pd.DataFrame(bench.rows("flip", 0))
    assert list(rows) == list(HYPOTHESIS_COLUMNS)
    assert set(rows["measure"]) == set(HYPOTHESIS_MEASURES) - {"z"}
    assert "z" in {row["measure"] for row in bench.rows("gaussian", 0)}
    assert set(rows.loc[rows["measure"] == "l1", "at"]) == {0.5, 1}
    assert set(rows.loc[rows["measure"] == "full_cosine", "problem"]) == {"softmax", "squared"}


def test_directions_are_compared_on_the_first_seeds_only(bench):
    assert "full_cosine" not in {row["measure"] for row in bench.rows("flip", 1)}


def test_the_extractor_saw_none_of_the_rows(bench):
    apart, rest = bench.spec.features.split(None)
    assert not set(apart.ids.tolist()) & set(bench.base.inputs.train.ids.tolist())
    assert torch.equal(bench.base.features.train.targets, rest.train.targets)
    assert len(rest.train) == 240


def test_an_attack_on_inputs_reaches_the_features_through_the_extractor(bench):
    attacked = bench.spec.attacks["gaussian"]
    poisoned = bench._poisoned(attacked, bench._scenario(attacked, 0))
    data = bench._corrupted(attacked, poisoned)
    expected = bench.base.extractor.features(poisoned.inputs).double()
    assert data.poison.sum() == len(expected) == 12
    torch.testing.assert_close(data.x[poisoned.rows, :-1], expected)
    clean = bench.base.features.train
    torch.testing.assert_close(data.x[~data.poison, :-1], clean.inputs[~data.poison].double())
    assert (data.x[poisoned.rows, :-1] - clean.inputs[poisoned.rows]).norm(dim=1).min() > 0.1


def test_distances_are_those_of_the_poisons_that_are_kept(bench):
    """The whole pipeline against two fits written out here."""
    attacked = bench.spec.attacks["flip"]
    poisoned = bench._poisoned(attacked, bench._scenario(attacked, 0))
    features, problem = bench.base.features.train, Softmax(1e-3)
    x = torch.cat([features.inputs.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    y = features.targets.clone()
    y[poisoned.rows] = poisoned.targets
    kept = torch.ones_like(y).bool()
    kept[poisoned.rows] = False
    moved = problem.fit(x[kept], y[kept], 10).theta - problem.fit(x, y, 10).theta
    found = [r for r in bench.rows("flip", 0) if (r["measure"], r["group"], r["at"]) == ("l1", "poison", 1)]
    assert [row["value"] for row in found] == [pytest.approx(float(moved.abs().sum()), rel=1e-6)]


def test_poisons_that_ruin_the_model_are_said_to(bench):
    rows = pd.DataFrame(bench.rows("gradient_canceling", 0)).set_index(["measure", "group"])["value"]
    assert rows["took", "corrupted"] == 1
    assert rows["test_accuracy", "corrupted"] < 0.1 < 0.6 < rows["test_accuracy", "oracle"]


def test_nothing_is_measured_twice(bench, monkeypatch):
    first = bench.rows("flip", 0)
    again = HypothesisBench(changed(protocol=TINY["protocol"] | {"seeds": 5}), bench.place)
    monkeypatch.setattr(again, "_measure", lambda *a: pytest.fail("measured again"))
    assert again.rows("flip", 0) == first, "more seeds leave those that are there as they are"


@pytest.mark.slow
def test_the_command_measures_and_reports(tmp_path, capfd):
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps({k: v for k, v in TINY.items() if k != "name"}))
    assert main(["--config", str(config), "--out", str(tmp_path)]) == 0
    rows = pd.read_parquet(tmp_path / "tiny" / "hypotheses.parquet")
    assert list(rows["attack"].unique()) == ["gaussian", "gradient_canceling", "flip"]
    assert "H1 where attacks took holds for:" in capfd.readouterr().out
    report = tmp_path / "tiny" / "report"
    assert {path.name for path in (report / "figures").glob("*.png")} == {
        "shift.png",
        "directions_softmax.png",
        "directions_squared.png",
    }
    assert (report / "tables" / "shift.csv").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attack": []}, "attack is unknown; did you mean 'attacks'"),
        ({"attacks": []}, "attacks must be a list that is not empty"),
        ({"attacks": ["gausian"]}, "did you mean 'gaussian'"),
        ({"attacks": [{"name": "gaussian", "acts_on": "logits"}]}, "acts_on 'logits' is unknown"),
        ({"attacks": ["gaussian", "gaussian"]}, "attacks name 'gaussian' twice"),
        ({"attacks": [{"name": "gradient_canceling", "weight_decay": 0.1}]}, r"is what the victim has, 0.001"),
        ({"protocol": {"shares": [0.5]}}, "shares must end with 1"),
        ({"protocol": {"shares": [0.5, 0.5, 1]}}, "shares must increase"),
        ({"protocol": {"seeds": 1}}, "seeds must lie in"),
        ({"features": {"base": "digits", "model": {"name": "linear"}}}, "features.base"),
        ({"name": "../up"}, "name must be letters"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        changed(**change)


def test_bad_input_is_one_line(capsys):
    assert main(["--preset", "digit"]) == 2
    assert capsys.readouterr().err == "error: preset 'digit' is unknown; did you mean 'digits'?\n"
    assert main(["--preset", "digits", "--config", "x.yaml"]) == 2


@pytest.mark.parametrize(
    "attack, message",
    [
        ({"name": "badnets", "acts_on": "features", "fraction": 0.05}, "attacks.bad: attack badnets needs images"),
        ({"name": "badnets", "fraction": 0.05, "target": 10}, "attacks.bad: target must be a class below 10"),
        ({"name": "badnets", "fraction": 0.3}, "attacks.bad: class 0 has fewer clean rows than poisons"),
        ({"name": "gradient_matching", "acts_on": "features"}, "attacks.bad: attack gradient_matching finds no images"),
        ({"name": "gradient_canceling", "weight_decay": 0.001, "acts_on": "features"}, "attacks.bad: box keeps"),
    ],
)
def test_attacks_are_refused_before_the_extractor_is_trained(attack, message, tmp_path, monkeypatch):
    spec = changed(attacks=["label_flip", {"label": "bad", **attack}])
    bench = HypothesisBench(spec, RunEnvironment(tmp_path))
    monkeypatch.setattr(type(spec.features), "extractor", lambda *a: pytest.fail("trained"))
    with pytest.raises(InputError, match=message):
        check_attacks(spec, bench.split[1])


def test_attacks_that_search_are_checked_up_to_the_search(bench):
    matching = {"name": "gradient_matching", "acts_on": "features", "space": "normalized", "eps": 0.5, "fraction": 0.02}
    check_attacks(changed(attacks=[*TINY["attacks"], matching]), bench.split[1])


class OneByOne(ThreadPoolExecutor):
    """Stands for the pool of processes."""

    def __init__(self, *_, **__):
        super().__init__(1)


def test_after_an_error_nothing_more_is_begun(monkeypatch, tmp_path):
    begun, told = [], threading.Event()

    def attack_rows(spec, place, label):
        begun.append(label)
        if len(begun) == 1:
            raise InputError("no such rows")
        told.wait(1)  # the error is known before this one ends

    monkeypatch.setattr("sweeps.hypotheses.bench.attack_rows", attack_rows)
    monkeypatch.setattr(command, "ProcessPoolExecutor", OneByOne)
    spec = changed(attacks=[{"label": f"a{i}", "name": "label_flip"} for i in range(6)])
    with pytest.raises(InputError, match="no such rows"):
        command._side_by_side(spec, RunEnvironment(tmp_path))
    assert begun in (["a0"], ["a0", "a1"]), "a1 may have begun before the error was seen"


@pytest.mark.parametrize("out", ["s3://bucket/results", "gs://bucket"])
def test_results_need_a_folder_of_this_machine(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--out", out]) == 2
    assert "--out must be a folder of this machine" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
