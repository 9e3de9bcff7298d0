"""SalUn: the masks, what they freeze, and the limits of their share."""

import math

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import CLASSES, FORGET, MODELS, RETAIN, model, run, same_parameters, same_state, task, weights
from tests.core.unlearners.parts import collected
from unlearn_core.checks import InputError
from unlearn_core.unlearners import GD, RandomLabels, SalUn
from unlearn_core.unlearners.salun import gradient_sums, largest

SETTINGS = dict(lr=0.05, epochs=2, batch_size=16)
every_model = pytest.mark.parametrize("net", MODELS)


def whole_gradient(net):
    """Σ ∇ℓ over the forget set, in one batch, as one vector."""
    net = model(net).eval()
    loss = functional.cross_entropy(net(FORGET.inputs), FORGET.targets, reduction="sum")
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def sums(net, chunk=4):
    parts = collected(gradient_sums(net, FORGET, chunk=chunk, phase="saliency"))
    return torch.cat([p.flatten() for p in parts.values()])


@every_model
@pytest.mark.parametrize("chunk", [2, 4, 9, 100])
def test_saliency_is_the_gradient_of_the_whole_set(net, chunk):
    before = model(net).train()
    torch.testing.assert_close(sums(before, chunk), whole_gradient(net), rtol=1e-4, atol=1e-5)
    assert same_state(before, model(net))


def test_saliency_has_nothing_of_stale_gradients():
    """Some published masks gather batch gradients that are never cleared, so that early batches count again."""
    net = model("convnet")
    functional.cross_entropy(net.eval()(RETAIN.inputs), RETAIN.targets).backward()
    torch.testing.assert_close(sums(net, chunk=2), whole_gradient("convnet"), rtol=1e-4, atol=1e-5)


def count(share):
    values = [torch.rand(3, 4), torch.rand(5), torch.rand(2, 3, 2)]
    return sum(int(mask.sum()) for mask in largest(values, share)), 29


@pytest.mark.parametrize("share", [k / 37 for k in range(38)])
def test_size_of_the_mask(share):
    chosen, total = count(share)
    assert chosen == math.floor(share * total)


def test_the_mask_pools_all_parameters_and_takes_the_first_of_equal_ones():
    masks = largest([torch.tensor([[3.0, 1.0], [1.0, 0.0]]), torch.tensor([1.0, 2.0])], 4 / 6)
    assert masks[0].tolist() == [[True, True], [True, False]]
    assert masks[1].tolist() == [False, True]


@every_model
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_neither_momentum_nor_weight_decay_leaks_through_the_mask(net, optimizer, share):
    """Published code before 2026 masked gradients only."""
    method = SalUn(**SETTINGS, share=share, momentum=0.9, weight_decay=0.1, optimizer=optimizer)
    before, after = weights(model(net)), weights(run(method, model(net)).final)
    order = whole_gradient(net).abs().argsort(descending=True, stable=True)
    kept = order[math.floor(share * len(order)) :]
    assert torch.equal(after[kept], before[kept])
    assert (after != before).sum() > 0.9 * (len(order) - len(kept))


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("order", ["mixed", "forget_first"])
@pytest.mark.parametrize("mask", ["hard", "soft"])
def test_everything_is_random_labels_bit_for_bit(net, order, mask):
    settings = dict(**SETTINGS, order=order, retain_share=0.5, schedule="cosine")
    assert same_state(run(SalUn(**settings, share=1.0, mask=mask), model(net)).final,
                      run(RandomLabels(**settings), model(net)).final)  # fmt: skip


@every_model
def test_the_hard_mask_is_random_labels_with_masked_weights_put_back(net):
    """After every step, bit for bit."""
    tried, start = model(net), [p.detach().clone() for p in model(net).parameters()]
    kept = (
        sums(model(net), chunk=16)
        .abs()
        .argsort(descending=True, stable=True)[math.floor(0.4 * weights(tried).numel()) :]
    )
    mask = torch.zeros(weights(tried).numel(), dtype=torch.bool)
    mask[kept] = True
    masks = mask.split([p.numel() for p in start])
    updates = RandomLabels(**SETTINGS).updates(task(tried))
    while next(updates, None) is not None:
        put_back(tried, start, masks)
    put_back(tried, start, masks)
    assert same_state(tried, run(SalUn(**SETTINGS, share=0.4), model(net)).final)


