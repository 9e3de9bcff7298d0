"""`unlearn_core.unlearn` against the engine of the sweeps, and what it promises to a caller."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unlearn_core as uc
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Request, run_ladder
from tests.contracts import tiny as small
from tests.contracts.methods import TINY, build, models_for
from tests.sweeps.tiny import ROOT, tiny
from unlearn_core.library.cost import flops_of_training
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import Streams, derive
from unlearn_core.training import train_updates
from unlearn_core.training.budget import Meter, run_to_end
from unlearn_core.types import Examples

RETAIN, FORGET = ((rows.inputs, rows.targets) for rows in small.DATA)


def call(method, net, budgets=(0.05, 0.4), **changes):
    given = {"retain": RETAIN, "forget": FORGET, "budgets": budgets, "reference": small.RECIPE, "seed": 3}
    return uc.unlearn(net, method, **given | changes)


@pytest.mark.parametrize("name", ["gd", "ssd", "scrub", "retrain_at_budget"])
def test_weights_are_those_of_a_trial_of_a_sweep(name, tmp_path: Path) -> None:
    sweep = tiny(recipe={"epochs": 6, "batch_size": 50, "lr": 0.05}, model="mlp")
    work = ScenarioCache(sweep, RunEnvironment(tmp_path))
    settings = UNLEARNERS.get(name)()
    request = Request(attack="badnets", seed=1, discovery_rate=1.0, stage="confirmation", method=name,
                      settings=settings, budgets=(0.1, 0.3), study="x")  # fmt: skip
    bench, models = work.bench("badnets", 1, "test"), []
    measured = run_ladder(work, bench, request, lambda net: models.append(copy.deepcopy(net)) or {})
    split = work.split(bench, 1.0)
    run = uc.unlearn(bench.corrupted.model, settings, retain=(split.retain.inputs, split.retain.targets),
                     forget=(split.forget.inputs, split.forget.targets), budgets=[0.1, 0.3], reference=sweep.recipe,
                     seed=1)  # fmt: skip
    for rung, net, trial in zip(run, models, measured, strict=True):
        assert small.same_state(rung.model, net)
        assert (rung.flops, rung.steps, rung.status) == (trial.rung.flops, trial.rung.steps, trial.rung.status)
        assert rung.share_spent == trial.rung.flops / bench.oracle.cost.flops
    assert any(rung.steps for rung in run)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TINY))
def test_every_method_gives_what_the_engine_gives(name) -> None:
    net = small.model("convnet" if "convnet" in models_for(name) else "mlp")
    before, mode = copy.deepcopy(net.state_dict()), net.training
    run = call(build(name), net)
    flops = flops_of_training(net, small.RETAIN, small.RECIPE)
    engine = small.run(build(name), net, seed=derive(3, "unlearning", 0), budgets=[0.05 * flops, 0.4 * flops])
    for rung, expected, model in zip(run, engine.rungs, engine.models, strict=True):
        assert small.same_state(rung.model, model)
        assert (rung.flops, rung.status) == (expected.flops, expected.status)
        assert rung.flops <= rung.budget * flops * (1 + 1e-9)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training == mode
    assert all(p.grad is None for p in net.parameters())


def test_every_registered_method_is_tried_and_has_a_name_in_the_library() -> None:
    assert sorted(TINY) == UNLEARNERS.names()
    assert len(uc.unlearners.__all__) == len(TINY) == 26
    assert {type(build(name)).__name__ for name in TINY} == set(uc.unlearners.__all__)


def test_rungs_are_made_lazily_once_and_kept_apart() -> None:
    seen = []
    net = small.model("mlp")
    net.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    run = call(uc.unlearners.GD(lr=0.05, epochs=5, batch_size=16), net)
    tried = len(seen)
    first = next(iter(run))
    assert len(seen) > tried
    made, held = sum(seen), copy.deepcopy(first.model.state_dict())
    assert "40 % not run yet" in repr(run)
    assert run.last.steps > first.steps
    assert run.last is list(run)[-1] and next(iter(run)) is first
    assert sum(seen) > made
    assert all(torch.equal(value, held[key]) for key, value in first.model.state_dict().items())
    assert len(run) == 2 and first.budget == 0.05
    assert not first.model.training


@pytest.mark.parametrize("form", ["tensors", "arrays", "examples"])
def test_what_is_done_after_the_call_changes_no_rung(form) -> None:
    method = uc.unlearners.NegGradPlus(lr=0.05, epochs=2, batch_size=16)
    x, y, xf, yf = (values.clone() for values in (*RETAIN, *FORGET))
    net, rows = small.model("mlp"), {"retain": (x, y), "forget": (xf, yf)}
    if form == "arrays":
        rows = {name: tuple(values.numpy() for values in pair) for name, pair in rows.items()}
    if form == "examples":
        rows = {name: Examples(*pair, torch.arange(len(pair[1]))) for name, pair in rows.items()}
    untouched, run = call(method, small.model("mlp")), call(method, net, **rows)
    with torch.no_grad():
        for values in (*net.parameters(), x, y, xf, yf):
            values.zero_()
    assert small.same_state(run.last.model, untouched.last.model)


def test_draws_of_the_caller_neither_see_nor_change_the_run() -> None:
    """Dropout draws from torch's global stream, which the caller uses between two rungs."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5), nn.Linear(8, small.CLASSES))
    method = uc.unlearners.GD(lr=0.05, epochs=5, batch_size=16)
    quiet = call(method, net).last
    torch.manual_seed(5)
    alone = torch.rand(2)
    torch.manual_seed(5)
    rungs = iter(call(method, net))
    next(rungs)
    drawn = [torch.rand(1)]
    loud = next(rungs)
    drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), alone)
    assert small.same_state(quiet.model, loud.model)


