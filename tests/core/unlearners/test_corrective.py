"""What label-free SSD, Potion and REM share, and that they heal poisons on a real problem of which half are known."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.tiny import DATA, SHAPE, flops_of_steps, model, run, same_parameters, same_state, task
from tests.core.unlearners.corrupted import corrupted
from unlearn_core.models import Gpt2, ResNet18, build_model
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Examples
from unlearn_core.unlearners import LFSSD, REM, Potion

METHODS = {
    "lfssd": LFSSD(alpha=1.0, ratio=0.5, chunk=8),
    "potion": Potion(rho=0.3, growth=1.5, chunk=8),
    "rem": REM(lr=0.02, npo_lr=0.02, epochs=2, batch_size=16, npo_batch_size=4, npo_epochs=2, widen=0.5),
}
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.mark.slow
@every_method
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(net=st.sampled_from(["mlp", "convnet"]), seed=st.integers(0, 9), share=st.floats(0.0, 1.0))
def test_a_run_stopped_anywhere_leaves_a_model_that_stands_alone(name, net, seed, share):
    """Same names, shapes, types and flags as the corrupted one, which stays as it was; it can be copied and run; and
    a run with that budget ends in the same state."""
    start, method = model(net), METHODS[name]
    cost = run(method, start, seed=seed).rungs[0].flops
    ladder = run(method, start, seed=seed, budgets=[share * cost + 1, 2 * cost])
    paused = ladder.models[0]
    assert same_state(start, model(net))
    assert {k: (v.shape, v.dtype) for k, v in paused.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in start.state_dict().items()
    }
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in paused.modules())
    assert copy.deepcopy(paused)(DATA.forget.inputs).isfinite().all()
    assert same_state(run(method, start, seed=seed, budgets=[share * cost + 1]).final, paused)


@every_method
def test_no_weight_moves_before_it_may(name):
    """Importances, probes and extra units change nothing."""
    tried = model("convnet")
    for update in METHODS[name].updates(task(tried)):
        if update.phase not in ("fisher", "probe"):
            break
        assert same_parameters(tried, model("convnet"))
    assert same_state(tried, model("convnet"))


def larger_families():
    """(model, data) of the families that the other tests leave out."""
    random = torch.Generator().manual_seed(0)
    targets = torch.randint(4, (30,), generator=random)
    rows = Examples(torch.randint(11, (30, 6), generator=random), targets, torch.arange(30))
    index = torch.arange(30)
    gpt2 = build_model(Gpt2(layers=1, width=8, heads=2), input_shape=(6, 11), classes=4, seed=0)
    resnet18 = build_model(ResNet18(width=2), input_shape=SHAPE, classes=4, seed=0)
    return {"gpt2": (gpt2, Split(rows.rows(index >= 6), rows.rows(index < 6))), "resnet18": (resnet18, DATA)}


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("family", ["gpt2", "resnet18"])
def test_larger_families_are_changed_at_the_cost_of_an_unmetered_run(name, family):
    net, data = larger_families()[family]
    measured = run(METHODS[name], net, data)
    assert not same_parameters(measured.final, net)
    assert {k: v.shape for k, v in measured.final.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }
    (rung,) = measured.rungs
    assert rung.flops == flops_of_steps(METHODS[name], net, rung.steps, data=data)


def healed(method, kind):
    """(share of all poisons healed, utility), after and before."""
    problem = corrupted(kind)
    end = run(method, problem.model, problem.split).final
    return [(problem.healed(net), problem.utility(net)) for net in (end, problem.model)]


@pytest.mark.parametrize("method", [Potion(), REM(), LFSSD(alpha=5.0, ratio=0.2)], ids=lambda m: type(m).__name__)
def test_a_patch_is_undone_for_undiscovered_poisons_too(method):
    (after, utility), (before, start) = healed(method, "patch")
    assert before < 0.15
    assert after > 0.6
    assert utility > start - 0.08


def test_random_mislabelling_is_undone_by_rem_and_hardly_by_potion():
    """Potion finds no parameters that hold unrelated labels: its authors' and REM's finding."""
    ((rem, utility), (before, start)), ((potion, _), _) = (healed(m, "mislabelled") for m in (REM(), Potion()))
    assert before < potion < 0.7
    assert rem > 0.85
    assert utility > start - 0.08


def test_without_npo_on_the_way_the_poison_comes_back():
    """What the fine-tuning on all data would do by itself."""
    (after, _), (before, _) = healed(REM(npo_weight=0.0), "mislabelled")
    assert after < before + 0.1


def test_corrupted_models_are_not_shared_state():
    problem = corrupted("patch")
    weights = copy.deepcopy(problem.model.state_dict())
    healed(REM(epochs=1), "patch")
    assert all(torch.equal(value, weights[name]) for name, value in problem.model.state_dict().items())