@torch.no_grad()
def put_back(net, start, masks):
    for p, value, mask in zip(net.parameters(), start, masks, strict=True):
        p.view(-1)[mask] = value.view(-1)[mask]


@every_model
def test_nothing_is_the_corrupted_model(net):
    assert same_parameters(run(SalUn(**SETTINGS, share=0.0), model(net)).final, model(net))


@every_model
def test_the_model_rests_while_the_mask_is_made(net):
    tried = model(net)
    for update in SalUn(**SETTINGS).updates(task(tried)):
        if update.phase != "saliency":
            break
        assert same_state(tried, model(net))
    assert same_state(tried, model(net))


def test_cost_is_one_pass_over_the_forget_set_more_than_random_labels():
    row = run(GD(epochs=1)).rungs[0].flops / len(RETAIN)
    assert run(SalUn(**SETTINGS)).rungs[0].flops == (9 + 2 * 50) * row


def test_relabelled_rows_lose_their_label():
    end = run(SalUn(lr=0.05, epochs=20, batch_size=16)).final.eval()
    likelihood = end(FORGET.inputs).softmax(1).gather(1, FORGET.targets[:, None]).mean().item()
    assert likelihood < 0.5 / CLASSES


SOFT = dict(**SETTINGS, mask="soft")


def after_steps(net, method, steps):
    """Weights after so many updates."""
    net = model(net)
    updates = method.updates(task(net))
    for _ in range(steps + 1):
        next(updates, None)
    return weights(net)


@every_model
def test_one_soft_step_is_the_proximal_step_of_the_free_one(net):
    """argmin_x ½ ‖x − free‖² + τ ‖x − θ0‖₁, coordinate by coordinate; τ the k-th smallest |free − θ0|."""
    start, free = weights(model(net)).double(), after_steps(net, RandomLabels(**SETTINGS), 1).double()
    total = len(list(RandomLabels(**SETTINGS).updates(task(model(net)))))
    k = math.floor(0.7 * (1 - 1 / total) * len(start))
    threshold = (free - start).abs().sort().values[k - 1]
    moved = free - start
    slow = [d - threshold if d > threshold else d + threshold if d < -threshold else 0.0 for d in moved]
    found = after_steps(net, SalUn(**SOFT, share=0.3), 1).double()
    torch.testing.assert_close(found, start + torch.stack([torch.as_tensor(d) for d in slow]), rtol=1e-6, atol=1e-7)

    def objective(x):
        return 0.5 * (x - free).square() + threshold * (x - start).abs()

    for shift in (-1e-3, -1e-5, 1e-5, 1e-3):
        assert (objective(found) <= objective(found + shift) + 1e-10).all()


@every_model
@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_ever_fewer_weights_are_kept_exactly(net, share):
    """At least ⌊(1 − share) (1 − t/T) P⌋ after step t: none need be kept at the end."""
    start, tried = weights(model(net)), model(net)
    updates = SalUn(**SOFT, share=share, momentum=0.9, weight_decay=0.1).updates(task(tried))
    total = len(list(RandomLabels(**SETTINGS).updates(task(model(net)))))
    next(updates)
    for step in range(1, total + 1):
        next(updates, None)
        kept = (weights(tried) == start).sum().item()
        assert kept >= math.floor((1 - share) * (1 - step / total) * len(start))
        assert kept < len(start) or share == 0.0
    assert kept < 0.5 * len(start)


def test_the_soft_mask_needs_no_saliency_pass():
    row = run(GD(epochs=1)).rungs[0].flops / len(RETAIN)
    assert run(SalUn(**SOFT)).rungs[0].flops == 2 * 50 * row


def test_an_unknown_mask_is_refused():
    with pytest.raises(InputError, match="mask"):
        SalUn(mask="firm")
