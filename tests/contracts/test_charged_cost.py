"""What a whole run is charged, against a count of its multiplications made by other means than the meter's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.methods import build, full_cost, models_for
from tests.contracts.tiny import model, run, task
from unlearn_core.registry import UNLEARNERS

aten = torch.ops.aten


def product(a: Tensor, b: Tensor) -> int:
    """For (..., m, k) times (..., k, n): one multiplication and one addition per m, k, n."""
    return 2 * a.numel() * b.shape[-1]


def convolution(inputs: Tensor, weight: Tensor, *rest: Any, out: Tensor) -> int:
    """Each output value takes one multiplication per weight of its filter."""
    return 2 * out.numel() * weight[0].numel()


def convolution_backward(grad: Tensor, inputs: Tensor, weight: Tensor, *rest: Any, out: Any) -> int:
    """As much as the forward pass for each of the two gradients that are asked for."""
    wanted = sum(result is not None for result in out[:2])
    return wanted * 2 * grad.numel() * weight[0].numel()


RULES: dict[Any, Callable[..., int]] = {
    aten.mm: lambda a, b, **_: product(a, b),
    aten.bmm: lambda a, b, **_: product(a, b),
    aten.addmm: lambda c, a, b, **_: product(a, b),
    aten.baddbmm: lambda c, a, b, **_: product(a, b),
    aten._linalg_eigh: lambda a, *_, out, **__: 9 * len(a) ** 3,
    aten.linalg_qr: lambda a, *_, out, **__: 2 * 2 * a.numel() * a.shape[1],
    aten._linalg_solve_ex: lambda a, b, **_: round(2 / 3 * len(a) ** 3) + 2 * len(a) * b.numel(),
    aten.convolution: convolution,
    aten.convolution_backward: convolution_backward,
}


class Count(TorchDispatchMode):
    """Adds up the operations that run inside it, from the shapes that they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        rule = RULES.get(func.overloadpacket)
        if rule is not None:
            self.flops += rule(*args, out=result)
        else:
            name = func.overloadpacket.__name__
            heavy = any(
                word in name
                for word in (
                    "matmul",
                    "mm",
                    "conv",
                    "attention",
                    "linalg_eigh",
                    "linalg_qr",
                    "solve",
                    "svd",
                    "cholesky",
                )
            )
            assert not heavy, f"{name} is not counted"
        return result


def counted(name: str, net: str, steps: int) -> int:
    """FLOPs of the first `steps` updates of a run without a meter."""
    given = task(model(net))
    with Count() as count:
        updates = build(name).updates(given)
        next(updates)
        for _ in range(steps):
            next(updates, None)
    return count.flops


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mlp", "convnet"])  # without and with BatchNorm and convolutions
@pytest.mark.parametrize("name", UNLEARNERS.names())
def test_a_whole_run_is_charged_what_it_costs(name: str, net: str) -> None:
    if net not in models_for(name):
        pytest.skip("the method refuses this model")
    budget = full_cost(name, model(net)) if name == "retrain_at_budget" else math.inf
    (rung,) = run(build(name), model(net), budgets=[budget]).rungs
    assert rung.status == ("ok" if name == "retrain_at_budget" else "finished")
    assert rung.steps > 1
    assert rung.flops == pytest.approx(counted(name, net, rung.steps), rel=0.01)


def test_the_count_itself() -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    x, w = torch.randn(2, 4, 6, 6, requires_grad=True), torch.randn(8, 2, 3, 3, requires_grad=True)
    with Count() as count:
        (a @ b).sum().backward()
    assert count.flops == 3 * 2 * 3 * 5 * 7
    with Count() as count:
        torch.nn.functional.conv2d(x, w, groups=2, padding=1).sum().backward()
    by_hand = sum(2 for _ in range(2 * 8 * 6 * 6) for _ in range(2 * 3 * 3))  # image, filter, place; weight
    assert count.flops == 3 * by_hand
