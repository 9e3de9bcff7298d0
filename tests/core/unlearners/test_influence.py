"""Influence unlearning: the inverse product against dense solves, the step by hand, and its aim."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.contracts.tiny import CPU, DATA, FORGET, MODELS, RETAIN, model, run, same_state, weights
from unlearn_core.scenarios.scenario import Split
from unlearn_core.seeding import Streams
from unlearn_core.types import Examples
from unlearn_core.unlearners import GD, Influence, influence
from unlearn_core.unlearners.influence import damped_inverse_product


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(rows, vector, damping, sizes):
    """damped_inverse_product with both cut into parts of these sizes."""
    return torch.cat(damped_inverse_product(list(rows.split(sizes, dim=1)), list(vector.split(sizes)), damping))


@pytest.mark.parametrize("columns", [3, 1 << 16])
@pytest.mark.parametrize("m, damping", [(1, 1.0), (5, 0.1), (5, 1e-4), (40, 1.0), (40, 10.0)])
def test_inverse_product_is_a_dense_solve(monkeypatch, columns, m, damping):
    monkeypatch.setattr(influence, "COLUMNS", columns)
    rows, vector = gaussian(m, 20), gaussian(20, seed=1)
    dense = torch.linalg.solve(rows.T @ rows / m + damping * torch.eye(20, dtype=torch.float64), vector)
    torch.testing.assert_close(product(rows, vector, damping, [7, 1, 12]), dense, rtol=1e-9, atol=1e-9 / damping)


def published_recursion(rows, vector):
    """What the code of the "IU" baseline computes: one vector in the place of one per row."""
    count, first, result = len(rows), rows[0].clone(), vector.clone()
    for row in rows[1:]:
        overlap = first @ row
        result = result - (result @ row) / (count + overlap) * first
        first = first - overlap / (count + overlap) * first
    return result


def test_the_published_recursion_is_not_the_inverse():
    """With damping 1 and independent gradients it is nearly as wrong as leaving the vector as it is."""
    rows, vector = 3 * gaussian(100, 60), gaussian(60, seed=1)
    exact = torch.linalg.solve(rows.T @ rows / 100 + torch.eye(60, dtype=torch.float64), vector)

    def error(found):
        return ((found - exact).norm() / exact.norm()).item()

    assert error(product(rows, vector, 1.0, [60])) < 1e-12
    assert error(published_recursion(rows, vector)) > 0.5
    assert error(published_recursion(rows, vector)) > 0.5 * error(vector)


def test_single_precision_does_not_spoil_small_damping():
    rows, vector = gaussian(30, 500).float(), gaussian(500, seed=1).float()
    dense = torch.linalg.solve(
        rows.double().T @ rows.double() / 30 + 1e-4 * torch.eye(500, dtype=torch.float64), vector.double()
    )
    found = product(rows, vector, 1e-4, [500])
    assert found.dtype == torch.float32
    assert (found - dense).norm() < 1e-6 * dense.norm()


def test_least_squares_lands_on_the_retrained_solution():
    """Rows of X as gradients make F the exact Hessian X_rᵀX_r/n_r; at the optimum of all rows, θ_R = θ0 + H⁻¹ v."""
    x, y = gaussian(60, 8), gaussian(60, seed=1)
    theta, retrained = (torch.linalg.lstsq(a, b[:, None]).solution[:, 0] for a, b in ((x, y), (x[12:], y[12:])))
    gradients = (x @ theta - y)[:, None] * x
    v = 12 / 60 * (gradients[:12].mean(0) - gradients[12:].mean(0))
    torch.testing.assert_close(v, gradients[:12].sum(0) / 48)  # at a stationary point of all rows
    step = product(x[12:], v, 1e-9, [3, 5])
    torch.testing.assert_close(theta + step, retrained, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("rows_of_curvature, share", [(41, 1.0), (9, 1.0), (9, 0.5), (500, 0.1)])
def test_the_step_by_hand(net, rows_of_curvature, share):
    """Single gradients by a loop, and a dense solve in the span of all of them."""
    by_hand = model(net).eval()
    parameters = list(by_hand.parameters())

    def gradients(part):
        losses = functional.cross_entropy(by_hand(part.inputs), part.targets, reduction="none")
        each = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses)
        return torch.stack([torch.cat([g.flatten() for g in one]).double() for one in each])

    order = torch.randperm(41, generator=Streams(0, CPU)("sample"))
    used = order[: max(rows_of_curvature, round(share * 41))]
    retain, forget = gradients(RETAIN.rows(used)), gradients(FORGET)
    v = 9 / 50 * (forget.mean(0) - retain.mean(0))
    basis = torch.linalg.qr(torch.cat([retain, forget]).T)[0]
    inside, small = retain[:rows_of_curvature] @ basis, basis.T @ v
    m = len(inside)
    solved = torch.linalg.solve(inside.T @ inside / m + 0.1 * torch.eye(len(small), dtype=v.dtype), small)
    expected = weights(by_hand) + 0.7 * (basis @ solved)
    method = Influence(alpha=0.7, damping=0.1, curvature_rows=rows_of_curvature, retain_share=share, chunk=6)
    end = run(method, model(net)).final
    torch.testing.assert_close(weights(end).double(), expected, rtol=1e-3, atol=1e-5)
    assert (expected - weights(by_hand)).norm() > 1e-2


class Logistic(nn.Module):
    """Two classes, three weights, double precision."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ZeroPad1d((0, 1))).double()

    def forward(self, x):
        return self.head(x)