def test_numpy_arrays_and_a_number_for_the_reference_give_the_same() -> None:
    net, method = small.model("mlp"), uc.unlearners.NegGradPlus(lr=0.05, epochs=2, batch_size=16)
    flops = flops_of_training(net, small.RETAIN, small.RECIPE)
    arrays = {
        "retain": tuple(t.numpy() for t in RETAIN),
        "forget": (FORGET[0].double().numpy(), FORGET[1].int().numpy()),
    }
    assert small.same_state(call(method, net).last.model, call(method, net, reference=flops, **arrays).last.model)


def test_sets_that_a_method_does_without_may_be_missing() -> None:
    net = small.model("mlp")
    whole, without = (call(uc.unlearners.GD(lr=0.05, epochs=1, batch_size=16), net, forget=f) for f in (FORGET, None))
    assert small.same_state(whole.last.model, without.last.model)
    whole, without = (
        call(uc.unlearners.SCRUB(epochs=1, batch_size=16), net, forget=f) for f in (FORGET, (FORGET[0], None))
    )
    assert small.same_state(whole.last.model, without.last.model)


@pytest.mark.parametrize("rows", [1, 16, 17, 33, 41])
def test_the_cost_of_a_recipe_is_what_training_is_charged(rows) -> None:
    net, examples = small.model("mlp"), small.examples(rows)
    trained = copy.deepcopy(net)
    meter = Meter(small.CPU)
    run_to_end(train_updates(trained, examples, small.RECIPE, Streams(0, small.CPU)), trained, meter)
    assert flops_of_training(net, examples, small.RECIPE) == meter.flops


def test_statuses() -> None:
    net = small.model("mlp")
    method = uc.unlearners.GD(lr=0.05, epochs=1, batch_size=16)
    nothing, everything = call(method, net, budgets=[1e-6, 1.0])
    assert (nothing.status, everything.status) == ("unaffordable", "finished")
    assert small.same_state(nothing.model, net) and nothing.flops == 0
    wild = uc.unlearners.GD(lr=1e30, epochs=5, batch_size=16)
    assert call(wild, net, budgets=[0.9]).last.status == "diverged"


def test_a_run_that_was_ended_says_so() -> None:
    class Broken(uc.unlearners.GD):
        def updates(self, task):
            if len(task.retain) == len(RETAIN[0]):  # in the check of the call there are fewer
                raise KeyboardInterrupt
            yield from super().updates(task)

    run = call(Broken(), small.model("mlp"))
    with pytest.raises(KeyboardInterrupt):
        _ = run.last
    with pytest.raises(RuntimeError, match="call unlearn again"):
        _ = run.last


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "library.md").read_text(), re.M | re.S):
        exec(block, names)
    assert names["run"].last.status in ("ok", "finished")
    assert np.isfinite(names["accuracy"])


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, unlearn_core as uc; uc.metrics.auc; print(*sys.modules, *dir(uc))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "torch" not in done.stdout.split()
    assert set(uc.__all__) <= set(done.stdout.split())
    with pytest.raises(AttributeError, match="no attribute 'unlern'; it has .*unlearn"):
        _ = uc.unlern
