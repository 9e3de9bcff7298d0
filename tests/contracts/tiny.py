"""Models, rows and settings small enough for a test to run an unlearner in milliseconds."""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from unlearn_core.models import ConvNet, Gpt2, Linear, Mlp, ResNet9, build_model
from unlearn_core.models.token_noise import PADDING
from unlearn_core.scenarios.scenario import Split, unlearn
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe
from unlearn_core.training.budget import flop_counter
from unlearn_core.types import Examples, Task

CPU = torch.device("cpu")
SHAPE, CLASSES = (3, 8, 8), 4
LENGTH, VOCABULARY = 6, 12  # of text
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05)
MODELS = {
    "linear": Linear(),
    "mlp": Mlp(hidden=(6,)),
    "convnet": ConvNet(width=2),
    "resnet9": ResNet9(width=2),
}
TEXT_MODELS = {"gpt2": Gpt2(layers=1, width=16, heads=2)}


def examples(rows, *, seed=0, shape=SHAPE, classes=CLASSES):
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (rows,), generator=random)
    return Examples(torch.randn(rows, *shape, generator=random), targets, torch.arange(rows))


RETAIN, FORGET = examples(41), examples(9, seed=1)  # 41 = 16 + 16 + 9: a smaller last batch
DATA = Split(RETAIN, FORGET)


def as_text(rows):
    """The same rows, each with 1 to LENGTH tokens in the place of its picture."""
    random = torch.Generator().manual_seed(len(rows))
    ids = torch.randint(VOCABULARY, (len(rows), LENGTH), generator=random)
    sizes = torch.randint(1, LENGTH + 1, (len(rows), 1), generator=random)
    return replace(rows, inputs=ids.masked_fill(torch.arange(LENGTH) >= sizes, PADDING))


TEXT = Split(as_text(RETAIN), as_text(FORGET))


def data_for(net):
    """Rows that this model reads."""
    return TEXT if any(isinstance(module, nn.Embedding) for module in net.modules()) else DATA


def model(name="mlp", seed=0):
    """A model whose BatchNorm statistics and scales are not the initial constants, as in a trained one."""
    text = name in TEXT_MODELS
    settings, shape = (TEXT_MODELS[name], (LENGTH, VOCABULARY)) if text else (MODELS[name], SHAPE)
    built = build_model(settings, input_shape=shape, classes=CLASSES, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(0 if text else 3):
            built(torch.randn(32, *SHAPE, generator=random) + 0.3)
        for parameter in built.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return built


@dataclass
class Run:
    """The rungs of a run and a copy of the model at each that did not diverge."""

    measured: list
    models: list

    @property
    def rungs(self):
        return [m.rung for m in self.measured]

    @property
    def final(self):
        return self.models[-1]


def run(method, corrupted=None, data=None, *, recipe=RECIPE, seed=0, budgets=(float("inf"),)):
    """Unlearn as a sweep does, with a snapshot in place of the metrics."""
    corrupted = model() if corrupted is None else corrupted
    models = []

    def snapshot(net):
        models.append(copy.deepcopy(net))
        return {"steps": len(models)}

    measured = unlearn(
        method,
        corrupted,
        data_for(corrupted) if data is None else data,
        recipe=recipe,
        rng=Streams(seed, CPU),
        budgets=budgets,
        evaluator=snapshot,
    )
    return Run(measured, models)


def task(net, data=None, *, recipe=RECIPE, seed=0, progress=lambda: 0.0):
    data = data_for(net) if data is None else data
    return Task(net, data.retain, data.forget, recipe, Streams(seed, CPU), progress)


def flops_of_steps(method, corrupted, steps, *, data=None, recipe=RECIPE):
    """FLOPs of the first updates, counted in one go around a run without a meter."""
    with flop_counter() as counter:
        updates = method.updates(task(copy.deepcopy(corrupted), data, recipe=recipe))
        next(updates)
        for _ in range(steps):
            next(updates, None)
    return counter.get_total_flops()


def weights(net):
    """All parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def same_parameters(first, second):
    return torch.equal(weights(first), weights(second))


def same_state(first, second):
    """Whether parameters and buffers are bit for bit the same."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Forbidden:
    """Stands in for rows that a method must not read."""

    def __getattr__(self, name):
        raise AssertionError(f"read .{name} of rows that are out of bounds")

    def __len__(self):
        raise AssertionError("asked for the number of rows that are out of bounds")
