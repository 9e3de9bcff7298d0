"""Negation of the task vector of the forget set."""

import pytest
import torch

from tests.contracts.tiny import FORGET, MODELS, Forbidden, model, run, same_parameters, same_state, task, weights
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import CUTS, GA, GD

DATA = Split(Forbidden(), FORGET)
SETTINGS = dict(lr=0.05, epochs=3, batch_size=4)
every_model = pytest.mark.parametrize("net", MODELS)


@every_model
@pytest.mark.parametrize("bn", ["train", "frozen"])
def test_no_multiple_is_the_corrupted_model(net, bn):
    assert same_state(run(CUTS(**SETTINGS, bn=bn, coefficient=0.0), model(net), DATA).final, model(net))


@every_model
def test_minus_one_is_the_model_that_learned_the_forget_set(net):
    settings = dict(lr=0.05, epochs=3, batch_size=9, bn="frozen")
    learned = run(GD(**settings), model(net), Split(FORGET, Forbidden())).final
    end = run(CUTS(**settings, coefficient=-1.0), model(net), DATA).final
    torch.testing.assert_close(weights(end), weights(learned), rtol=1e-4, atol=1e-5)


@every_model
@pytest.mark.parametrize("c", [0.1, 1.0, 5.0])
def test_one_step_is_one_step_of_ga_of_c_times_its_size(net, c):
    settings = dict(epochs=1, batch_size=9, momentum=0.0, weight_decay=0.0)
    end = run(CUTS(**settings, lr=0.02, coefficient=c), model(net), DATA).final
    ascent = run(GA(**settings, lr=0.02 * c), model(net), DATA).final
    torch.testing.assert_close(weights(end), weights(ascent), rtol=1e-4, atol=1e-6)
    assert not same_parameters(end, model(net))


@every_model
def test_after_every_step_it_is_that_multiple_of_the_vector(net):
    """θ − θ0 for c against θ⁺ − θ0, step by step: a run may stop anywhere."""
    tried, learned, start = model(net), model(net), weights(model(net))
    runs = [CUTS(**SETTINGS, coefficient=c).updates(task(m, DATA)) for m, c in ((tried, 2.0), (learned, -1.0))]
    for steps, _ in enumerate(zip(*runs, strict=True)):
        torch.testing.assert_close(weights(tried) - start, -2 * (weights(learned) - start), rtol=1e-3, atol=1e-6)
        assert same_state(tried, model(net)) == (steps == 0)


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
@pytest.mark.parametrize("bn", ["train", "frozen"])
def test_statistics_stay(net, bn):
    end = run(CUTS(**SETTINGS, bn=bn), model(net), DATA).final
    before = dict(model(net).named_buffers())
    assert all(torch.equal(value, before[name]) for name, value in end.named_buffers())


def test_cost_is_that_of_learning():
    row = run(GD(epochs=1, batch_size=9), data=Split(FORGET, Forbidden())).rungs[0].flops / 9
    assert run(CUTS(**SETTINGS), data=DATA).rungs[0].flops == 3 * 9 * row
