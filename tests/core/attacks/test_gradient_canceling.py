"""Gradient canceling against closed forms, brute force, double backward and a victim that is refitted."""

import copy
import itertools
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import avg_pool2d, cross_entropy

from unlearn_core.attacks.canceling_search import Search, cancel_all, cancel_head
from unlearn_core.attacks.corrupted_head import gradpc, reachable, with_stationary_bias
from unlearn_core.attacks.corrupted_model import corrupt_parameters
from unlearn_core.attacks.cross_gradients import directional_input_gradient, summed_gradient
from unlearn_core.attacks.gradient_canceling import GradientCanceling, split_head
from unlearn_core.attacks.linear_canceling import _polished as polished
from unlearn_core.attacks.linear_canceling import cancel
from unlearn_core.attacks.reachability import (
    Head,
    binary_point,
    least_inner_product,
    mean_gradient,
    pull,
    threshold,
)
from unlearn_core.checks import InputError
from unlearn_core.datasets import load_dataset
from unlearn_core.datasets.digits import Digits
from unlearn_core.models import ConvNet, Linear, build_model
from unlearn_core.seeding import Streams
from unlearn_core.types import CraftContext, Examples

CPU = torch.device("cpu")
DECAY = 1e-3


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    """The digits at their own 8 x 8 pixels."""
    data = load_dataset(Digits(), data_root=None, train_rows=1000)
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return replace(data, **{k: replace(v, inputs=avg_pool2d(v.inputs, 4)) for k, v in parts.items()})


@pytest.fixture(scope="module")
def flat(digits):
    return digits.train.inputs.flatten(1).double(), digits.train.targets


