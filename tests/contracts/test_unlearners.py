"""What every registered unlearner promises. One row per method in each table; a missing row is a KeyError."""

import copy
import math
import pickle
import random
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.methods import (
    TINY,
    WITH_BATCH_NORM_ONLY,
    build,
    every_method,
    every_model,
    full_cost,
    models_for,
    some_models,
)
from tests.contracts.tiny import (
    CPU,
    DATA,
    FORGET,
    RECIPE,
    RETAIN,
    data_for,
    examples,
    flops_of_steps,
    model,
    run,
    same_parameters,
    same_state,
    task,
    weights,
)
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.evaluation import Evaluator
from unlearn_core.scenarios.scenario import unlearn
from unlearn_core.seeding import Streams
from unlearn_core.space import Choice, Float, Int
from unlearn_core.training.budget import Meter, climb
from unlearn_core.types import Probe

IDENTITY = {  # settings with which a method changes no parameter, None where there are none
    "gd": dict(lr=0.0),
    "ngd": dict(lr=0.0, radius=None),
    "ga": dict(lr=0.0),
    "neggrad_plus": dict(lr=0.0),
    "cfk": dict(lr=0.0),
    "euk": None,
    "scrub": dict(lr=0.0),
    "ssd": dict(alpha=1e9),
    "l1_sparse": dict(lr=0.0, step="prox"),
    "random_labels": dict(lr=0.0),
    "bad_teacher": dict(lr=0.0),
    "salun": dict(lr=0.0),
    "npo": dict(lr=0.0),
    "fisher_forgetting": dict(alpha=0.0),
    "influence": dict(alpha=0.0),
    "bn_refresh": {},
    "ct": None,
    "msg": dict(lr=0.0, reset_share=0.0),
    "cuts": dict(coefficient=0.0),
    "lfssd": dict(alpha=1e9),
    "potion": dict(rho=1.0, first=1e-9),
    "rem": dict(lr=0.0, npo_lr=0.0),
    "scrub_r": dict(lr=0.0),
    "unsc": dict(lr=0.0),
    "retrain": None,
    "retrain_at_budget": None,
}
ENOUGH = 1e9  # FLOPs; more than any run here needs


@pytest.fixture(autouse=True)
def skip_refused_models(request):
    chosen = getattr(request.node, "callspec", None)
    if chosen and chosen.params.get("net", "convnet") not in models_for(chosen.params["name"]):
        pytest.skip("the method refuses this model")


@every_method
@every_model
def test_contract(name, net):
    method = pickle.loads(pickle.dumps(build(name)))  # workers receive it pickled
    assert method == build(name)
    corrupted, budget = model(net), 2 * full_cost(name, model(net))  # another seed may need more than this one
    before, data, given = copy.deepcopy(corrupted), copy.deepcopy(data_for(corrupted)), data_for(corrupted)
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, again, other = (run(method, corrupted, data, seed=s, budgets=[budget]) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), torch_state), "torch's global random state was used"
    assert np.array_equal(np.random.get_state()[1], numpy_state) and random.getstate() == python_state
    assert same_state(corrupted, before), "the corrupted model was changed"
    for left, kept in zip((*vars(data.retain).values(), *vars(data.forget).values()),
                          (*vars(given.retain).values(), *vars(given.forget).values()), strict=True):  # fmt: skip
        assert torch.equal(left, kept), "the data was changed"
    assert same_state(first.final, again.final), "same seed, different result"
    assert not same_state(first.final, other.final), "the seed has no effect"
    if name not in WITH_BATCH_NORM_ONLY:
        assert not same_parameters(first.final, before), "no parameter moved"
    assert torch.isfinite(weights(first.final)).all()
    assert first.rungs[0].status in ("ok", "finished")


@pytest.mark.slow
@every_method
@every_model
def test_charges_are_the_flops_of_an_unmetered_run(name, net):
    method = build(name)
    rung = run(method, model(net), budgets=[full_cost(name, model(net))]).rungs[0]
    assert rung.steps > 1
    assert rung.flops == flops_of_steps(method, model(net), rung.steps)


@pytest.mark.slow
@every_method
@some_models
def test_a_ladder_ends_where_a_direct_run_ends(name, net):
    budgets = [share * full_cost(name, model(net)) for share in (0.2, 0.5, 0.8)]
    ladder, direct = run(build(name), model(net), budgets=budgets), run(build(name), model(net), budgets=budgets[-1:])
    assert same_state(ladder.final, direct.final)
    assert ladder.rungs[-1]._replace(seconds=0) == direct.rungs[-1]._replace(seconds=0)
    assert [rung.budget for rung in ladder.rungs] == budgets


@pytest.mark.slow
@every_method
def test_no_budget_is_overspent(name):
    given = "mlp" if "mlp" in models_for(name) else "convnet"
    cost = full_cost(name, model(given))
    for share in (1e-9, *np.linspace(0.01, 1.1, 23)):
        meter, net, seen = Meter(CPU), model(given), []

        def watched(net=net, seen=seen, meter=meter):
            for update in build(name).updates(task(net, progress=lambda: 0.5)):
                seen.append(update)
                yield update

        (rung,) = climb(watched(), net, meter, [share * cost])
        assert rung.flops <= rung.budget * (1 + 1e-9)
        if rung.status == "ok":
            refused = seen[rung.steps]
            assert rung.flops + meter.prices.get(refused, rung.budget) > rung.budget, "money was left over"
        elif rung.status == "unaffordable":
            assert meter.flops > rung.budget
            assert same_state(net, model(given)), "nothing of the method is left in the model"


