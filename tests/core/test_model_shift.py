"""Hypothesis 1: which rows are removed, and how far the minimiser moves, against closed forms and refits."""

import pytest
import torch

from tests.core.convex_rows import rows
from unlearn_core.checks import InputError
from unlearn_core.hypotheses.convex import Softmax, Squared
from unlearn_core.hypotheses.model_shift import GROUPS, Corrupted, removal_orders, shifts

SHARES = (0.25, 0.5, 1.0)


def corrupted(flip=20, n=300, classes=4, seed=0):
    """Rows from number 10 on have wrong labels."""
    x, y = rows(n=n, classes=classes, seed=seed)
    poison = (torch.arange(n) >= 10) & (torch.arange(n) < 10 + flip)
    return Corrupted(x, torch.where(poison, (y + 1) % classes, y), poison, classes)


def moved(data, problem=None, group="poison", shares=SHARES, seed=0):
    problem = problem or Softmax(1e-2)
    order = removal_orders(data, torch.Generator().manual_seed(seed))[group]
    return list(shifts(problem, data, problem.fit(data.x, data.y, data.classes), order, shares))


def test_orders_take_the_right_rows():
    data = corrupted()
    orders = removal_orders(data, torch.Generator().manual_seed(0))
    assert tuple(orders) == GROUPS
    assert sorted(orders["poison"].tolist()) == list(range(10, 30))
    for group in ("random", "matched"):
        assert len(set(orders[group].tolist())) == 20
        assert not data.poison[orders[group]].any()
    assert torch.equal(data.y[orders["matched"]], data.y[orders["poison"]])
    assert not torch.equal(data.y[orders["random"]], data.y[orders["poison"]])


def test_shares_are_of_the_number_of_poisons_and_nested():
    assert [shift.rows for shift in moved(corrupted())] == [5, 10, 20]
    assert [shift.rows for shift in moved(corrupted(), shares=(0.001,))] == [1]


@pytest.mark.parametrize("group", GROUPS)
def test_distances_are_those_of_refits_from_scratch(group):
    data, problem = corrupted(), Softmax(1e-2)
    order = removal_orders(data, torch.Generator().manual_seed(0))[group]
    start = problem.fit(data.x, data.y, 4).theta
    for shift, count in zip(moved(data, group=group), (5, 10, 20), strict=True):
        kept = torch.ones(len(data.y)).bool()
        kept[order[:count]] = False
        difference = problem.fit(data.x[kept], data.y[kept], 4).theta - start
        assert shift.l1 == pytest.approx(float(difference.abs().sum()), rel=1e-6)
        assert shift.l2 == pytest.approx(float(difference.norm()), rel=1e-6)


def test_one_row_of_ridge_moves_as_the_closed_form_says():
    """θ₋ᵢ − θ with the regulariser of n − 1 rows, by Sherman and Morrison: no refit in the expected value."""
    data, decay = corrupted(), 0.05
    n = len(data.y)
    (shift,) = moved(data, Squared(decay), shares=(1e-9,))
    row = int(removal_orders(data, torch.Generator().manual_seed(0))["poison"][0])
    wanted = torch.nn.functional.one_hot(data.y, 4).double()
    eye = torch.eye(data.x.shape[1], dtype=torch.float64)
    at = torch.linalg.solve(data.x.T @ data.x + n * decay * eye, data.x.T @ wanted).T
    inverse = torch.linalg.inv(data.x.T @ data.x + (n - 1) * decay * eye)  # of all rows; one is taken out below
    pushed = inverse @ data.x[row]
    inverse = inverse + torch.outer(pushed, pushed) / (1 - data.x[row] @ pushed)
    without = (inverse @ (data.x.T @ wanted - torch.outer(data.x[row], wanted[row]))).T
    assert shift.l1 == pytest.approx(float((without - at).abs().sum()), rel=1e-8)


def test_wrong_labels_move_the_minimiser_further_than_clean_rows():
    found = {group: moved(corrupted(), group=group)[-1] for group in GROUPS}
    assert found["poison"].l1 > 2 * max(found["random"].l1, found["matched"].l1)
    assert found["poison"].residual > 1.5 * found["random"].residual
    assert found["poison"].loss > 2 * found["random"].loss


def test_poisons_that_are_ordinary_rows_do_not():
    """The comparison can fail: with correct labels the ratio is 1 on average."""
    ratios = []
    for seed in range(12):
        data = corrupted(flip=30, seed=seed)
        clean = data._replace(y=rows(n=300, classes=4, seed=seed)[1])
        ratios.append(moved(clean, shares=(1.0,), seed=seed)[0].l1 / moved(clean, None, "random", (1.0,), seed)[0].l1)
    assert torch.tensor(ratios).log().mean().exp() == pytest.approx(1, abs=0.15)


def test_too_many_poisons_of_a_class_are_refused():
    data = corrupted(flip=0)
    poison = data.y == 2
    poison[poison.nonzero()[:3]] = False
    with pytest.raises(InputError, match="class 2 has fewer clean rows"):
        removal_orders(data._replace(poison=poison), torch.Generator())
    with pytest.raises(InputError, match="poisons but 1 clean"):
        removal_orders(data._replace(poison=torch.arange(300) > 0), torch.Generator())