def fit(features, targets, *, classes=10, decay=DECAY):
    """The minimiser of cross-entropy + decay/2 ‖θ‖², by L-BFGS."""
    weight = torch.zeros(classes, features.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=400, tolerance_grad=1e-10, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        ridge = decay / 2 * (weight.square().sum() + bias.square().sum())
        loss = cross_entropy(features @ weight.T + bias, targets) + ridge
        loss.backward()
        return loss

    search.step(closure)
    return Head(weight.detach(), bias.detach())


def accuracy(head, features, targets):
    return float(((features @ head.weight.T + head.bias).argmax(1) == targets).double().mean())


@pytest.mark.parametrize(("classes", "value"), [(2, 0.2784645), (10, 1.1010)])
def test_no_logits_have_a_smaller_inner_product_with_their_gradient(classes, value):
    bound = least_inner_product(classes)
    assert bound == pytest.approx(value, abs=1e-4)
    z = 3 * torch.randn(200_000, classes, generator=random(), dtype=torch.double)
    products = (z.softmax(1) * z).sum(1) - z[:, 0]
    assert products.min() >= -bound
    best = torch.zeros(classes, dtype=torch.double)
    best[0] = 1 + bound
    assert float(best.softmax(0) @ best - best[0]) == pytest.approx(-bound, abs=1e-12)


def test_mean_gradient_is_that_of_autograd():
    head = Head(torch.randn(3, 5, generator=random()).double(), torch.randn(3, generator=random(1)).double())
    features, targets = torch.randn(7, 5, generator=random(2)).double(), torch.arange(7) % 3
    weight, bias = (t.clone().requires_grad_() for t in head)
    expected = torch.autograd.grad(cross_entropy(features @ weight.T + bias, targets), [weight, bias])
    found = mean_gradient(head, features, targets)
    assert torch.allclose(found.weight, expected[0], atol=1e-14) and torch.allclose(found.bias, expected[1], atol=1e-14)


def test_binary_poison_in_closed_form_cancels_and_the_refitted_victim_returns():
    x = torch.randn(400, 6, generator=random(), dtype=torch.double) + 0.5
    y = torch.where(x @ torch.randn(6, generator=random(1), dtype=torch.double) > 0, 1.0, -1.0).double()

    def gradient(w, x, y):
        return -(y[:, None] * x * torch.sigmoid(-y * (x @ w))[:, None]).mean(0)

    clean = fit(x, (y > 0).long(), classes=2, decay=0.01)
    w = -0.003 * (clean.weight[1] - clean.weight[0])
    epsilon = 0.03
    point, logit = binary_point(w, gradient(w, x, y), epsilon)
    poison = gradient(w, point[None], torch.ones(1).double())
    assert (gradient(w, x, y) + epsilon * poison).norm() < 1e-10
    assert float(point @ w) == pytest.approx(logit, abs=1e-9)

    m = round(epsilon * len(x))
    xs, ys = torch.cat([x, point.expand(m, -1)]), torch.cat([y, torch.ones(m).double()])
    back = torch.zeros(6, dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([back], max_iter=400, tolerance_grad=1e-11, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = torch.nn.functional.softplus(-ys * (xs @ back)).mean()
        loss.backward()
        return loss

    search.step(closure)
    assert (back.detach() - w).norm() < 1e-2 * w.norm()


def test_a_binary_share_below_tau_is_refused():
    w, g = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.01, 0.3]).double()
    tau = 0.01 / least_inner_product(2)
    binary_point(w, g, tau * 1.001)
    with pytest.raises(ValueError, match="epsilon must be at least"):
        binary_point(w, g, tau * 0.999)


def test_shrinking_keeps_the_predictions_and_lowers_tau(flat):
    features, targets = flat
    bad = fit(features, targets).scaled(-1).centred()
    taus = []
    for scale in (1.0, 0.1, 0.01):
        shrunk = Head(bad.weight * scale, bad.bias * scale)
        shrunk = Head(shrunk.weight, torch.zeros_like(shrunk.bias))
        taus.append(threshold(shrunk, pull(shrunk, features, targets, epsilon=0.03, weight_decay=DECAY)))
        assert torch.equal((features @ shrunk.weight.T).argmax(1), (features @ bad.weight.T).argmax(1))
    assert taus[0] > taus[1] > taus[2] > 0


def test_the_refitted_bias_is_stationary_for_the_clean_loss(flat):
    features, targets = flat
    bad = with_stationary_bias(fit(features, targets).scaled(-0.5), features, targets, decay=0.0)
    assert mean_gradient(bad, features, targets).bias.abs().max() < 1e-12


@pytest.mark.slow
def test_linear_head_is_cancelled_exactly_and_the_victim_returns_to_the_bad_weights(flat, digits):
    features, targets = flat
    count, epsilon = 30, 0.03
    clean = fit(features, targets)
    bad, tau = reachable(clean.scaled(-1), features, targets, epsilon=epsilon, weight_decay=DECAY, reach=0.7)
    assert 0 < tau <= 0.7 * epsilon
    pulled = pull(bad, features, targets, epsilon=epsilon, weight_decay=DECAY)
    made = cancel(bad, pulled, count=count, rows=len(targets), random=random())
    assert len(made.targets) == count and made.residual < 1e-8
    both = torch.cat([features, made.features]), torch.cat([targets, made.targets])
    left = mean_gradient(bad, *both).plus(bad.scaled(DECAY)).norm()  # the victim's own gradient, computed afresh
    assert left < 1e-8 * pulled.norm()
    victim = fit(*both)
    assert (victim.weight - bad.weight).norm() < 0.1 * bad.weight.norm()  # as far as an ill-conditioned fit converges
    test = digits.test.inputs.flatten(1).double()
    assert accuracy(clean, test, digits.test.targets) > 0.9 and accuracy(victim, test, digits.test.targets) < 0.1


@pytest.mark.slow
def test_below_tau_the_residual_stays_above_its_bound(flat):
    features, targets = flat
    bad, tau = reachable(
        fit(features, targets).scaled(-1), features, targets, epsilon=0.06, weight_decay=DECAY, reach=0.9
    )
    epsilon = 0.5 * tau
    count = round(epsilon * len(targets))
    pulled = pull(bad, features, targets, epsilon=epsilon, weight_decay=DECAY)
    needed = threshold(bad, pulled)
    made = cancel(bad, pulled, count=count, rows=len(targets), random=random())
    bound = (needed - count / len(targets)) * least_inner_product(10) / bad.norm()
    assert needed > count / len(targets)
    assert made.residual * pulled.norm() >= bound > 0


def test_gradpc_raises_the_loss_inside_its_ball(flat):
    features, targets = flat
    head = fit(features, targets)
    bad = gradpc(head, features, targets, radius=1.5, random=random())
    moved = bad.plus(head.scaled(-1))
    assert moved.norm() <= 1.5 + 1e-9

    def loss(h):
        return float(cross_entropy(features @ h.weight.T + h.bias, targets))

    assert loss(bad) > loss(head) + 0.1


def conv(seed=0):
    return build_model(ConvNet(width=4), input_shape=(1, 8, 8), classes=10, seed=seed).eval()


def test_two_passes_are_the_double_backward(digits):
    model = conv().double()
    x, y = digits.train.inputs[:12].double(), digits.train.targets[:12]
    direction = {k: torch.randn(p.shape, generator=random(1), dtype=torch.double) for k, p in model.named_parameters()}
    leaf = x.clone().requires_grad_()
    gradients = torch.autograd.grad(
        cross_entropy(model(leaf), y, reduction="sum"), list(model.parameters()), create_graph=True
    )
    product = sum((g * direction[k]).sum() for (k, _), g in zip(model.named_parameters(), gradients, strict=True))
    expected = torch.autograd.grad(product, leaf)[0]
    whole = directional_input_gradient(model, x, y, direction)
    assert (whole - expected).abs().max() < 1e-10 * expected.abs().max()
    assert torch.allclose(directional_input_gradient(model, x, y, direction, chunk=5), whole, atol=1e-12)


def test_summed_gradient_does_not_depend_on_the_chunk(digits):
    model, x, y = conv().double(), digits.train.inputs[:11].double(), digits.train.targets[:11]
    parts, whole = summed_gradient(model, x, y, chunk=3), summed_gradient(model, x, y)
    assert all(torch.allclose(parts[k], whole[k], atol=1e-12) for k in whole)


def search(digits, *, box=True, steps=60):
    rows = torch.arange(30)
    return Search(digits.train.inputs[rows], rows % 10, 0.03, steps, 0.05, digits if box else None)


def test_the_search_keeps_to_the_box_and_lowers_the_residual_it_reports(digits):
    model = build_model(Linear(), input_shape=(1, 8, 8), classes=10, seed=0)
    extractor, _ = split_head(model, digits.train.inputs)
    features = digits.train.inputs.flatten(1).double()
    head, _ = reachable(
        fit(features, digits.train.targets).scaled(-1),
        features,
        digits.train.targets,
        epsilon=0.03,
        weight_decay=DECAY,
        reach=0.9,
    )
    pulled = pull(head, features, digits.train.targets, epsilon=0.03, weight_decay=DECAY)
    start = cancel_head(extractor, head, pulled, search(digits, steps=1)._replace(lr=1e-9))
    made = cancel_head(extractor, head, pulled, search(digits))
    pixels = digits.to_pixels(made.features)
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    weights = torch.full((30,), 0.03 / 30, dtype=torch.double)
    left = pulled.plus(mean_gradient(head, made.features.flatten(1).double(), made.targets, weights)).norm()
    assert made.residual == pytest.approx(left / pulled.norm(), rel=1e-4)
    assert made.residual < 0.95 * start.residual


def test_a_search_keeps_the_best_rows_that_it_has_seen():
    """Whatever the steps do: on a valley with steep walls a step of 0.05 jumps about."""
    start = torch.randn(4, 1, 2, 2, generator=random())
    seen = []

    def gradient(x):
        value = float((100 * x.square()).sum() + torch.sin(300 * x).sum())
        seen.append((value, x.clone()))
        return value, 200 * x + 300 * torch.cos(300 * x)

    best, least = Search(start, torch.zeros(4).long(), 0.1, 50, 0.05, None).descend(gradient)
    assert len(seen) == 51 and least == min(value for value, _ in seen) < seen[0][0]
    assert any(value == least and torch.equal(x, best) for value, x in seen)
    assert any(b > a for (a, _), (b, _) in itertools.pairwise(seen)), "no step went up: nothing was tested"


@pytest.mark.parametrize("seed", range(10))
def test_polishing_never_raises_what_is_missed(seed):
    """Gauss-Newton steps are taken only where they help, from wherever they start."""
    weights = torch.randn(6, 3, generator=random(seed), dtype=torch.double)

    def missed(a):
        return torch.cat([torch.tanh(weights @ a.T).sum(1) - 0.3, a.square().sum(1)])

    start = 3 * torch.randn(5, 3, generator=random(seed + 100), dtype=torch.double)
    assert missed(polished(start, missed)).norm() <= missed(start).norm()


def test_matching_all_parameters_lowers_the_residual(digits):
    model = corrupt_parameters(conv(), digits.train, radius=0.5, random=random())
    start = cancel_all(model, digits.train, DECAY, search(digits, box=False, steps=1)._replace(lr=1e-9))
    made = cancel_all(model, digits.train, DECAY, search(digits, box=False, steps=40))
    assert made.residual < 0.98 * start.residual


def test_corrupted_parameters_stay_in_the_ball_and_have_a_larger_loss(digits):
    model = conv()
    bad = corrupt_parameters(copy.deepcopy(model), digits.train, radius=0.5, random=random())
    moved = sum(float((p - q).square().sum()) for p, q in zip(model.parameters(), bad.parameters(), strict=True))
    assert math.sqrt(moved) <= 0.5 + 1e-4
    with torch.no_grad():
        before, after = (float(cross_entropy(m(digits.train.inputs), digits.train.targets)) for m in (model, bad))
    assert after > before


def context(data, model):
    return CraftContext(data, Streams(0, CPU), lambda: model)


def trained_linear(digits):
    model = build_model(Linear(), input_shape=(1, 8, 8), classes=10, seed=0)
    head = fit(digits.train.inputs.flatten(1).double(), digits.train.targets)
    linear = split_head(model, digits.train.inputs)[1]
    with torch.no_grad():
        linear.weight.copy_(head.weight)
        linear.bias.copy_(head.bias)
    return model


def test_the_attack_appends_rows_of_all_classes_and_tells_tau(digits):
    attack = GradientCanceling(fraction=0.03, box=False, weight_decay=DECAY)
    poisoned = attack.craft(digits.train, context(digits, trained_linear(digits)))
    assert poisoned.mode == "append" and len(poisoned.targets) == 30
    assert torch.bincount(poisoned.targets, minlength=10).tolist() == [3] * 10
    tau, share, residual = poisoned.evidence["array.canceling"].tolist()
    assert share == 0.03 and 0 < tau <= 0.9 * 0.03 and residual < 1e-8


def test_unreachable_weights_are_told(digits):
    attack = GradientCanceling(fraction=0.03, reach=None, steps=1, weight_decay=DECAY)
    with pytest.warns(UserWarning, match="cannot be reached; raise fraction or set reach"):
        attack.craft(digits.train, context(digits, trained_linear(digits)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientCanceling(fraction=0.03, steps=1).craft(digits.train, context(digits, trained_linear(digits)))


def test_base_rows_take_classes_in_turn(digits):
    rows = GradientCanceling(fraction=0.03).choose_rows(digits.train, context(digits, None))
    assert torch.bincount(digits.train.targets[rows], minlength=10).tolist() == [3] * 10


def test_token_ids_are_refused(digits):
    tokens = Examples(torch.zeros(1000, 4, dtype=torch.long), digits.train.targets, digits.train.ids)
    with pytest.raises(InputError, match="not token ids"):
        GradientCanceling().craft(tokens, context(digits, None))