def fitted(rows):
    net = Logistic()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(rows.inputs), rows.targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    return net


def logistic_data(clean=2000, flipped=100):
    """Rows from a logistic model; labels of the forget rows are the other way round."""
    inputs = gaussian(clean + flipped, 3)
    chance = torch.sigmoid(inputs @ torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64))
    uniform = torch.rand(len(inputs), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = (uniform >= chance).long()
    targets[clean:] = (chance[clean:] > 0.5).long()
    rows = Examples(inputs, targets, torch.arange(len(inputs)))
    return Split(rows.rows(rows.ids < clean), rows.rows(rows.ids >= clean)), rows


def test_logistic_regression_comes_close_to_retraining():
    data, everything = logistic_data()
    start, retrained = fitted(everything), fitted(data.retain)
    end = run(Influence(damping=1e-6, curvature_rows=2000), start, data).final
    before, after = ((weights(net) - weights(retrained)).norm().item() for net in (start, end))
    assert after < 0.2 * before


def test_at_an_optimum_the_direction_is_the_forget_gradient():
    """∇L_D = 0 makes v = Σ_f ∇ℓ / n_r; with much damping the step is v / λ."""
    data, everything = logistic_data()
    start = fitted(everything)
    loss = functional.cross_entropy(start(data.forget.inputs), data.forget.targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, list(start.parameters()))
    end = run(Influence(damping=1e6, curvature_rows=50), start, data).final
    moved = (weights(end) - weights(start)) * 1e6
    torch.testing.assert_close(moved, gradient.flatten() / len(data.retain), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("chunk", [2, 5, 1000])
def test_the_chunk_is_only_a_matter_of_memory(chunk):
    ends = [run(Influence(curvature_rows=9, chunk=c), model("convnet")).final for c in (chunk, 9)]
    torch.testing.assert_close(*map(weights, ends), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("share, rows", [(1.0, 41), (0.5, 20)])
def test_cost_is_one_pass_over_the_rows_and_the_products(share, rows):
    """G Gᵀ, G v and Gᵀ c: 2 m² P + 4 m P; and a system of m equations: 2/3 m³ + 2 m²."""
    row = run(GD(epochs=1, batch_size=10)).rungs[0].flops / len(RETAIN)
    m, size = 8, weights(model()).numel()
    spent = run(Influence(curvature_rows=m, retain_share=share, chunk=10)).rungs[0].flops
    assert spent == (rows + 9) * row + 2 * m * m * size + 4 * m * size + 2 * m**3 // 3 + 2 * m * m


def test_a_budget_that_does_not_reach_the_end_changes_nothing():
    method = Influence(curvature_rows=9, chunk=5)
    full = run(method).rungs[0].flops
    ladder = run(method, budgets=[0.5 * full, full, 2 * full])
    assert same_state(ladder.models[0], model())
    assert not same_state(ladder.models[1], model())
    assert [rung.status for rung in ladder.rungs] == ["ok", "finished", "finished"]


def test_it_raises_the_loss_of_the_forget_set_only():
    trained = run(GD(lr=0.1, epochs=20), data=Split(together(), FORGET)).final
    end = run(Influence(alpha=1.0, damping=1.0), trained, DATA).final

    def loss(net, rows):
        return functional.cross_entropy(net(rows.inputs), rows.targets).item()

    assert loss(end, FORGET) > loss(trained, FORGET)
    assert loss(end, RETAIN) < 1.01 * loss(trained, RETAIN)


def together():
    parts = zip(vars(RETAIN).values(), vars(FORGET).values(), strict=True)
    return Examples(*(torch.cat(pair) for pair in parts))
