"""Fisher forgetting: the information in closed form and by loops, and the law of the noise."""

import math

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import CLASSES, MODELS, RETAIN, Forbidden, examples, model, run, same_state, task, weights
from tests.core.unlearners.parts import collected
from unlearn_core.checks import InputError
from unlearn_core.models import Mlp, build_model
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Examples
from unlearn_core.unlearners import GD, FisherForgetting

DATA = Split(RETAIN, Forbidden())
BARE = dict(cap=None, row_mean=False, boost=1.0)


def information(net, rows=RETAIN, **settings):
    """F by parameter name."""
    return collected(FisherForgetting(**settings)._fisher(task(net, Split(rows, Forbidden()))))


def flat(sums):
    return torch.cat([v.flatten() for v in sums.values()])


def test_softmax_regression_in_closed_form():
    """Σ_c p_c (p_k − [k = c])² = p_k (1 − p_k): the diagonal of Xᵀ W X / n."""
    net = model("linear")
    p = net(RETAIN.inputs).softmax(1).detach()
    w = p * (1 - p)
    fisher = information(net, estimate="expected")
    torch.testing.assert_close(fisher["head.1.bias"], w.mean(0))
    torch.testing.assert_close(fisher["head.1.weight"], w.T @ RETAIN.inputs.flatten(1).square() / len(RETAIN))


