"""Retraining of the last k blocks."""

from dataclasses import replace

import pytest
import torch

from tests.contracts.tiny import MODELS, RECIPE, RETAIN, Forbidden, model, run, same_state, task
from tests.core.unlearners.parts import states_by_block, unchanged
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import EUk, Retrain

DATA = Split(RETAIN, Forbidden())
SETTINGS = dict(lr=0.05, epochs=2, batch_size=16)


def begun(net, method, *, seed=0):
    """The model when the first update is announced: re-initialised, not yet trained."""
    next(method.updates(task(net, DATA, seed=seed)))
    return net


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("k", [1, 2])
def test_new_blocks_do_not_depend_on_the_corrupted_model(net, k):
    method = EUk(**SETTINGS, k=k)
    first, second, other = (
        states_by_block(begun(model(net, seed=s), method, seed=r))[-k:] for s, r in ((1, 7), (2, 7), (1, 8))
    )
    assert all(unchanged(first, second))
    assert not any(unchanged(first, other))
    assert not any(unchanged(first, states_by_block(model(net, seed=1))[-k:]))


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
def test_running_statistics_of_new_blocks_start_anew(net):
    blocks = list(begun(model(net), EUk(**SETTINGS, k=3)).children())
    worn = [m for m in blocks[-4].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    fresh = [m for block in blocks[-3:] for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert worn and fresh
    assert not any(m.running_mean.eq(0).all() or m.num_batches_tracked == 0 for m in worn)
    assert all(m.running_mean.eq(0).all() and m.running_var.eq(1).all() for m in fresh)
    assert all(m.weight.eq(1).all() and m.bias.eq(0).all() and m.num_batches_tracked == 0 for m in fresh)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("k", [1, 3])
def test_the_frozen_part_is_untouched(net, k):
    end = run(EUk(**SETTINGS, k=k), model(net), DATA).final
    kept = unchanged(states_by_block(model(net)), states_by_block(end))
    assert kept == [index < len(kept) - k for index in range(len(kept))]


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, schedule="constant"),
        replace(RECIPE, schedule="cosine", weight_decay=1e-2, momentum=0.5, augmentation="flip"),
        replace(RECIPE, schedule="linear", optimizer="adamw", lr=0.01),
    ],
    ids=lambda recipe: recipe.schedule,
)
def test_all_blocks_with_the_recipes_settings_is_retraining_bit_for_bit(net, recipe):
    shared = "lr epochs batch_size momentum weight_decay optimizer schedule".split()
    method = EUk(k=99, **{name: getattr(recipe, name) for name in shared})
    first, second = (run(m, model(net), DATA, recipe=recipe) for m in (method, Retrain()))
    assert same_state(first.final, second.final)
    assert first.rungs[0]._replace(seconds=0) == second.rungs[0]._replace(seconds=0)