@pytest.mark.slow
@every_method
@some_models
def test_flags_and_modes_of_the_given_model_do_not_matter(name, net):
    budget = full_cost(name, model(net))
    odd = model(net).eval().requires_grad_(False)
    next(odd.modules()).training = True
    for i, child in enumerate(odd.children()):
        child.train(i % 2 == 0)
    plain = run(build(name), model(net).train(), budgets=[budget])
    assert same_state(run(build(name), odd, budgets=[budget]).final, plain.final)
    assert same_state(run(build(name), model(net).eval(), budgets=[budget]).final, plain.final)


@pytest.mark.slow
@every_method
def test_measuring_on_the_way_changes_nothing(name):
    """An evaluation switches modes and makes gradients of its own."""
    budgets = [share * full_cost(name, model("convnet")) for share in (0.3, 0.6, 1.0)]
    ends = []
    for evaluator in (evaluate_all(), lambda net: {}):
        last = {}

        def keep(net, evaluator=evaluator, last=last):
            metrics = evaluator(net)
            last["model"] = copy.deepcopy(net)
            return metrics

        measure(build(name), model("convnet"), budgets, keep)
        ends.append(last["model"])
    assert same_state(*ends)


@pytest.mark.slow
@every_method
def test_identity_settings_leave_every_parameter(name):
    if IDENTITY[name] is None:
        pytest.skip("always changes the model")
    for net in models_for(name):
        assert same_parameters(run(build(name, **IDENTITY[name]), model(net)).final, model(net))


@every_method
def test_defaults_lie_in_the_search_space(name):
    method, space = UNLEARNERS.get(name)(), UNLEARNERS.get(name).search_space()
    assert space.keys() <= {f.name for f in fields(method)}
    for setting, allowed in space.items():
        default = getattr(method, setting)
        if isinstance(allowed, Choice):
            assert default in allowed.options, setting
        else:
            assert isinstance(allowed, Float | Int)
            assert allowed.low <= default <= allowed.high, setting


@every_method
def test_every_corner_of_the_search_space_is_accepted(name):
    space = UNLEARNERS.get(name).search_space()
    for setting, allowed in space.items():
        ends = allowed.options if isinstance(allowed, Choice) else (allowed.low, allowed.high)
        for value in ends:
            assert getattr(UNLEARNERS.get(name)(**{setting: value}), setting) == value


def evaluate_all():
    """All metrics of a Gaussian attack but the distances, which need references of the model's shape."""
    held_out, noise = examples(12, seed=3), examples(4 * 9, seed=4).inputs.view(4, 9, 3, 8, 8)
    evidence = {"base_inputs": FORGET.inputs, "noise": noise[0], "epsilon": torch.tensor(1.0)}
    return Evaluator(held_out, RETAIN, FORGET, {"unseen": Probe(held_out)}, evidence, noise[1:])


def measure(method, net, budgets, evaluator, recipe=RECIPE):
    return unlearn(method, net, DATA, recipe=recipe, rng=Streams(0, CPU), budgets=budgets, evaluator=evaluator)


WITHOUT_STEP_SIZE = {"ssd", "lfssd", "potion", "fisher_forgetting", "influence", "bn_refresh"}


@every_method
@pytest.mark.parametrize("net", ["linear", "mlp", pytest.param("convnet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lr", [1e6, 1e25])
def test_divergence_is_a_status_not_an_exception(name, net, lr):
    if name in WITHOUT_STEP_SIZE:
        pytest.skip("makes no gradient steps")
    changes = {
        k: v for k, v in dict(lr=lr, epochs=40, clip=None, loss_cap=None, radius=None).items() if k in TINY[name]
    }
    recipe = replace(RECIPE, lr=lr, epochs=40)
    method, cost = build(name, **changes), full_cost("retrain", model(net))
    measured = measure(method, model(net), [share * cost for share in (0.1, 0.5, 3)], evaluate_all(), recipe)
    statuses = [m.rung.status for m in measured]
    assert len(statuses) == 3
    for m in measured:
        assert (m.metrics == {}) == (m.rung.status == "diverged")
        assert all(math.isfinite(v) for k, v in m.metrics.items() if not k.startswith(("gaussian", "membership_roc")))
    if lr > 1e20 and name not in ("ga", "scrub", "unsc"):  # bounded gradients, no decay: stays finite for long
        assert statuses[-1] == "diverged"


@every_method
def test_non_finite_weights_end_the_ladder(name):
    if name in ("retrain", "retrain_at_budget"):
        pytest.skip("forgets the given weights")
    net = model("mlp" if "mlp" in models_for(name) else "convnet")
    with torch.no_grad():
        broken = list(net.parameters())[-1 if name == "msg" else 0]  # msg draws kernels anew
        broken.view(-1)[0] = math.nan
    ladder = run(build(name), net, budgets=[ENOUGH, 2 * ENOUGH, 3 * ENOUGH])
    assert [rung.status for rung in ladder.rungs] == ["diverged"] * 3
    assert ladder.models == []
