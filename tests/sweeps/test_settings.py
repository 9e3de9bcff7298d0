"""Plain values to settings objects: casts, and one clear line when something is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from sweeps.config.settings import as_dict, build, choose, plain, shown
from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of every kind."""

    lr: float = 0.1
    epochs: int = 2
    nesterov: bool = False
    milestones: tuple[float, ...] = (0.5,)
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        checks.positive(lr=self.lr, epochs=self.epochs)


def test_numbers_are_cast_to_their_declared_types() -> None:
    made = build(Settings, {"lr": 1, "epochs": 3.0, "milestones": [0, "0.5"]}, "recipe")
    assert made == Settings(lr=1.0, epochs=3, milestones=(0.0, 0.5))
    assert [type(value) for value in (made.lr, made.epochs, made.milestones[0])] == [float, int, float]
    assert build(Settings, {"lr": "1e-3", "nesterov": True}, "recipe") == Settings(lr=0.001, nesterov=True)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"epoch": 2}, "recipe.epoch is unknown; did you mean 'epochs'?"),
        ({"lr\nx": 2}, "recipe.'lr\\nx' is unknown; did you mean 'lr'?"),
        ({3: 2}, "recipe.3 is unknown; choose one of epochs, lr, milestones, nesterov, optimizer"),
        ({"lr": 0}, "recipe: lr must be a positive number, but got 0.0"),
        (
            {"lr": "fast"},
            "recipe.lr: Input should be a valid number, unable to parse string as a number, but got 'fast'",
        ),
        ({"lr": True}, "recipe.lr must be a number, but got True"),
        ({"epochs": False}, "recipe: epochs must be a positive number, but got 0"),
        (
            {"epochs": 2.5},
            "recipe.epochs: Input should be a valid integer, got a number with a fractional part, but got 2.5",
        ),
        ({"lr": 10**400}, "recipe.lr: Input should be a valid number, but got 1000"),
        ({"epochs": 10**400}, "recipe holds a number that is too large"),
        ({"lr": math.nan}, "recipe: lr must be a positive number, but got nan"),
        ({"milestones": [0.1, math.inf]}, "recipe.milestones must be a finite number, but got inf"),
        ({"milestones": [0.1, True]}, "recipe.milestones must be a number, but got True"),
        ({"milestones": 0.5}, "recipe.milestones: Input should be a valid tuple, but got 0.5"),
        ({"optimizer": ["sgd"]}, "recipe.optimizer: Input should be a valid string, but got ['sgd']"),
        ("fast", "recipe must be a mapping of settings, but got 'fast'"),
        (None, "recipe must be a mapping of settings, but got None"),
    ],
)
def test_errors_name_the_field_the_value_and_the_fix(raw: Any, message: str) -> None:
    with pytest.raises(InputError) as problem:
        build(Settings, raw, "recipe")
    assert str(problem.value).startswith(message)


def test_a_missing_setting_is_named() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needs:
        path: str

    with pytest.raises(InputError, match=r"^dataset\.npz\.path is missing$"):
        build(Needs, {}, "dataset.npz")


def test_choose_takes_a_name_or_a_mapping() -> None:
    registry: Registry[Any] = Registry("recipe")
    registry.register("plain")(Settings)
    assert choose(registry, "plain", "recipe") == Settings()
    assert choose(registry, {"name": "plain", "epochs": 5}, "recipe") == Settings(epochs=5)
    for wrong in (None, 3, [], {}, {"name": 3}, ["plain"]):
        with pytest.raises(InputError, match="must be a name or a mapping with a `name`"):
            choose(registry, wrong, "recipe")
    with pytest.raises(InputError, match="recipe 'plane' is unknown; did you mean 'plain'"):
        choose(registry, "plane", "recipe")


def test_as_dict_is_what_json_gives_back() -> None:
    expected = {"name": "a", "lr": 0.1, "epochs": 2, "nesterov": False, "milestones": [0.5], "optimizer": "sgd"}
    assert as_dict("a", Settings()) == expected
    assert plain({"a": ({"b": (1,)},), 2: None}) == {"a": [{"b": [1]}], "2": None}


def test_shown_is_one_short_line() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 500)) == 100
    assert shown(10**5000) == "an oversized int"
