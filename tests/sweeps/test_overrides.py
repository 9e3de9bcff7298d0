"""`--set key=value`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config.overrides import apply
from unlearn_core.checks import InputError

BASE: dict[str, Any] = {
    "model": "mlp",
    "rows": None,
    "recipe": {"epochs": 40},
    "attacks": [{"name": "gaussian"}, {"name": "gaussian", "label": "loud-1.5", "epsilon": 2}, "badnets"],
    "methods": ["gd", "ssd"],
    "budgets": [0.1, 0.2],
}


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("recipe.epochs=20", "recipe", {"epochs": 20}),
        ("recipe.lr=1e-3", "recipe", {"epochs": 40, "lr": 0.001}),
        ("model.hidden=[64, 64]", "model", {"name": "mlp", "hidden": [64, 64]}),
        ("model=linear", "model", "linear"),
        ("rows.train_rows=100", "rows", {"train_rows": 100}),
        ("search.seed=3", "search", {"seed": 3}),
        ("budgets=[0.02, 0.04]", "budgets", [0.02, 0.04]),
        ("budgets.1=0.4", "budgets", [0.1, 0.4]),
        ("methods=[gd]", "methods", ["gd"]),
        ("methods.ssd.fixed.alpha=3", "methods", ["gd", {"name": "ssd", "fixed": {"alpha": 3}}]),
        ("methods.0=ga", "methods", ["ga", "ssd"]),
        ("name=nan", "name", "nan"),
        ("name=1e3x", "name", "1e3x"),
        ("name==a=b", "name", "=a=b"),
        ("recipe=", "recipe", None),
    ],
)
def test_assignments(assignment: str, key: str, value: object) -> None:
    before = copy.deepcopy(BASE)
    assert apply(BASE, [assignment]) == BASE | {key: value}
    assert before == BASE


def test_items_of_a_list_are_found_by_label_or_name() -> None:
    changed = apply(BASE, ["attacks.loud-1.5.epsilon=3", "attacks.badnets.size=2", "attacks.0.fraction=0.1"])
    assert changed["attacks"] == [
        {"name": "gaussian", "fraction": 0.1},
        {"name": "gaussian", "label": "loud-1.5", "epsilon": 3},
        {"name": "badnets", "size": 2},
    ]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("recipe.epochs", "--set needs key=value, but got 'recipe.epochs'"),
        ("=3", "--set needs key=value, but got '=3'"),
        (
            "attacks.gausian.epsilon=3",
            "--set attacks.gausian.epsilon: 'gausian' is not in the list; did you mean 'gaussian'",
        ),
        ("attacks.3.epsilon=3", "--set attacks.3.epsilon: '3' is not in the list"),  # of three, counted from 0
        ("attacks.7.epsilon=3", "--set attacks.7.epsilon: '7' is not in the list"),
        ("attacks.².epsilon=3", "--set attacks.².epsilon: '²' is not in the list"),
        ("recipe.epochs.x=3", "--set recipe.epochs.x: 'x' has no parts that could be set"),
        ("recipe.lr=[1, 2", "--set value is not readable (YAML) in 'recipe.lr=[1, 2'"),
        ("name=2024-13-01", "--set value is not readable (YAML) in 'name=2024-13-01'"),
        ("name=" + "[" * 5000, "--set value is not readable (YAML) in 'name=[[["),
        ("name=" + "1" * 5000, "--set value is not readable (YAML) in 'name=111"),
    ],
)
def test_bad_assignments(assignment: str, message: str) -> None:
    with pytest.raises(InputError) as problem:
        apply(BASE, [assignment])
    assert str(problem.value).startswith(message)
    assert len(str(problem.value)) < 300


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_applied_or_refused(path: str, text: str) -> None:
    for start in ("", "attacks.", "recipe.", "methods.gd."):
        try:
            apply(BASE, [f"{start}{path}={text}"])
        except InputError:
            continue
