"""Methods that cannot work on a model are found out before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sweeps.trials.method_check import check_methods
from tests.contracts.methods import build, models_for
from tests.contracts.tiny import MODELS, RECIPE
from tests.core.foreign import Net
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios import method_check
from unlearn_core.scenarios.method_check import few_of, few_rows, first_updates, shortened
from unlearn_core.scenarios.scenario import Scenario, Split
from unlearn_core.types import Dataset, Update


@dataclass(frozen=True)
class Own:
    """Settings of a user's model. fails: for how few rows in training it raises."""

    fails: int = 0
    wide: int = 4

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        net = Net()
        net.head = nn.Linear(5, self.wide)
        net.register_forward_pre_hook(self._refuse)
        return net

    def _refuse(self, net: nn.Module, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) <= self.fails:
            raise RuntimeError(f"no {len(args[0])} rows\nplease")


@pytest.fixture
def scenario(digits: Dataset) -> Scenario:
    images = {part: getattr(digits, part) for part in ("train", "validation", "test")}
    few = {k: replace(v.rows(v.targets < 4), inputs=_colour(v.rows(v.targets < 4).inputs)) for k, v in images.items()}
    return Scenario(replace(digits, classes=4, **few), MODELS["convnet"], RECIPE, None, 0, torch.device("cpu"))


def _colour(inputs: torch.Tensor) -> torch.Tensor:
    return inputs[:, :, ::2, ::2].expand(-1, 3, -1, -1).contiguous()


def every(net: str) -> dict[str, Any]:
    return {name: build(name) for name in UNLEARNERS.names() if net in models_for(name)}


@pytest.mark.parametrize("settings", [MODELS["convnet"], Own()], ids=["convnet", "own"])
def test_what_works_is_accepted_and_nothing_is_trained(settings: Any, scenario: Scenario) -> None:
    state = torch.get_rng_state()
    check_methods(every("convnet"), "mine", replace(scenario, model=settings))
    assert torch.equal(torch.get_rng_state(), state)


def test_all_that_fail_are_named_with_the_model_and_what_to_do(scenario: Scenario) -> None:
    methods = {name: build(name) for name in ("gd", "ssd", "bn_refresh", "ct")}
    with pytest.raises(InputError) as told:
        check_methods(methods, "mine", replace(scenario, model=MODELS["mlp"]))
    message = str(told.value)
    assert message.startswith("methods that cannot be used with model mine: bn_refresh (bn_refresh needs a model")
    assert message.endswith("take bn_refresh, ct out of methods, or change the model") and "\n" not in message


@dataclass(frozen=True)
class Late:
    """Fails in its last phase, after many updates of its first."""

    epochs: int = 50

    def updates(self, task: Any) -> Iterator[Update]:
        for _ in range(self.epochs):
            yield Update("first", 1)
        yield Update("second", 0)
        raise KeyError("late")


def test_a_failure_in_a_late_phase_is_found(scenario: Scenario) -> None:
    with pytest.raises(InputError, match="late .KeyError: 'late'.; take late out"):
        check_methods({"late": Late(), "gd": build("gd")}, "mine", scenario)


@pytest.mark.parametrize("settings, said", [
    (Own(wide=7), r"gives outputs of shape \(8, 7\) for 8 rows, but \(8, 4\) is needed"),
    (Own(fails=99), "cannot read the data: RuntimeError: no 8 rows; change the model"),
])  # fmt: skip
def test_a_model_that_fails_by_itself_is_named(settings: Own, said: str, scenario: Scenario) -> None:
    with pytest.raises(InputError, match=f"model mine {said}"):
        check_methods({"gd": build("gd")}, "mine", replace(scenario, model=settings))


def test_rows_have_the_labels_that_methods_need(scenario: Scenario) -> None:
    split = few_rows(scenario.dataset.train)
    assert 0 < len(split.retain) <= 20 and 0 < len(split.forget) <= method_check.FORGET
    assert set(split.forget.targets.tolist()) <= set(split.retain.targets.tolist())
    assert not set(split.forget.ids.tolist()) & set(split.retain.ids.tolist())
    train, rows = scenario.dataset.train, torch.arange(len(scenario.dataset.train))
    again = few_of(Split(train.rows(rows[method_check.FORGET :]), train.rows(rows[: method_check.FORGET])))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(split, again, strict=True))


def test_every_update_that_is_announced_is_made() -> None:
    made = []

    def updates() -> Iterator[Update]:
        for number in range(1000):
            yield Update("same" if number > 2 else f"phase {number}", 1)
            made.append(number)

    announced = list(first_updates(updates()))
    assert len(announced) == len(made) == 3 + method_check.REPEATED
    many = list(first_updates(iter([Update(str(n), 1) for n in range(1000)])))
    assert len(many) == method_check.MOST


def test_a_shortened_method_keeps_its_phases() -> None:
    for name in UNLEARNERS.names():
        method = build(name)
        short = shortened(method)
        assert type(short) is type(method)
        assert getattr(short, "epochs", 1) == 1


class Plain(nn.Module):
    """Flat rows to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(x.flatten(1))


class Auxiliary(Plain):
    def forward(self, x: torch.Tensor) -> Any:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class Named(Plain):
    def forward(self, x: torch.Tensor) -> Any:
        return {"logits": super().forward(x)}


class AlwaysDropping(Plain):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(functional.dropout(x))


class Drifting(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.fc.bias.data += torch.from_numpy(np.random.default_rng().normal(size=4))


class Keeping(Plain):
    def forward(self, x: torch.Tensor) -> Any:
        self.last = super().forward(x)
        return self.last


@dataclass(frozen=True)
class Foreign:
    net: type[nn.Module]

    def build(self, **_: Any) -> nn.Module:
        return self.net()


@pytest.mark.parametrize("net, said", [
    (Auxiliary, "gives a tuple in training mode; let it give the logits alone"),
    (Named, "gives a dict in training mode"),
    (AlwaysDropping, "gives other outputs for the same rows in evaluation mode; does it call dropout"),
    (Drifting, "starts with another fc.bias each time, under the same seed; let build draw from torch's"),
    (Keeping, "cannot be copied once it has run: RuntimeError: Only Tensors created .*parametrizations"),
])  # fmt: skip
def test_models_that_would_break_a_sweep_later_are_refused(net: type[nn.Module], said: str, scenario: Scenario) -> None:
    with pytest.raises(InputError, match=f"model mine {said}"):
        check_methods({}, "mine", replace(scenario, model=Foreign(net)))


def test_an_error_of_the_device_is_no_fault_of_the_method(scenario: Scenario) -> None:
    class Broken(Late):
        def updates(self, task: Any) -> Iterator[Update]:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(InputError, match="the device failed while methods were checked: AcceleratorError"):
        check_methods({"gd": Broken()}, "mine", scenario)
