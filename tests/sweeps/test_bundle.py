"""Bundles in a sweep: written and read, changed on the command line, stored, discovered in part, gated by all parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from sweeps.commands.run import main
from sweeps.config.overrides import apply
from sweeps.config.plugins import Plugin
from sweeps.config.spec import Sweep
from sweeps.planning.plan import check_scenarios
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Reference
from tests.sweeps.tiny import compacted, raw, run_fresh, science, tiny, write_config
from unlearn_core.attacks import BadNets, Bundle, Gaussian, LabelFlip
from unlearn_core.checks import InputError
from unlearn_core.metrics import columns

PARTS: list[Any] = [
    {"name": "badnets", "fraction": 0.1, "size": 2},
    {"name": "gaussian", "fraction": 0.1, "epsilon": 3},
    "label_flip",
]
BUNDLE: dict[str, Any] = {"name": "bundle", "parts": PARTS}


def bundle_of(sweep: Sweep) -> Bundle:
    ((_, attack),) = sweep.attacks.values()
    assert isinstance(attack, Bundle)
    return attack


def test_parts_are_settings_of_attacks_and_are_written_in_full() -> None:
    sweep = tiny(attacks=[BUNDLE])
    expected = (BadNets(fraction=0.1, size=2), Gaussian(fraction=0.1, epsilon=3.0), LabelFlip())
    assert bundle_of(sweep) == Bundle(parts=expected, primary_part="badnets")
    (written,) = sweep.to_dict()["attacks"]
    assert written["primary_part"] == "badnets" and written["label"] == "bundle"
    assert [part["name"] for part in written["parts"]] == ["badnets", "gaussian", "label_flip"]
    assert written["parts"][1] == {"name": "gaussian", "fraction": 0.1, "epsilon": 3.0, "clip": False}
    again = Sweep.from_dict(json.loads(json.dumps(sweep.to_dict())))
    assert again == sweep and again.identity() == sweep.identity()


def test_every_setting_of_every_part_and_their_order_are_part_of_the_identity() -> None:
    changes: list[dict[str, Any]] = [
        BUNDLE,
        BUNDLE | {"primary_part": "gaussian"},
        BUNDLE | {"parts": PARTS[:2]},
        BUNDLE | {"parts": [PARTS[1], PARTS[0], PARTS[2]], "primary_part": "badnets"},
        BUNDLE | {"parts": [PARTS[0] | {"value": 0.5}, *PARTS[1:]]},
    ]
    sweeps = [tiny(attacks=[change]) for change in changes]
    assert len({sweep.identity() for sweep in sweeps}) == len(changes)
    assert len({json.dumps(sweep.group("bundle", "data")) for sweep in sweeps}) == len(changes)
    assert tiny(attacks=[BUNDLE | {"primary_part": "badnets"}]).identity() == sweeps[0].identity()


def test_plug_ins_that_add_a_part_are_part_of_the_identity() -> None:
    sweep = tiny(attacks=[BUNDLE])
    adding = {name: Plugin(f"{name}.py", name, {"attack": (name,)}) for name in ("gaussian", "sig")}
    mine, other = (replace(sweep, plugins=(adding[name],)) for name in ("gaussian", "sig"))
    assert sweep.attack_names("bundle") == ["bundle", "badnets", "gaussian", "label_flip"]
    assert other.identity() == sweep.identity() != mine.identity()
    assert other.group("bundle", "data") == sweep.group("bundle", "data") != mine.group("bundle", "data")


def test_a_part_is_changed_from_the_command_line_by_its_name() -> None:
    changed = apply(
        raw(attacks=[BUNDLE]),
        ["attacks.bundle.parts.gaussian.epsilon=1e-1", "attacks.bundle.parts.label_flip.mode=cyclic"],
    )
    parts = bundle_of(Sweep.from_dict(changed)).named
    assert parts["gaussian"].epsilon == 0.1 and parts["label_flip"].mode == "cyclic"
    with pytest.raises(InputError, match="'gausian' is not in the list; did you mean 'gaussian'"):
        apply(raw(attacks=[BUNDLE]), ["attacks.bundle.parts.gausian.epsilon=1"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, "attacks.bundle.parts is missing"),
        ("badnets", "attacks.bundle.parts must be a list, but got 'badnets'"),
        ([], "attacks.bundle: parts must list different attacks and not be empty"),
        ([3], "attacks.bundle.parts must be a name or a mapping with a `name`, but got 3"),
        (["badnet"], "attack 'badnet' is unknown; did you mean 'badnets'"),
        ([{"name": "badnets", "sise": 2}], r"attacks.bundle.parts.badnets.sise is unknown; did you mean 'size'"),
        ([{"name": "badnets", "size": "big"}], "attacks.bundle.parts.badnets.size: .* but got 'big'"),
        ([{"name": "badnets", "fraction": 0.9}], r"attacks.bundle.parts.badnets: fraction must lie in \(0, 0.5\]"),
        (["badnets", "badnets"], "attacks.bundle: parts must list different attacks"),
        (["badnets", "gradient_canceling"], "part gradient_canceling is measured by test_error"),
        (["badnets", BUNDLE], "parts of a bundle cannot be bundles"),
        ([{"name": "sig", "fraction": 0.3}, {"name": "badnets", "fraction": 0.3}], "must be at most 0.5, but is 0.6"),
    ],
    ids=str,
)
def test_bad_parts_are_refused_in_one_line(parts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(attacks=[{"name": "bundle"} | ({} if parts is None else {"parts": parts})])


def test_what_a_part_cannot_do_on_this_data_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    parts = [{"name": "label_flip", "mode": "pair", "fraction": 0.09}, {"name": "interclass_confusion"}]
    sweep = tiny(attacks=[{"name": "bundle", "parts": [*parts, {"name": "badnets", "size": 9}]}])
    with pytest.raises(InputError, match=r"fraction asks for \d+ poisons, but only \d+ rows have"):
        check_scenarios(ScenarioCache(sweep, RunEnvironment(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "bundle                Several attacks with disjoint poisons in one training set" in capsys.readouterr().out


def test_a_stored_bundle_comes_back_with_all_its_parts(tmp_path: Path) -> None:
    sweep = tiny(attacks=[BUNDLE])
    made, found = (ScenarioCache(sweep, RunEnvironment(tmp_path)).bench("bundle", 1, "test") for _ in range(2))
    assert len(list((tmp_path / "store" / "poison").iterdir())) == 1
    for one, other in zip(*(bundle_of(sweep).separate(b.poisoned).values() for b in (made, found)), strict=True):
        assert one.attack == other.attack and torch.equal(one.poisoned.inputs, other.poisoned.inputs)
        assert one.poisoned.evidence.keys() == other.poisoned.evidence.keys()
    values = [bench.evaluator(bench.corrupted.model) for bench in (made, found)]
    assert repr(values[0]) == repr(values[1])


def test_a_discovery_rate_is_a_share_of_all_poisons_whatever_their_part(tmp_path: Path) -> None:
    sweep = tiny(attacks=[BUNDLE], discovery_rates=[1, 0.5, "single"])
    work = ScenarioCache(sweep, RunEnvironment(tmp_path))
    bench = work.bench("bundle", 1, "test")
    poisons = bench.poisoned.rows.tolist()
    assert len(poisons) == 60
    ids = work.dataset.train.ids
    owner = {
        int(ids[row]): name
        for name, part in bundle_of(sweep).separate(bench.poisoned).items()
        for row in part.poisoned.rows.tolist()
    }
    found = {rate: [owner[i] for i in work.split(bench, rate).forget.ids.tolist()] for rate in (1.0, 0.5, 0.0)}
    assert {rate: len(names) for rate, names in found.items()} == {1.0: 60, 0.5: 30, 0.0: 1}
    assert set(found[0.5]) == {"badnets", "gaussian", "label_flip"}
    assert len(work.split(bench, 0.5).retain) == 200 - 30


def test_records_tell_of_every_part(tmp_path: Path) -> None:
    methods = [{"name": "gd", "fixed": {"lr": 0.1}}]
    sweep = tiny(attacks=[BUNDLE], methods=methods, search={"trials": 1})
    trials = run_fresh(sweep, tmp_path)
    assert {trial.primary_metric for trial in trials} == {"badnets.backdoor_success"}
    assert all(trial.poison_fraction == pytest.approx(0.3) for trial in trials)
    names = {"badnets": "backdoor_success", "gaussian": "gaussian_score", "label_flip": "forget_accuracy"}
    frame = pd.read_parquet(compacted(tmp_path / "tiny"))
    for name, metric in names.items():
        assert frame[f"{name}.{metric}"].notna().all()
    for trial in trials:
        references = {t.method: t for t in trials if t.seed == trial.seed and t.stage == "reference"}
        first, last = (references[m].rungs[0].metrics for m in ("none", "oracle"))
        failed = (trial.failed_parts or "").split(",")
        for rung in trial.rungs:
            for name, metric in names.items():
                value, column = rung.metrics[f"{name}.{metric}"], f"{name}.{metric}"
                gone = rung.metrics[f"{name}.removal"]
                if trial.held_out != references["none"].held_out:
                    continue
                expected = (first[column] - value) / (first[column] - last[column])
                assert gone == (None if name in failed else pytest.approx(expected))
        assert trial.attack_took == (trial.failed_parts is None)


def reference(**gaps: float) -> Reference:
    """Parts with these gaps between corrupted model and oracle, with standard errors of 0.01."""
    metrics = {"badnets": "backdoor_success", "gaussian": "gaussian_score", "label_flip": "forget_accuracy"}
    corrupted, oracle = {}, {}
    for name, metric in metrics.items():
        corrupted |= {f"{name}.{metric}": gaps[name], f"{name}.{metric}_se": 0.01}
        oracle |= {f"{name}.{metric}": 0.0, f"{name}.{metric}_se": 0.01}
    return Reference(corrupted, oracle, {})


@pytest.mark.parametrize(
    ("gaps", "failed"),
    [
        (dict(badnets=0.5, gaussian=0.5, label_flip=0.5), []),
        (dict(badnets=0.5, gaussian=0.5, label_flip=0.05), ["label_flip"]),
        (dict(badnets=0.09, gaussian=0.09, label_flip=0.5), ["badnets", "gaussian"]),
        (dict(badnets=-0.5, gaussian=0.5, label_flip=0.5), ["badnets"]),
    ],
    ids=str,
)
def test_every_part_must_have_taken(gaps: dict[str, float], failed: list[str]) -> None:
    attack = bundle_of(tiny(attacks=[BUNDLE]))
    assert reference(**gaps).failed(attack) == failed
    for name, part in attack.named.items():
        assert reference(**gaps).failed(replace(attack, primary_part=name)) == failed
        assert isinstance(part.primary.metric, str)


def test_a_bundle_of_one_part_gives_the_records_of_that_attack(tmp_path: Path) -> None:
    """Every number of a trial, but for what it is called."""
    part = {"name": "badnets", "fraction": 0.1, "size": 2}
    changes: dict[str, Any] = {"methods": ["gd"], "search": {"trials": 2}}
    alone = run_fresh(tiny(attacks=[part], **changes), tmp_path / "alone")
    bundle = {"name": "bundle", "label": "badnets", "parts": [part]}
    whole = run_fresh(tiny(attacks=[bundle], **changes), tmp_path / "whole")
    assert len(alone) == len(whole)
    told = {"trial_id", "group_id", "scenario_id", "attack_settings", "primary_metric"}
    pairs = zip(science(alone).values(), science(whole).values(), strict=True)
    for one, other in pairs:
        assert {k: v for k, v in one.items() if k not in {*told, "rungs"}} == {
            k: v for k, v in other.items() if k not in {*told, "rungs"}
        }
        for first, second in zip(one["rungs"], other["rungs"], strict=True):
            assert {k: v for k, v in first.items() if k != "metrics"} == {
                k: v for k, v in second.items() if k != "metrics"
            }
            for column, value in first["metrics"].items():
                assert value in (second["metrics"].get(column, value), second["metrics"].get(f"badnets.{column}"))
            assert second["metrics"]["badnets.efficacy"] == second["efficacy"]


@pytest.mark.slow
def test_a_bundle_runs_to_its_report(tmp_path: Path) -> None:
    config = write_config(tmp_path, attacks=[BUNDLE], methods=["gd"], search={"trials": 1})
    arguments = ["--config", str(config), "--name", "all", "--out", str(tmp_path), "--inline", "--no-tracking"]
    assert main(arguments) == 0
    page = (tmp_path / "all" / "report" / "index.html").read_text()
    assert "badnets.backdoor_success" in page
    assert not any(trial.error for trial in read_trials(tmp_path / "all"))


def test_columns_of_parts_are_columns_of_metrics(tmp_path: Path) -> None:
    work = ScenarioCache(tiny(attacks=[BUNDLE]), RunEnvironment(tmp_path))
    bench = work.bench("bundle", 1, "validation")
    names = ("badnets", "gaussian", "label_flip")
    own: dict[str, set[str]] = {name: set() for name in names} | {"": set()}
    for column in bench.evaluator(bench.corrupted.model):
        name = next((name for name in names if column.startswith(f"{name}.")), "")
        own[name].add(column.removeprefix(f"{name}."))
    assert all(found and found <= columns().keys() for found in own.values())
    assert {"gaussian_z", "forget_accuracy"} <= own["gaussian"] and "backdoor_success" not in own["gaussian"]
    assert {"test_accuracy", "l2_from_oracle"} <= own[""] and not {"test_error", "l2_from_oracle"} & own["badnets"]
