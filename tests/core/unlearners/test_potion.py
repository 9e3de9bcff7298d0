"""Potion: what a try selects and dampens, when the search ends, and what it costs."""

import copy
import itertools
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import DATA, FORGET, MODELS, RETAIN, model, run, same_state, task, weights
from tests.core.unlearners.parts import collected
from unlearn_core.checks import InputError
from unlearn_core.scenarios.scenario import Split
from unlearn_core.training import predict
from unlearn_core.types import Examples
from unlearn_core.unlearners import GD, Potion
from unlearn_core.unlearners.potion import XLF, dampen_largest, predicted, ranking, threshold

every_model = pytest.mark.parametrize("net", MODELS)
RANDOM = torch.Generator().manual_seed(0)
RATIOS = {"a": torch.rand(30, 20, generator=RANDOM) * 3, "b": torch.rand(431, generator=RANDOM) * 3}
COUNT = 1031


def selected(s, ratios=RATIOS):
    limit = threshold(ranking(ratios), s)
    return torch.cat([(r > limit).flatten() for r in ratios.values()])


@pytest.mark.parametrize("s", [1e-9, 1e-4, 0.003, 0.05, 1.0, 40.0, 1e12])
def test_a_try_selects_the_largest_of_its_share(s):
    chosen, values = selected(s), torch.cat([r.flatten() for r in RATIOS.values()])
    assert int(chosen.sum()) == math.floor(min(1, math.log(1 + 100 * s) / 100) * COUNT)
    assert not chosen.any() or not (~chosen).any() or values[chosen].min() > values[~chosen].max()


def test_selected_sets_grow_with_s():
    sets = [selected(0.01 * 1.4**step) for step in range(60)]
    assert all((small <= large).all() for small, large in itertools.pairwise(sets))
    assert sets[0].sum() < sets[-1].sum()


def test_of_equal_ratios_none_is_selected_rather_than_too_many():
    assert int(selected(1.0, {"a": torch.ones(500)}).sum()) == 0
    assert selected(math.exp(200), {"a": torch.ones(500)}).all()


def test_what_is_no_ratio_is_dropped_from_the_pool_and_left_alone():
    net = torch.nn.Linear(4, 1, bias=False)
    start = {"weight": torch.tensor([[1.0, -2.0, 3.0, 4.0]])}
    ratios = {"weight": torch.tensor([[math.nan, math.inf, 2.0, 0.5]])}
    assert ranking(ratios).tolist() == [2.0, 0.5]
    dampen_largest(net, start, ratios, threshold=-math.inf)
    assert net.weight.tolist() == [[1.0, -2.0, 1.5, 4.0]]


def tries(method, net, data=DATA):
    """(model after each try, the model at the end)."""
    states = []
    updates = method.updates(task(net, data))
    running = next(updates)
    for following in updates:
        if running.phase == "try":
            states.append(copy.deepcopy(net))
        running = following
    return [*states, copy.deepcopy(net)] if running.phase == "try" else states


def tried(method, net):
    """How many tries there are."""
    return [update.phase for update in method.updates(task(net))].count("try")


@pytest.mark.slow
@every_model
def test_every_try_starts_from_the_corrupted_model(net):
    """By the formula, from θ0, its ratios and the try's own s alone: nothing of earlier tries is left."""
    method = Potion(rho=0.0, growth=1.5, first=0.5)
    forget, data = collected(XLF().importances(task(model(net))))
    ratios = {name: forget[name] / data[name] for name in forget}
    pooled = torch.cat([r.flatten() for r in ratios.values()])
    pooled = pooled[pooled.isfinite()]
    seen = tries(method, model(net))
    assert len(seen) > 5
    for number, after in enumerate(seen[:40]):
        s = 0.5 * len(FORGET) / 50 * 1.5**number
        count = math.floor(min(1.0, math.log(1 + 100 * s) / 100) * len(pooled))
        limit = pooled.kthvalue(len(pooled) - count).values if count < len(pooled) else -math.inf
        before = model(net)
        for (name, value), original in zip(after.named_parameters(), before.parameters(), strict=True):
            factor = torch.where(ratios[name] > limit, (data[name] / forget[name]).clamp(max=1.0), 1.0)
            torch.testing.assert_close(value, original * factor, rtol=1e-5, atol=1e-7)


def test_a_run_stopped_at_any_try_leaves_that_try():
    whole = tries(Potion(rho=0.0, growth=1.3), model())
    price = [run(Potion(rho=0.0, growth=1.3)).rungs[0].flops, forward(model(), FORGET)]
    for back in (1, 3, 20):
        end = run(Potion(rho=0.0, growth=1.3), budgets=[price[0] - back * price[1]]).final
        assert same_state(end, whole[-1 - back])


def test_the_search_ends_at_the_first_try_that_reaches_the_goal():
    for rho in (0.2, 0.5, 0.9):
        accuracies = [predicted(net, FORGET) for net in tries(Potion(rho=rho), model())]
        goal = rho * predicted(model(), FORGET)
        assert all(a > goal for a in accuracies[:-1])
        assert accuracies[-1] <= goal or len(accuracies) > 100
    assert len(tries(Potion(rho=1.0, first=1e-9), model())) == 1


@every_model
def test_what_no_label_of_the_forget_set_is_predicted_for_stays(net):
    wrong = (predict(model(net), FORGET.inputs).argmax(1) + 1) % 4
    data = Split(RETAIN, Examples(FORGET.inputs, wrong, FORGET.ids))
    end = run(Potion(), model(net), data)
    assert same_state(end.final, model(net))
    assert end.rungs[0].status == "finished"


def test_a_search_without_success_ends():
    """Where everything above 1 is dampened, at the latest after 500 tries."""
    net = model("convnet")
    assert tried(Potion(rho=0.0, growth=2.0), net) < 100
    assert predicted(net, FORGET) > 0
    assert tried(Potion(rho=0.0, growth=1.001, first=1e-9), model("convnet")) == 500


def forward(net, rows):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(rows.inputs)
    return counter.get_total_flops()


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("share, rows", [(1.0, 41), (0.5, 20)])
def test_cost_is_one_pass_and_every_probe(net, share, rows):
    method = Potion(retain_share=share, chunk=10, growth=2.0)
    row = run(GD(epochs=1, batch_size=10), model(net)).rungs[0].flops / len(RETAIN)
    count = tried(method, model(net))
    expected = (rows + 9) * row + (count + 1) * forward(model(net), FORGET)
    assert run(method, model(net)).rungs[0].flops == pytest.approx(expected, rel=0.01)
    assert count > 1


def test_weights_only_shrink_and_statistics_stay():
    before, end = model("convnet"), run(Potion(rho=0.0), model("convnet")).final
    assert (weights(end).abs() <= weights(before).abs()).all() and (weights(end) * weights(before) >= 0).all()
    buffers = dict(before.named_buffers())
    assert all(torch.equal(b, buffers[k]) for k, b in end.named_buffers())


@pytest.mark.parametrize("wrong", [dict(rho=1.1), dict(first=0.0), dict(growth=1.0), dict(retain_share=0.0)])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Potion(**wrong)
