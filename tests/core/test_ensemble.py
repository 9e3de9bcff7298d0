"""What an ensemble is made of, and what is read off it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.contracts.tiny import CPU, examples, model
from unlearn_core.metrics import columns
from unlearn_core.scenarios.ensemble import (
    Outputs,
    compare,
    halve,
    in_half,
    look,
    margins,
    mean_rung,
    run_member,
    shadow_arrays,
    without,
)
from unlearn_core.scenarios.evaluation import NotFiniteError
from unlearn_core.scenarios.scenario import Measured, clean_rows, discovery_order, poison_rows, split_poisoned
from unlearn_core.seeding import Streams, derive
from unlearn_core.training.budget import Rung
from unlearn_core.types import Examples, Poisoned

TRAIN = Examples(examples(40).inputs, examples(40).targets, torch.arange(40) + 500)
MODES = pytest.mark.parametrize("mode", ["replace", "append"])
RATES = [1 / 13, 0.25, 0.5, 0.8, 1.0]


def poisons(mode, count=13):
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:count]
    return Poisoned(rows, TRAIN.inputs[rows] + 100, torch.full((count,), 3), mode=mode)


def streams(*labels, seed=4):
    return Streams(derive(seed, *labels), CPU)


def split(mode, rate):
    return split_poisoned(poisons(mode), TRAIN, discovery_rate=rate, rng=streams("discovery"))


# Margins


def test_margins_are_log_odds():
    logits, targets = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3, torch.arange(50) % 4
    p = logits.double().softmax(dim=1)[torch.arange(50), targets]
    assert torch.allclose(margins(logits, targets), torch.log(p / (1 - p)), atol=1e-12)


def test_margins_keep_their_digits_where_probabilities_do_not():
    found = margins(torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]]), torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([200 - np.log(2), -200])


def evaluator(**sets):
    return SimpleNamespace(sets=dict.fromkeys(("forget", "retain", "test"), TRAIN) | sets)


def test_a_look_at_a_model():
    net, few = model(), TRAIN.rows(torch.arange(7))
    seen = look(net, evaluator(forget=few))
    assert [values.shape for values in seen[:3]] == [(7,), (40,), (40,)]
    logits = net.eval()(TRAIN.inputs)
    assert seen.test_margins == pytest.approx(margins(logits, TRAIN.targets).numpy(), abs=1e-5)
    assert seen.retain_accuracies == pytest.approx((logits.argmax(dim=1) == TRAIN.targets).double().mean().item())


def test_a_model_that_overflows_has_diverged():
    net = model("linear")
    with torch.no_grad():
        next(net.parameters()).fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="forget_logits"):
        look(net, evaluator())


# Halves


@MODES
@pytest.mark.parametrize("rate", RATES)
def test_the_order_of_discovery_is_that_of_the_split(mode, rate):
    order, ids = discovery_order(poisons(mode), streams("discovery")), poison_rows(poisons(mode), TRAIN).ids
    found = split(mode, rate).forget.ids
    assert sorted(ids[order[: len(found)]].tolist()) == sorted(found.tolist())


@MODES
def test_each_poison_is_in_one_shadow_of_every_pair(mode):
    for pair in range(20):
        first, second = (in_half(poisons(mode), 2 * pair + k, streams) for k in (0, 1))
        assert torch.equal(first, ~second)
        assert abs(int(first.sum()) - int(second.sum())) == 1  # of 13


@MODES
@pytest.mark.parametrize("rate", RATES)
def test_halves_share_what_is_discovered_evenly(mode, rate):
    ids, found = poison_rows(poisons(mode), TRAIN).ids, split(mode, rate).forget.ids
    for number in range(12):
        mine = torch.isin(ids[in_half(poisons(mode), number, streams)], found)
        assert abs(2 * int(mine.sum()) - len(found)) <= 1


def test_halves_are_drawn_anew_for_every_pair_and_seed():
    halves = torch.stack([in_half(poisons("replace"), 2 * pair, streams) for pair in range(400)]).double()
    assert (halves.mean(dim=0) - 0.5).abs().max() < 4 * 0.5 / 400**0.5
    together = (halves.T @ halves / 400).fill_diagonal_(0.25)
    partners = discovery_order(poisons("replace"), streams("discovery"))[:12].view(6, 2)
    for a, b in partners.tolist():
        assert together[a, b] == 0, "partners are never in the same half"
        together[a, b] = together[b, a] = 0.25
    assert (together - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 400) ** 0.5, "all others are independent"
    other = in_half(poisons("replace"), 0, lambda *labels: streams(*labels, seed=5))
    assert not torch.equal(other, in_half(poisons("replace"), 0, streams))


@MODES
def test_a_shadow_has_the_oracles_rows_and_its_half(mode):
    """What it lacks is neither poisoned nor clean: a `replace` attack's overwritten rows do not come back."""
    half = in_half(poisons(mode), 3, streams)
    ids = poison_rows(poisons(mode), TRAIN).ids
    shadow = without(poisons(mode).apply(TRAIN)[0], ids[~half])
    clean = clean_rows(poisons(mode), TRAIN)
    assert sorted(shadow.ids.tolist()) == sorted(clean.ids.tolist() + ids[half].tolist())
    poisoned = shadow.rows(shadow.inputs.flatten(1).mean(dim=1) > 50)
    assert sorted(poisoned.ids.tolist()) == sorted(ids[half].tolist())
    assert torch.equal(without(shadow, ids[half]).inputs, clean.inputs)


