"""A sweep's description: refused with one line, or the same object wherever it is read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeps.config.choices import REFERENCE_METHODS
from sweeps.config.overrides import apply
from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from tests.sweeps.tiny import raw, tiny
from unlearn_core.checks import InputError
from unlearn_core.models.dense import Mlp
from unlearn_core.registry import MODELS, UNLEARNERS

RATES = "discovery_rates must list distinct numbers in (0, 1], or `single` for one poison"


def refusal(settings: Any) -> str:
    with pytest.raises(InputError) as problem:
        Sweep.from_dict(settings)
    return str(problem.value)


def test_defaults_are_filled_in() -> None:
    sweep = Sweep.from_dict(
        {"name": "a", "dataset": "digits", "model": "mlp", "attacks": "gaussian", "methods": ["gd"]}
    )
    assert sweep.budgets == (0.02, 0.04, 0.06, 0.08, 0.1)
    assert sweep.discovery_rates == (1.0,)
    assert sweep.to_dict()["model"] == {"name": "mlp", "hidden": [256]}
    assert sweep.to_dict()["methods"] == [{"name": "gd", "fixed": {}}]
    assert sweep == Sweep.from_dict(json.loads(json.dumps(sweep.to_dict())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"recipe": {"lr": 1}}, {"recipe": {"lr": 1.0}}),
        ({"recipe": {"lr": "1e-1"}}, {"recipe": {"lr": 0.1}}),
        ({"recipe": {}}, {"recipe": None}),
        ({"methods": ["gd"]}, {"methods": [{"name": "gd"}]}),
        ({"methods": [{"name": "gd", "fixed": {"lr": 1}}]}, {"methods": [{"name": "gd", "fixed": {"lr": 1.0}}]}),
        ({"methods": [{"name": "gd", "fixed": {"lr": "0.1"}}]}, {"methods": [{"name": "gd", "fixed": {"lr": 0.1}}]}),
        ({"attacks": "badnets"}, {"attacks": [{"name": "badnets", "label": "badnets"}]}),
        ({"model": "mlp"}, {"model": {"name": "mlp", "hidden": [256]}}),
        ({"discovery_rates": 1}, {"discovery_rates": [1.0]}),
        ({"discovery_rates": "single"}, {"discovery_rates": ["single"]}),
        ({"name": "a"}, {"name": "b"}),
        ({"resources": {"cpus": 2}}, {"resources": {"cpus": 1, "gpus": 0.5}}),
    ],
)
def test_equal_in_meaning_is_equal_in_identity(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert tiny(**one).identity() == tiny(**other).identity()


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": {"lr": 0.06}}, {"rows": {}}, {"model": "mlp"}, {"dataset": "digits"}, {"budgets": [0.1]},
        {"methods": ["gd"]}, {"methods": ["ssd", "gd"]}, {"attacks": [{"name": "badnets", "label": "x"}]},
        {"discovery_rates": [0.5]}, {"seeds": {"tuning": [4]}}, {"search": {"trials": 4}}, {"utility_tolerance": 0.1},
        {"methods": [{"name": "gd", "fixed": {"lr": 0.01}}, "ssd"]},
    ],
)  # fmt: skip
def test_what_can_change_a_result_changes_the_identity(change: dict[str, Any]) -> None:
    assert tiny(**change).identity() != tiny().identity()


def test_a_changed_default_changes_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Narrower(Mlp):
        hidden: tuple[int, ...] = (128,)

    before, written_out = tiny(model="mlp").identity(), tiny(model={"name": "mlp", "hidden": [256]}).identity()
    monkeypatch.setitem(MODELS._items, "mlp", Narrower)
    assert before == written_out != tiny(model="mlp").identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atacks": []}, "atacks is unknown; did you mean 'attacks'"),
        ({"dataset": "digit"}, "dataset 'digit' is unknown; did you mean 'digits'"),
        ({"model": {"name": "mpl"}}, "model 'mpl' is unknown; did you mean 'mlp'"),
        ({"attacks": ["badnet"]}, "attack 'badnet' is unknown; did you mean 'badnets'"),
        ({"methods": ["scrubb"]}, "methods: unlearner 'scrubb' is unknown; did you mean 'scrub'"),
        ({"recipe": {"epoch": 3}}, "recipe.epoch is unknown; did you mean 'epochs'?"),
        ({"methods": [{"name": "gd", "lr": 3}]}, "methods.lr is unknown; an item has `name` and, for its settings,"),
        (
            {"ensemble": {"members": 8, "scenarios": 9}},
            "ensemble.scenarios is 9, more than confirmation seeds (1); lower it or add seeds",
        ),
        ({"methods": [{"name": "gd", "fixed": {"l": 3}}]}, "methods.gd.l is unknown; did you mean 'lr'?"),
        ({"methods": [{"name": "gd", "fixed": {"lr": -3}}]}, "methods.gd: lr must be zero or a positive number"),
        ({"methods": [{"name": "gd", "fixed": {"lr": True}}]}, "methods.gd.lr must be a number, but got True"),
        ({"methods": ["gd", "gd"]}, "methods name 'gd' twice; list each method once"),
        ({"methods": ["retrain"]}, "methods: 'retrain' is a reference and always runs; take it out of methods"),
        ({"methods": [3]}, "methods must be a mapping of settings, but got 3"),
        ({"attacks": []}, "attacks must be a list that is not empty, but got []"),
        ({"attacks": {}}, "attacks must be a name or a mapping with a `name`, but got {}"),
        ({"attacks": ["badnets", "badnets"]}, "attacks name 'badnets' twice; give one of them another `label`"),
        (
            {"attacks": ["badnets", {"name": "badnets", "label": "again"}]},
            "attacks list the same settings twice, the second time as 'again'; take one out",
        ),
        ({"attacks": [{"name": "badnets", "label": "../x"}]}, "attacks.label must be letters, digits and _.=-"),
        ({"attacks": [{"name": "badnets", "fraction": 0.7}]}, "attacks.badnets: fraction must lie in (0, 0.5]"),
        ({"budgets": [0.2, 0.1]}, "budgets must increase strictly and not be empty, but got [0.2, 0.1]"),
        ({"budgets": [0.1, 0.1]}, "budgets must increase strictly and not be empty, but got [0.1, 0.1]"),
        ({"budgets": []}, "budgets must increase strictly and not be empty, but got []"),
        ({"budgets": [0, 0.1]}, "budgets must be above 0, but got 0.0"),
        ({"budgets": [0.1, 1.5]}, "budgets must lie in [0, 1], but got 1.5"),
        ({"budgets": [True]}, "budgets must be a number in [0, 1], but got True"),
        ({"budgets": math.nan}, "budgets must be a number in [0, 1], but got nan"),
        ({"budgets": 10**400}, "budgets must be a number in [0, 1], but got 1000"),
        ({"budgets": 10**5000}, "budgets must be a number in [0, 1], but got an oversized int"),
        ({"discovery_rates": [0]}, "discovery_rates must be above 0, but got 0; write `single` for one poison"),
        ({"discovery_rates": ["0"]}, "discovery_rates must be above 0, but got '0'; write `single` for one poison"),
        ({"discovery_rates": []}, f"{RATES}, but got []"),
        ({"discovery_rates": [0.5, 0.5]}, f"{RATES}, but got [0.5, 0.5]"),
        ({"discovery_rates": ["single", 1, "single"]}, f"{RATES}, but got ['single', 1, 'single']"),
        ({"discovery_rates": ["one"]}, "discovery_rates other than `single` must be a number in [0, 1], but got 'one'"),
        ({"discovery_rates": [1.5]}, "discovery_rates other than `single` must lie in [0, 1], but got 1.5"),
        ({"rows": {"train_rows": 0}}, "rows: train_rows must be a positive number, but got 0"),
        ({"rows": 0}, "rows must be a mapping of settings, but got 0"),
        ({"recipe": ""}, "recipe must be a mapping of settings, but got ''"),
        ({"recipe": {"milestones": [math.nan]}}, "recipe.milestones must be a finite number, but got nan"),
        ({"seeds": {"tuning": [1]}}, "seeds: confirmation must not repeat tuning seeds, but both hold [1]"),
        ({"seeds": {"tuning": []}}, "seeds: tuning must list distinct seeds and not be empty, but got []"),
        ({"seeds": {"tuning": [-1]}}, "seeds: tuning must lie in [0, 9.22337e+18], but got -1"),
        ({"seeds": {"tuning": [2**64]}}, "seeds: tuning must lie in [0, 9.22337e+18], but got 18446744073709551616"),
        ({"seeds": {"tuning": [10**5000]}}, "seeds: "),
        ({"recipe": {"epochs": 10**5000}}, "recipe: epochs must lie in [1, 1e+06], but got an oversized int"),
        ({"search": {"sampler": "cmaes"}}, "search: sampler 'cmaes' is unknown; choose one of grid, random, tpe"),
        ({"search": {"mode": "best", "sampler": "grid"}}, "search: sampler 'grid' cannot search over methods"),
        ({"search": {"trials": 10**9}}, "search: trials must lie in [1, 100000], but got 1000000000"),
        ({"resources": {"cpus": 0}}, "resources: cpus must be a positive number, but got 0.0"),
        ({"resources": {"cpus": 1.5}}, "resources: cpus above 1 must be a whole number, but got 1.5"),
        ({"utility_tolerance": 2}, "utility_tolerance must lie in [0, 1], but got 2"),
        ({"name": "../x"}, "name must be letters, digits and _.=- (at most 80), but got '../x'"),
        ({"name": ""}, "name must be letters, digits and _.=- (at most 80), but got ''"),
        ({"name": "a" * 81}, "name must be letters, digits and _.=- (at most 80), but got 'aaa"),
        ({"name": "store"}, "name 'store' is taken"),
    ],
)  # fmt: skip
def test_refusals(change: dict[str, Any], message: str) -> None:
    assert refusal(raw(**change)).startswith(message)


def test_missing_sections_and_other_things_than_mappings() -> None:
    for key in ("name", "dataset", "model", "attacks", "methods"):
        settings = raw()
        del settings[key]
        assert refusal(settings) == f"{key} is missing"
    for junk in (None, [], "quick", 3):
        assert refusal(junk).startswith("a sweep must be a mapping of settings")


def test_presets_are_found_by_their_names() -> None:
    with pytest.raises(InputError, match=r"^preset 'quik' is unknown; did you mean 'quick'\?$"):
        read_preset("quik")
    with pytest.raises(InputError, match="is unknown"):
        read_preset("../quick")


def test_more_seeds_than_can_be_checked_are_refused() -> None:
    assert "confirmation lists 1,001 seeds; list at most 1,000" in refusal(
        raw(seeds={"tuning": [0], "confirmation": list(range(1, 1_002))})
    )
    many = [{"name": "label_flip", "fraction": 0.01 + i / 1000, "label": f"a{i}"} for i in range(6)]
    assert "attacks and seeds make 6,000 scenarios, more than 5,000; list fewer of them" in refusal(
        raw(attacks=many, seeds={"tuning": [0], "confirmation": list(range(1, 1000))})
    )


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.sampled_from([10**400, -(10**400), 2**63, 0, -1, 1e308])
)
WORDS = st.sampled_from(["", "gd", "badnets", "../x", "a\nb", "nan", "1e-3", "digits", "\ud800", "é", "a" * 200])
LEAVES = st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=5), st.binary(max_size=3), st.dates())
JUNK = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers() | st.just("name"), inner, max_size=3)
    ),
    max_leaves=6,
)
FULL = tiny().to_dict()


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested settings."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in inner for deeper in paths(item, (*path, key)))]


def exchanged(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """A copy of nested settings with `junk` at `path`."""
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = exchanged(value[path[0]], path[1:], junk)
    return copy


def accepted_or_refused(settings: Any) -> bool:
    """Whether the settings are a sweep; nothing else than one line may come of them otherwise."""
    try:
        sweep = Sweep.from_dict(settings)
    except InputError as problem:
        assert str(problem)
        assert "\n" not in str(problem)
        assert len(str(problem)) < 1000
        return False
    assert Sweep.from_dict(json.loads(json.dumps(sweep.to_dict(), allow_nan=False))) == sweep
    assert len(sweep.identity()) == 16
    return True


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(paths(FULL)), JUNK)
@example(("methods", 0, "fixed"), {"lr": math.nan})
@example(("methods", 0, "fixed"), {"lr": [[]]})
@example(("methods",), {"a\nb": None})
@example(("recipe", "epochs"), 10**400)
@example(("recipe", "milestones"), [math.inf])
def test_junk_anywhere_is_refused_in_one_line(path: tuple[Any, ...], junk: Any) -> None:
    accepted_or_refused(exchanged(FULL, path, junk))


@settings(max_examples=200, deadline=None)
@given(JUNK, st.dictionaries(st.sampled_from(sorted(FULL)) | WORDS, JUNK, max_size=4))
def test_junk_instead_of_a_sweep_is_refused_in_one_line(junk: Any, sections: dict[Any, Any]) -> None:
    accepted_or_refused(junk)
    accepted_or_refused(FULL | sections)


BAD = [True, False, None, math.nan, math.inf, -math.inf, -1, 10**400, [], {}, "../x", "x", [[]], {"a": 1}]
NUMERIC = {
    "epochs", "batch_size", "lr", "momentum", "weight_decay", "warmup", "label_smoothing", "fraction", "size", "offset",
    "value", "validation_share", "trials", "startup", "cpus", "gpus", "utility_tolerance",
}  # fmt: skip
MUST_BE_NUMBERS = [path for path in paths(FULL) if path and path[-1] in NUMERIC]


@pytest.mark.parametrize("path", MUST_BE_NUMBERS, ids=lambda path: ".".join(map(str, path)))
def test_what_is_no_number_in_range_is_always_refused(path: tuple[Any, ...]) -> None:
    for bad in BAD:
        assert not accepted_or_refused(exchanged(FULL, path, bad)), bad


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["recipe.lr", "budgets", "methods.gd.fixed.lr", "attacks.badnets.fraction", "seeds.tuning", "x"]),
    JUNK,
)
def test_assigned_junk_is_refused_in_one_line(path: str, junk: Any) -> None:
    try:
        changed = apply(raw(), [f"{path}={junk}"])
    except InputError as problem:
        assert "\n" not in str(problem)
        return
    accepted_or_refused(changed)


def test_every_method_can_be_fixed_at_its_defaults() -> None:
    for name in set(UNLEARNERS.names()) - set(REFERENCE_METHODS):
        (method,) = tiny(methods=[name]).methods.values()
        everything = {key: getattr(method.build({}), key) for key in method.space()}
        (fixed,) = tiny(methods=[{"name": name, "fixed": everything}]).methods.values()
        assert fixed.space() == {}
        assert fixed.build({}) == method.build({})
