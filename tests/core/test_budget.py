"""The budget engine on updates of known price, and the prices of a real network."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils import flop_counter

from tests.contracts.tiny import CPU, MODELS, RECIPE, SHAPE, examples, model, task
from unlearn_core.models import ResNet18, build_model
from unlearn_core.scenarios.scenario import Split, unlearn
from unlearn_core.seeding import Streams
from unlearn_core.training import budget
from unlearn_core.training.budget import Meter, climb, is_finite, run_to_end, sample_pass_flops
from unlearn_core.types import Update
from unlearn_core.unlearners import GA, GD, NGD, SCRUB, SSD, CFk, EUk, NegGradPlus

NET = nn.Linear(1, 1)


def spend(flops):
    """A matrix product of (1, k) and (k, 1) costs 2 k."""
    torch.mm(torch.ones(1, flops // 2), torch.ones(flops // 2, 1))


def updates(*costs, before=0, log=None):
    """Updates called after their cost; 'x:40' is of kind x and costs 40."""
    spend(before)
    for number, cost in enumerate(costs):
        kind, _, price = str(cost).rpartition(":")
        yield Update(kind, int(price))
        spend(int(price))
        if log is not None:
            log.append(number)


def ladder(stream, *budgets, net=NET, meter=None):
    rungs = climb(stream, net, meter or Meter(CPU), budgets)
    return [(rung.flops, rung.steps, rung.status) for rung in rungs]


def test_each_rung_is_filled_as_far_as_whole_updates_fit():
    assert ladder(updates(*[10] * 10), 25, 30, 59, 60) == [(20, 2, "ok"), (30, 3, "ok"), (50, 5, "ok"), (60, 6, "ok")]


def test_an_early_end_keeps_the_state_for_the_later_rungs():
    assert ladder(updates(10, 10), 10, 25, 100) == [(10, 1, "ok"), (20, 2, "finished"), (20, 2, "finished")]


def test_an_end_exactly_at_a_rung_is_an_end():
    assert ladder(updates(10, 10), 20, 30) == [(20, 2, "finished"), (20, 2, "finished")]


NOTHING = (0, 0, "unaffordable")


def test_a_budget_below_the_first_update_buys_nothing():
    assert ladder(updates(*[50] * 4), 10, 20, 60, 100) == [NOTHING, NOTHING, (50, 1, "ok"), (100, 2, "ok")]
    assert ladder(updates(50), 10) == [NOTHING]  # not `finished`: its only update was not made


def test_an_update_of_another_kind_counts_from_the_budget_that_pays_for_it():
    assert ladder(updates("a:10", "b:40", "a:10", "b:40"), 15, 59, 60) == [(10, 1, "ok"), (50, 2, "ok"), (60, 3, "ok")]
    assert ladder(updates("a:10", "b:40"), 15, 20) == [(10, 1, "ok")] * 2
    assert ladder(updates("a:10", "b:40"), 10) == [(10, 1, "ok")]  # nothing is left


def writing(net, *costs):
    """Each update writes its number into the weight, and into a statistic."""
    for number, cost in enumerate(costs, start=1):
        kind, _, price = str(cost).rpartition(":")
        yield Update(kind, int(price))
        spend(int(price))
        net.weight.data.fill_(number)
        net.running_mean.fill_(10 * number)


def test_the_model_is_what_was_paid_for():
    net = nn.BatchNorm1d(2)
    net.weight.data.fill_(0.0)
    parameter, shown = net.weight, []
    for rung in climb(writing(net, "a:10", "b:40", "a:10", "c:100"), net, Meter(CPU), [5, 15, 59, 60, 159, 160]):
        shown.append((rung.flops, net.weight[0].item(), net.running_mean[0].item(), rung.status))
    assert shown == [
        (0, 0.0, 0.0, "unaffordable"),
        (10, 1.0, 10.0, "ok"),
        (50, 2.0, 20.0, "ok"),
        (60, 3.0, 30.0, "ok"),
        (60, 3.0, 30.0, "ok"),
        (160, 4.0, 40.0, "finished"),
    ]
    assert net.weight is parameter, "whoever holds on to a parameter still does"


def test_what_a_method_does_before_its_first_update_is_shown_with_it():
    net = nn.Linear(1, 1)
    net.weight.data.fill_(0.0)

    def resetting():
        net.weight.data.fill_(1.0)
        yield Update("a", 1)
        spend(50)
        net.weight.data.fill_(2.0)

    shown = [net.weight.item() for _ in climb(resetting(), net, Meter(CPU), [10, 50])]
    assert shown == [0.0, 2.0]


def test_a_method_that_exchanges_parameters_is_an_error():
    net = nn.Linear(1, 1)

    def changing():
        yield Update("a", 1)
        spend(50)
        net.bias = None

    with pytest.raises(RuntimeError, match=r"which parameters the model has: \['bias'\]"):
        ladder(changing(), 10, net=net)


def test_no_update_is_done_before_it_is_paid_for():
    """The refused one is only announced."""
    log = []
    run = climb(updates(10, 10, 10, log=log), NET, Meter(CPU), [20, 30])
    next(run)
    assert log == [0, 1]
    next(run)
    assert log == [0, 1, 2]


def test_free_updates_are_made_even_when_nothing_is_left():
    assert ladder(updates(10, 0, 0), 10) == [(10, 3, "finished")]
    assert ladder(updates("a:0", "a:0", "b:10", "a:0"), 5, 20) == [(0, 2, "ok"), (10, 4, "finished")]


def test_what_a_method_computes_before_its_first_update_is_charged():
    assert ladder(updates(10, 10, before=30), 35, 50) == [NOTHING, (50, 2, "finished")]
    assert ladder(updates(10, before=30), 20, 40) == [NOTHING, (40, 1, "finished")]


def test_a_method_without_updates_is_finished():
    assert ladder(updates(), 10, 20) == [(0, 0, "finished")] * 2


def test_prices_are_counted_at_powers_of_two_of_each_kind(monkeypatch):
    opened = []
    original = flop_counter.FlopCounterMode
    monkeypatch.setattr(budget, "FlopCounterMode", lambda **k: opened.append(1) or original(**k))
    meter = Meter(CPU)
    assert ladder(updates(10, 20, 10, 10, 20, 10), math.inf, meter=meter) == [(80, 6, "finished")]
    assert len(opened) == 1 + 3 + 2  # the start; of the first kind the 1st, 2nd and 4th, of the other the 1st and 2nd
    assert meter.prices == {Update("", 10): 10, Update("", 20): 20}


class Queried(nn.Module):
    """Gives one of its layers a view of a parameter."""

    def __init__(self):
        super().__init__()
        self.query, self.inner = nn.Parameter(torch.ones(1, 3)), nn.Linear(3, 2)

    def forward(self, x):
        return x + self.inner(self.query.expand(len(x), -1))


def test_passes_without_gradients_are_counted_whatever_goes_into_a_layer():
    with budget.flop_counter() as counter, torch.no_grad():
        Queried()(torch.zeros(5, 2))
    assert counter.get_total_flops() == 2 * 5 * 3 * 2


def test_unlike_work_under_one_name_is_an_error():
    def cheap_first():
        for price in (10, 10_000):
            yield Update("a", 1)
            spend(price)

    with pytest.raises(RuntimeError, match="phase 'a', size 1 cost 10 FLOPs and 10000 FLOPs; announce"):
        ladder(cheap_first(), math.inf)


def test_a_method_that_works_before_it_announces_anything_is_charged():
    @dataclass
    class Eager:
        anytime = True

        def updates(self, given):
            spend(1000)
            return iter(())

    split, net = Split(examples(8), examples(4, seed=1)), model()
    (measured,) = unlearn(
        Eager(),
        net,
        split,
        recipe=RECIPE,
        rng=Streams(0, CPU),
        budgets=[math.inf],
        evaluator=lambda _: {},
    )
    assert measured.rung.flops == 1000


def test_decompositions_are_charged_by_their_size():
    def decompose():
        yield Update("eigenvectors", 0)
        torch.linalg.eigh(torch.eye(5))
        yield Update("orthogonal", 0)
        torch.linalg.qr(torch.ones(6, 3))
        yield Update("solve", 0)
        torch.linalg.solve(torch.eye(6), torch.ones(6, 2))

    meter = Meter(CPU)
    ladder(decompose(), math.inf, meter=meter)
    assert [meter.prices[Update(name, 0)] for name in ("eigenvectors", "orthogonal", "solve")] == [1125, 216, 288]


def test_an_update_is_told_what_was_spent_before_it():
    meter, told = Meter(CPU), []

    def asking():
        for _ in range(4):
            yield Update("a", 10)
            told.append(meter.flops)
            spend(10)

    run_to_end(asking(), NET, meter)
    assert told == [0, 10, 20, 30]


@pytest.mark.parametrize("where", ["parameter", "buffer"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_divergence_ends_the_ladder(where, value):
    net = nn.BatchNorm1d(2)

    def breaking():
        yield from updates(10, 10)
        yield Update("", 10)
        (net.weight.data if where == "parameter" else net.running_var)[0] = value
        spend(10)
        yield from updates(10)

    assert is_finite(net)
    statuses = [status for *_, status in ladder(breaking(), 10, 30, 40, 50, net=net)]
    assert statuses == ["ok", "diverged", "diverged", "diverged"]
    assert not is_finite(net)


def test_opposite_infinities_do_not_cancel():
    net = nn.Linear(2, 1)
    net.weight.data.copy_(torch.tensor([[math.inf, -math.inf]]))
    assert not is_finite(net)


def test_seconds_exclude_what_happens_between_rungs():
    seconds, between = [], [0.0]

    class Shifted(Meter):
        def clock(self):
            return super().clock() + sum(between)

    for rung in climb(updates(*[10] * 4), NET, Shifted(CPU), [10, 20, 40]):
        seconds.append(rung.seconds)
        between.append(1000.0)
    assert 0 < seconds[0] <= seconds[1] <= seconds[2] < 1000


@pytest.mark.parametrize("net", MODELS)
def test_a_sample_pass_is_the_training_price_of_a_row(net):
    """Measured on a batch in evaluation mode; independent of flags, modes and the batch."""
    data = Split(examples(6), examples(2))
    meter = Meter(CPU)
    run_to_end(GD(epochs=1, batch_size=6).updates(task(model(net), data)), model(net), meter)
    for size in (1, 6):
        assert sample_pass_flops(model(net), examples(size).inputs) == meter.flops / 6
    frozen = model(net).requires_grad_(False)
    assert sample_pass_flops(frozen, examples(2).inputs) == meter.flops / 6
    assert not any(p.requires_grad for p in frozen.parameters())


def test_a_sample_pass_of_the_linear_model_by_hand():
    inside, outside = math.prod(SHAPE), 4  # forward and weight gradient; no gradient of the input
    assert sample_pass_flops(model("linear"), examples(3).inputs) == 2 * 2 * inside * outside


ROWS, FORGET_ROWS, TRAIN_EPOCHS = 50_000, 750, 100
RETAIN_ROWS = ROWS - FORGET_ROWS


@pytest.fixture(scope="module")
def resnet():
    return build_model(ResNet18(), input_shape=(3, 32, 32), classes=10, seed=0)


@pytest.fixture(scope="module")
def sample_pass(resnet):
    return sample_pass_flops(resnet, torch.zeros(2, 3, 32, 32))


def price(method, resnet, phase):
    """FLOPs of one update on two rows (of each set)."""
    data = Split(*(examples(2, seed=s, shape=(3, 32, 32), classes=10) for s in (0, 1)))
    meter = Meter(CPU)
    run_to_end(method.updates(task(copy.deepcopy(resnet), data)), resnet, meter)
    (cost,) = {cost for update, cost in meter.prices.items() if update.phase == phase}
    return cost


def test_a_sample_pass_of_resnet18(sample_pass):
    """0.556 billion multiplications forward, twice that backward, two FLOPs each."""
    assert sample_pass == pytest.approx(3 * 2 * 0.556e9, rel=0.02)


# A method, its phase, how many two-row updates of it a whole run takes, and the share of a retraining that this is.
ONE, TWO = dict(epochs=1, batch_size=2), dict(epochs=1, batch_size=2, forget_batch_size=2)
STEPS_OF_128 = math.ceil(RETAIN_ROWS / 128)
CHARGES = {
    "gd, 10 epochs": (GD(**ONE), {"retain": 10 * RETAIN_ROWS / 2}, 10.00),
    "ngd, 10 epochs": (NGD(**ONE), {"retain": 10 * RETAIN_ROWS / 2}, 10.00),
    "ga, 10 forget epochs": (GA(**ONE), {"forget": 10 * FORGET_ROWS / 2}, 0.1523),
    "cfk, head only, 10 epochs": (CFk(**ONE, k=1), {"retain": 10 * RETAIN_ROWS / 2}, 3.33),
    "euk, head only, 10 epochs": (EUk(**ONE, k=1), {"train": 10 * RETAIN_ROWS / 2}, 3.33),
    # 5 (n_r + 128 steps) rows in pairs; the last batch is smaller on the retain side
    "neggrad+, 5 epochs": (NegGradPlus(**TWO), {"retain-forget": 5 * (RETAIN_ROWS + 128 * STEPS_OF_128) / 4}, 10.00),
    "scrub, 3 epochs, 2 max": (
        SCRUB(**TWO, max_epochs=1),
        {"min": 3 * RETAIN_ROWS / 2, "max": 2 * FORGET_ROWS / 2},
        4.04,
    ),
    # The sheet's 1.03 % reads forget rows twice; this one reads each of the n rows once.
    "ssd": (SSD(chunk=2), {"fisher": ROWS / 2}, 100 * ROWS / (TRAIN_EPOCHS * RETAIN_ROWS)),
}


@pytest.mark.slow
@pytest.mark.parametrize("run", CHARGES)
def test_charges_of_resnet18_runs(run, resnet, sample_pass):
    method, counts, percent = CHARGES[run]
    flops = sum(count * price(method, resnet, phase) for phase, count in counts.items())
    retraining = TRAIN_EPOCHS * RETAIN_ROWS * sample_pass
    assert 100 * flops / retraining == pytest.approx(percent, rel=0.02)


def test_charge_of_the_last_blocks_of_resnet18(resnet, sample_pass):
    """1 + 2 φ units a row, φ the tuned share of a forward pass; less the input gradient of the first tuned layer."""
    layer = 512 * 512 * 9 * 16  # multiplications of each of the last block's two convolutions
    share = (2 * layer + 512 * 10) / 0.556e9
    expected = (1 + 2 * share - layer / 0.556e9) / 3
    assert price(CFk(**ONE, k=2), resnet, "retain") / (2 * sample_pass) == pytest.approx(expected, rel=0.02)


def slow(steps, *, plain, counting, monkeypatch, kinds=("a",)):
    """Updates that take `plain` seconds, and `counting` more under the counter, by a clock of their own."""
    now = [0.0]
    monkeypatch.setattr(Meter, "clock", lambda self: now[0])
    monkeypatch.setattr(budget, "flop_counter", lambda: Ticking(now, counting))

    def made():
        for step in range(steps):
            yield Update(kinds[step % len(kinds)], 10)
            now[0] += plain

    return made()


class Ticking:
    """A counter that takes time, and finds 10 FLOPs."""

    def __init__(self, now, seconds):
        self.now, self.seconds = now, seconds

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.now[0] += self.seconds

    def get_total_flops(self):
        return 10


@pytest.mark.parametrize("kinds", [("a",), ("a", "b")])
def test_counting_is_outside_the_clock(kinds, monkeypatch):
    meter = Meter(CPU)
    rung = run_to_end(slow(20, plain=0.1, counting=1.0, monkeypatch=monkeypatch, kinds=kinds), NET, meter)
    assert (rung.steps, rung.flops) == (20, 10 + 200)  # what comes before the first update is counted as well
    assert rung.seconds == pytest.approx(20 * 0.1 + 1.0)  # the start, which has no other to be compared with


def test_what_was_never_made_without_the_counter_is_told_as_it_was(monkeypatch):
    meter = Meter(CPU)
    rung = run_to_end(slow(2, plain=0.1, counting=1.0, monkeypatch=monkeypatch), NET, meter)
    assert rung.seconds == pytest.approx(2 * 1.1 + 1.0)


def test_seconds_never_fall(monkeypatch):
    updates = slow(40, plain=0.1, counting=1.0, monkeypatch=monkeypatch)
    seconds = [rung.seconds for rung in climb(updates, NET, Meter(CPU), [20, 30, 40, 60, 100, 200, 400])]
    assert seconds == sorted(seconds)