@MODES
@pytest.mark.parametrize("rate", RATES)
def test_a_shadow_forgets_what_is_discovered_of_its_half(mode, rate):
    half, whole = in_half(poisons(mode), 3, streams), split(mode, rate)
    ids = poison_rows(poisons(mode), TRAIN).ids
    part = halve(whole, ids[~half])
    assert set(part.forget.ids.tolist()) == set(whole.forget.ids.tolist()) & set(ids[half].tolist())
    clean = clean_rows(poisons(mode), TRAIN).ids
    undiscovered = set(ids[half].tolist()) - set(whole.forget.ids.tolist())
    assert set(part.retain.ids.tolist()) == set(clean.tolist()) | undiscovered


# Arrays


def test_shadows_are_sorted_into_the_two_worlds():
    rng = np.random.default_rng(0)
    scores, first = rng.normal(0, 1, (8, 5)), rng.random((4, 5)) < 0.5
    halves = [half for pair in first for half in (pair, ~pair)]
    arrays = shadow_arrays(list(scores), halves)
    for pair in range(4):
        for z in range(5):
            seen, unseen = (k for want in (True, False) for k in (2 * pair, 2 * pair + 1) if halves[k][z] == want)
            assert arrays["ulira_seen_scores"][pair, z] == scores[seen, z]
            assert arrays["ulira_unseen_scores"][pair, z] == scores[unseen, z]


def outputs(count, *, mean=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [Outputs(*(rng.normal(mean, 1, rows) for rows in (6, 30, 30)), 0.9, 0.8) for _ in range(count)]


def test_a_comparison_has_all_ensemble_columns_and_no_others():
    ensemble = {name for name in columns() if name.startswith(("klom_", "neurips_", "ulira_"))}
    scores = {"ulira_seen_scores": np.zeros((4, 6)), "ulira_unseen_scores": np.zeros((4, 6))}
    assert compare(outputs(8), outputs(16, seed=1), scores).keys() == ensemble
    without_shadows = compare(outputs(8), outputs(16, seed=1), {})
    assert without_shadows.keys() == {name for name in ensemble if not name.startswith("ulira_")}


def test_even_oracles_are_compared_with_and_odd_ones_are_the_floor():
    oracles = [one for pair in zip(outputs(8), outputs(8, mean=0.5, seed=1), strict=True) for one in pair]
    near, far = compare(outputs(8), oracles, {}), compare(outputs(8, mean=0.5, seed=1), oracles, {})
    assert near["klom_test"] == 0 < near["klom_test_floor"]
    assert far["klom_test_excess"] == 0
    assert far["neurips_score_normalised"] == 1


# Runs


def rung(budget, status="ok", flops=10):
    return Rung(budget, flops, 2, 1.0, status)


def test_outputs_stay_with_their_rungs_when_one_of_them_diverged():
    """A method that runs once per budget can diverge at one and not at the next."""
    seen = iter(outputs(2))
    first, second = outputs(2)

    def climb(*, evaluator):
        measured = []
        for budget, status in ((1.0, "ok"), (2.0, "diverged"), (3.0, "finished")):
            if status != "diverged":
                evaluator(None)
            measured.append(Measured(rung(budget, status), {}, None))
        return measured

    run = run_member(climb, lambda _: next(seen))
    assert [r.status for r in run.rungs] == ["ok", "diverged", "finished"]
    assert run.outputs[1] is None
    assert np.array_equal(run.outputs[0].test_margins, first.test_margins)
    assert np.array_equal(run.outputs[2].test_margins, second.test_margins)


def test_costs_are_means_over_members():
    mean = mean_rung([rung(5.0, flops=10), rung(5.0, "finished", flops=20)], diverged=False)
    assert mean == Rung(5.0, 15, 2, 1.0, "ok")
    assert mean_rung([rung(5.0, "finished")] * 2, diverged=False).status == "finished"
    assert mean_rung([rung(5.0, "finished")] * 2, diverged=True).status == "diverged"
