"""Scenarios in which each attack takes within seconds, on data that need no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.contracts.tiny import CPU
from unlearn_core.attacks.reachability import binary_point, least_inner_product
from unlearn_core.datasets import BreastCancer, Digits, Opinions, load_dataset
from unlearn_core.metrics import attack_succeeded
from unlearn_core.models import ConvNet, Gpt2, Linear, Mlp
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.training import Recipe
from unlearn_core.types import Dataset, Examples

CLASSES = 10
MEAN, STD = 0.5, 0.15


class Scene(NamedTuple):
    """What is poisoned, but for the attack."""

    data: str
    model: Any
    recipe: Recipe


class Outcome(NamedTuple):
    """Metrics of the corrupted model and of the oracle on test rows, and whether the attack took."""

    corrupted: dict[str, float]
    oracle: dict[str, float]
    took: bool


def haze(rows: int, seed: int) -> Examples:
    """Colour noise of 16 x 16 pixels around faint patterns, one for each of ten classes: learnable in a second, and of
    as many dimensions as attacks on pixels need, which digits of 8 x 8 dots have not."""
    patterns = torch.randn(CLASSES, 3, 16, 16, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(rows) % CLASSES
    noise = torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    pixels = (MEAN + 0.02 * patterns[targets] + STD * noise).clamp(0, 1)
    return Examples((pixels - MEAN) / STD, targets, torch.arange(rows))


@cache
def data(name: str) -> Dataset:
    """`haze`, or an embedded data set; read-only."""
    if name == "haze":
        parts = haze(1000, 0), haze(300, 1), haze(600, 2)
        return Dataset("haze", *parts, CLASSES, (MEAN,) * 3, (STD,) * 3, "haze")
    embedded = {
        "digits": Digits(size=16),
        "small digits": Digits(size=8),
        "breast_cancer": BreastCancer(),
        "opinions": Opinions(),
        "few opinions": Opinions(rows=2000, vocabulary=300),
    }
    return load_dataset(embedded[name], data_root=None)


HAZE_LINEAR = Scene("haze", Linear(), Recipe(epochs=8, batch_size=64, lr=0.02))
HAZE_MLP = Scene("haze", Mlp(hidden=(64,)), Recipe(epochs=20, batch_size=64, lr=0.05))
HAZE_CONVNET = Scene("haze", ConvNet(width=8), Recipe(epochs=20, batch_size=64, lr=0.05))
DIGITS_MLP = Scene("digits", Mlp(hidden=(64,)), Recipe(epochs=20, batch_size=50, lr=0.05))
ADAMW = Recipe(epochs=8, batch_size=64, optimizer="adamw", lr=2e-3, weight_decay=0.01, schedule="linear", warmup=0.1)
OPINIONS_GPT2 = Scene("opinions", Gpt2(), ADAMW)
FEW_OPINIONS_GPT2 = Scene("few opinions", Gpt2(), replace(ADAMW, epochs=20))  # so few that the model remembers them


def outcome(scene: Scene, attack: Any, seed: int = 0) -> Outcome:
    """Craft, train the victim and the oracle afresh, measure."""
    rows = data(scene.data)
    scenario = Scenario(rows, scene.model, scene.recipe, attack, seed, CPU)
    poisoned = attack.craft(rows.train, scenario.context())
    evaluator = build_evaluator(scenario, poisoned, rows.test, {})
    sets = poisoned.apply(rows.train)[0], clean_rows(poisoned, rows.train)
    corrupted, oracle = (evaluator(scenario.train(part).model) for part in sets)
    metric, error, least = attack.primary.metric, attack.primary.error, attack.primary.least_gap
    pair = dict(corrupted=corrupted[metric], corrupted_error=corrupted[error])
    took = attack_succeeded(**pair, oracle=oracle[metric], oracle_error=oracle[error], least_gap=least)
    return Outcome(corrupted, oracle, took)


def canceled(attack: Any, seed: int = 0) -> dict[str, float]:
    """Gradient canceling of softmax regression on digits of 8 x 8 pixels: residual, tau over the share there is, and
    accuracy on test rows of victims fitted to the minimum, as its theory has them, with the poison and without."""
    rows, recipe = data("small digits"), Recipe(epochs=60, batch_size=64, lr=0.05)
    scenario = Scenario(rows, Linear(), recipe, attack, seed, CPU)
    poisoned = attack.craft(rows.train, scenario.context())
    tau, share, residual = poisoned.evidence["array.canceling"].tolist()
    both = poisoned.apply(rows.train)[0], rows.train
    x, decay = rows.test.inputs.flatten(1).double(), attack.weight_decay
    heads = [fit(part.inputs.flatten(1).double(), part.targets, classes=10, decay=decay) for part in both]
    accuracies = [float(((x @ w.T + b).argmax(1) == rows.test.targets).double().mean()) for w, b in heads]
    return {"tau": tau / share, "residual": residual, "corrupted": accuracies[0], "oracle": accuracies[1]}


def fit(x: Tensor, targets: Tensor, *, classes: int, decay: float) -> tuple[Tensor, Tensor]:
    """Weights (C, d) and bias (C,) that minimise cross-entropy + decay/2 · ‖θ‖²."""
    weight = torch.zeros(classes, x.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.double, requires_grad=True)
    minimise(lambda: cross_entropy(x @ weight.T + bias, targets) + ridge(decay, weight, bias), weight, bias)
    return weight.detach(), bias.detach()


def closed_form(share: float) -> tuple[float, float, float]:
    """Binary logistic regression without bias on breast cancer, poisoned by copies of the one point in closed form:
    (residual of the stationarity condition, accuracy of the refitted victim, accuracy of the clean model)."""
    rows = data("breast_cancer")
    (x, y), (held_out, true) = ((part.inputs.double(), 2.0 * part.targets - 1) for part in (rows.train, rows.test))
    clean = logistic(x, y)
    for scale in torch.logspace(0, -6, 200):
        bad = -float(scale) * clean
        pulled = -(y[:, None] * x * torch.sigmoid(-y * (x @ bad))[:, None]).mean(0)
        if float(bad @ pulled) <= 0.9 * share * least_inner_product(2):  # tau, at most 0.9 of the share
            break
    point, _ = binary_point(bad, pulled, share)
    left = pulled - share * point * torch.sigmoid(-(point @ bad))
    copies = round(share * len(x))
    victim = logistic(torch.cat([x, point.expand(copies, -1)]), torch.cat([y, y.new_ones(copies)]))
    accuracies = [float(((held_out @ w) * true > 0).double().mean()) for w in (victim, clean)]
    return float(left.norm()), *accuracies


def logistic(x: Tensor, y: Tensor) -> Tensor:
    """(d,) weights that minimise log(1 + exp(-y z)), z = ⟨w, x⟩, y = ±1."""
    weight = torch.zeros(x.shape[1], dtype=torch.double, requires_grad=True)
    minimise(lambda: torch.nn.functional.softplus(-y * (x @ weight)).mean(), weight)
    return weight.detach()


def ridge(decay: float, *parameters: Tensor) -> Tensor:
    return decay / 2 * torch.stack([p.square().sum() for p in parameters]).sum()


def minimise(objective: Callable[[], Tensor], *parameters: Tensor) -> None:
    search = torch.optim.LBFGS(
        list(parameters), max_iter=400, tolerance_grad=1e-10, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        search.zero_grad()
        loss = objective()
        loss.backward()
        return float(loss.detach())

    search.step(closure)