@pytest.mark.parametrize("net", MODELS)
def test_expected_information_by_a_loop_over_rows_and_classes(net):
    few, by_hand = RETAIN.rows(torch.arange(5)), model(net).eval()
    parameters = list(by_hand.parameters())
    totals = [torch.zeros_like(p) for p in parameters]
    for x in few.inputs:
        log_p = by_hand(x[None]).log_softmax(1)[0]
        for c in range(CLASSES):
            gradients = torch.autograd.grad(log_p[c], parameters, retain_graph=True)
            for total, g in zip(totals, gradients, strict=True):
                total += log_p[c].exp().detach() * g.square() / len(few)
    expected = torch.cat([t.flatten() for t in totals])
    torch.testing.assert_close(flat(information(model(net), few, estimate="expected")), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_sampled_information_is_unbiased(net):
    """The same five rows 2000 times, each with a class of its own."""
    few = RETAIN.rows(torch.arange(5))
    many = Examples(*(part.repeat(2000, *[1] * (part.dim() - 1)) for part in vars(few).values()))
    exact = flat(information(model(net), few, estimate="expected"))
    sampled = flat(information(model(net), many, estimate="sampled"))
    torch.testing.assert_close(sampled.sum(), exact.sum(), rtol=0.05, atol=0)
    assert functional.cosine_similarity(sampled, exact, dim=0) > 0.999


def test_labels_play_no_part():
    other = Examples(RETAIN.inputs, (RETAIN.targets + 1) % CLASSES, RETAIN.ids)
    for estimate in ("expected", "sampled"):
        ends = [run(FisherForgetting(estimate=estimate), data=Split(r, Forbidden())).final for r in (RETAIN, other)]
        assert same_state(*ends)


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_noise_has_the_variance_of_its_formula(net):
    """Over parameters and seeds, noise / √(α / (F + ε)) is standard normal."""
    method = FisherForgetting(alpha=1e-3, epsilon=1e-3, estimate="expected", **BARE)
    fisher = flat(information(model(net), estimate="expected"))
    scale = (1e-3 / (fisher + 1e-3)).sqrt()
    values = torch.stack([weights(run(method, model(net), DATA, seed=s).final) for s in range(8)])
    standard = ((values - weights(model(net))) / scale).double()
    n = standard.numel()
    assert abs(standard.mean()) < 5 / math.sqrt(n)
    assert standard.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    low, high = (standard[:, chosen].var().item() for chosen in (fisher < fisher.median(), fisher >= fisher.median()))
    assert low == pytest.approx(1, abs=5 * math.sqrt(4 / n))
    assert high == pytest.approx(1, abs=5 * math.sqrt(4 / n))
    assert abs((standard[0] * standard[1]).mean()) < 5 / math.sqrt(n / 8), "seeds share their noise"


def test_options_of_the_published_code():
    fisher = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    plain = FisherForgetting(alpha=2.0, epsilon=1.0, **BARE)
    torch.testing.assert_close(plain.variance(fisher), 2 / (1 + fisher))
    capped = FisherForgetting(alpha=2.0, epsilon=1.0, **BARE | dict(cap=0.25))
    torch.testing.assert_close(capped.variance(fisher), torch.tensor([[0.5, 0.5], [0.5, 0.4]]))
    mean = FisherForgetting(alpha=2.0, epsilon=1.0, **BARE | dict(row_mean=True))
    torch.testing.assert_close(mean.variance(fisher), torch.tensor([[1.5, 1.5], [0.45, 0.45]]))
    torch.testing.assert_close(mean.variance(fisher[0]), 2 / (1 + fisher[0]))
    boosted = FisherForgetting(alpha=2.0, epsilon=1.0, **BARE | dict(boost=10.0))
    torch.testing.assert_close(boosted.variance(fisher, boosted=True), 20 / (1 + fisher))


def test_the_boost_is_for_the_head_and_for_vectors():
    plain, boosted = (run(FisherForgetting(boost=b), model("convnet"), DATA).final for b in (1.0, 100.0))
    start = model("convnet")
    for (name, a), b, p in zip(plain.named_parameters(), boosted.parameters(), start.parameters(), strict=True):
        factor = 10.0 if name.startswith("head") or p.dim() == 1 else 1.0
        torch.testing.assert_close(b - p, factor * (a - p), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_the_chunk_is_only_a_matter_of_memory(net):
    ends = [flat(information(model(net), chunk=c, estimate="expected")) for c in (2, 7, 1000)]
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ends[1], ends[2], rtol=1e-4, atol=1e-6)


def test_a_share_of_the_rows_is_a_mean_over_that_share():
    """Equal rows: any share of them has the same information."""
    same = RETAIN.rows(torch.zeros(40, dtype=torch.long))
    whole, half = (flat(information(model(), same, estimate="expected", retain_share=r)) for r in (1.0, 0.5))
    torch.testing.assert_close(half, whole)


def test_cost_is_one_forward_pass_for_each_row_and_a_backward_pass_for_each_class():
    forward = 2 * (192 * 6 + 6 * 4)
    backward = run(GD(epochs=1, batch_size=10)).rungs[0].flops / len(RETAIN) - forward
    for share, rows in ((1.0, 41), (0.5, 20)):
        for estimate, passes in (("sampled", 1), ("expected", CLASSES)):
            method = FisherForgetting(retain_share=share, estimate=estimate, chunk=10)
            assert run(method, data=DATA).rungs[0].flops == rows * (forward + passes * backward)


def test_expected_information_costs_one_unit_and_two_for_each_class():
    """In forward passes; the first layer, whose backward pass is half as dear, hardly counts in this model."""
    few = examples(10, shape=(4,))
    net = build_model(Mlp(hidden=(400, 400, 400)), input_shape=(4,), classes=CLASSES, seed=0)
    unit = 2 * (4 * 400 + 2 * 400 * 400 + 400 * CLASSES)
    spent = run(FisherForgetting(estimate="expected", chunk=5), net, Split(few, Forbidden())).rungs[0].flops
    assert spent / (len(few) * unit) == pytest.approx(1 + 2 * CLASSES, rel=0.01)


def test_a_budget_that_does_not_reach_the_end_changes_nothing():
    full = run(FisherForgetting(chunk=5), data=DATA).rungs[0].flops
    ladder = run(FisherForgetting(chunk=5), data=DATA, budgets=[0.5 * full, full])
    assert same_state(ladder.models[0], model())
    assert not same_state(ladder.models[1], model())
    assert [rung.status for rung in ladder.rungs] == ["ok", "finished"]


@pytest.mark.parametrize("wrong", [dict(alpha=-1.0), dict(epsilon=0.0), dict(estimate="x"), dict(retain_share=0.0)])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FisherForgetting(**wrong)
