"""What an unlearner declares to read is what it reads: no more, and nothing for show."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.methods import build, full_cost
from tests.contracts.tiny import CLASSES, DATA, FORGET, RETAIN, examples, model, run, same_state
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import NEEDS

every_method = pytest.mark.parametrize("name", UNLEARNERS.names())
NET = "convnet"  # with BatchNorm and kernels, which some methods need
NETS = {"potion": "mlp"}  # the tiny convnet gives one class whatever is dampened, so that no label decides anything
OTHER = {
    "forget": Split(RETAIN, replace(FORGET, inputs=examples(len(FORGET), seed=7).inputs)),
    "forget_labels": Split(RETAIN, replace(FORGET, targets=(FORGET.targets + 1) % CLASSES)),
    "retain": Split(replace(RETAIN, inputs=examples(len(RETAIN), seed=8).inputs), FORGET),
    "retain_labels": Split(replace(RETAIN, targets=(RETAIN.targets + 1) % CLASSES), FORGET),
}
"""The data with one part exchanged."""


def result(name, data):
    """The model after a full run on `data`."""
    net = NETS.get(name, NET)
    return run(build(name), model(net), data, budgets=[full_cost(name, model(net))]).final


@every_method
def test_needs_are_declared_in_the_words_of_the_list(name):
    needs = UNLEARNERS.get(name).needs
    assert set(needs) <= set(NEEDS)
    assert list(needs) == [need for need in NEEDS if need in needs], "each once, in the order of the list"
    for part in ("forget", "retain"):
        assert part in needs or f"{part}_labels" not in needs, "labels without their rows"


@pytest.mark.slow
@every_method
def test_the_result_depends_on_what_is_declared_and_on_nothing_else(name):
    usual = result(name, DATA)
    for part, data in OTHER.items():
        assert same_state(result(name, data), usual) == (part not in UNLEARNERS.get(name).needs), part


class AskedForError(Exception):
    pass


@pytest.mark.slow
@every_method
def test_weights_are_started_afresh_by_those_that_say_so(name, monkeypatch):
    def refuse(*_, **__):
        raise AskedForError

    corrupted, cost = model(NET), full_cost(name, model(NET))
    for key, module in list(sys.modules.items()):
        if key.startswith("unlearn_core.") and callable(getattr(module, "initialise", None)):
            monkeypatch.setattr(module, "initialise", refuse)
    asked = False
    try:
        run(build(name), corrupted, budgets=[cost])
    except AskedForError:
        asked = True
    assert asked == ("initialisation" in UNLEARNERS.get(name).needs)
