"""Every unlearner on a model that a user brings: its own forward pass runs, on rows, and what is frozen stays."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.methods import build, models_for
from tests.contracts.tiny import (
    CPU,
    DATA,
    MODELS,
    RECIPE,
    RETAIN,
    TEXT,
    data_for,
    model,
    run,
    same_state,
    task,
    weights,
)
from tests.core.foreign import FunctionalMlp, Net, Tokens, WithRms, seeded
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.evaluation import distances, parameters_of
from unlearn_core.scenarios.relearning import Relearning
from unlearn_core.seeding import Streams
from unlearn_core.training import batches, build_optimizer, train_updates
from unlearn_core.training.budget import sample_pass_flops
from unlearn_core.unlearners import GD, CFk, EUk

ENOUGH = 5e7  # FLOPs; more than any run here needs
every_method = pytest.mark.parametrize("name", UNLEARNERS.names())
FRESH = {"retrain", "retrain_at_budget", "euk", "bad_teacher"}  # draw parameters anew
REFUSE_TOKENS = {"bn_refresh", "ct", "msg"}


def budget(name):
    """Few FLOPs for the one method that uses up whatever it gets."""
    return [3e6 if name == "retrain_at_budget" else ENOUGH]


def worn(build_net, seed=0):
    """A model whose BatchNorm statistics are not the initial ones, and that can be drawn anew."""
    net = seeded(build_net, seed)
    if not isinstance(net, Tokens):
        net(RETAIN.inputs + 0.3)
    net.factory = build_net
    return net


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("build_net", [Net, Tokens])
def test_a_run_works_or_is_refused_by_name(name, build_net):
    corrupted = worn(build_net)
    before = copy.deepcopy(corrupted)
    data = TEXT if build_net is Tokens else DATA
    if name in REFUSE_TOKENS and build_net is Tokens:
        with pytest.raises(InputError, match=name):
            run(build(name), corrupted, data, budgets=budget(name))
        return
    first, again = (run(build(name), corrupted, data, budgets=budget(name)).final for _ in range(2))
    assert same_state(corrupted, before)
    assert torch.isfinite(weights(first)).all()
    assert not same_state(first, corrupted)
    assert same_state(first, again)


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("net", ["convnet", "gpt2", "own"])
def test_what_the_user_froze_is_bit_for_bit_the_same(name, net):
    if net != "own" and net not in models_for(name):
        pytest.skip("the method refuses this model")
    corrupted = worn(Net) if net == "own" else model(net)
    held = {"convnet": ["conv1", "head"], "gpt2": ["embedding", "h0.attn"], "own": ["conv1", "norm"]}[net]
    for part in held:
        corrupted.get_submodule(part).requires_grad_(False)
    if name == "bn_refresh" and net == "own":  # its only BatchNorm is frozen
        with pytest.raises(InputError, match="bn_refresh needs a model with BatchNorm statistics"):
            run(build(name), corrupted, data_for(corrupted), budgets=budget(name))
        return
    final = run(build(name), corrupted, data_for(corrupted), budgets=budget(name)).final
    before = corrupted.state_dict()
    for key, value in final.state_dict().items():
        if any(key.startswith(f"{part}.") for part in held):
            assert torch.equal(value, before[key]), key
    assert not same_state(final, corrupted), "nothing else changed either"
    assert [p.requires_grad for p in final.parameters()] == [p.requires_grad for p in corrupted.parameters()]


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("build_net", [Net, Tokens])
def test_no_model_is_given_a_batch_without_rows(name, build_net):
    if name in REFUSE_TOKENS and build_net is Tokens:
        pytest.skip("the method refuses this model")
    net, seen = worn(build_net), []
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))  # copies keep it
    run(build(name), net, TEXT if build_net is Tokens else DATA, budgets=budget(name))
    assert seen and min(seen) > 0


def frozen_by_hand(net, kept, *, epochs=2):
    """Fine-tuning with everything but `kept` frozen, as one would write it."""
    net = copy.deepcopy(net)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] in kept)
    optimizer = build_optimizer(net.parameters(), name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4)
    net.eval()
    for part in kept:
        net.get_submodule(part).train()
    for x, y in batches(RETAIN, 16, Streams(0, CPU), "retain", epochs=range(epochs)):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("build_net, kept", [
    (FunctionalMlp, ["fc3"]), (FunctionalMlp, ["fc2", "fc3"]), (Net, ["head"]), (Net, ["conv2", "head"]),
])  # fmt: skip
def test_cfk_is_freezing_by_hand(build_net, kept):
    net = worn(build_net)
    end = run(CFk(lr=0.05, epochs=2, batch_size=16, k=len(kept)), net, DATA).final
    assert same_state(end, frozen_by_hand(net, kept))


def test_all_blocks_of_a_foreign_model_are_gd():
    net, settings = worn(FunctionalMlp), dict(lr=0.05, epochs=2, batch_size=16)
    whole, gd = run(CFk(**settings, k=99), net, DATA), run(GD(**settings), net, DATA)
    assert same_state(whole.final, gd.final)
    assert whole.rungs[0].flops == gd.rungs[0].flops
    assert run(CFk(**settings, k=1), net, DATA).rungs[0].flops < gd.rungs[0].flops


def test_new_blocks_of_a_foreign_model_are_the_factorys():
    net = worn(Net)
    begun = copy.deepcopy(net)
    next(EUk(lr=0.05, epochs=1, batch_size=16, k=2).updates(task(begun, DATA)))
    for name, value in begun.state_dict().items():
        fresh = name.startswith(("conv2", "head"))
        assert torch.equal(value, net.state_dict()[name]) != fresh, name


@pytest.mark.parametrize("name", sorted(FRESH))
def test_what_cannot_be_drawn_anew_is_refused_with_the_remedy(name):
    method = build(name, k=2) if name == "euk" else build(name)
    with pytest.raises(InputError, match="Rms holds parameters but has no reset_parameters.*attribute `factory`"):
        run(method, seeded(WithRms), DATA, budgets=[ENOUGH])


@pytest.mark.parametrize("net", MODELS)
def test_training_relearning_and_prices_respect_what_is_frozen(net):
    corrupted, plain = model(net), model(net)
    held = list(corrupted.parameters())[: 1 if net == "linear" else 2]
    for parameter in held:
        parameter.requires_grad_(False)
    before = [p.clone() for p in held]
    for _ in train_updates(corrupted, RETAIN, RECIPE, Streams(0, CPU)):
        pass
    assert all(torch.equal(p, b) for p, b in zip(held, before, strict=True))
    seen = []
    relearning = Relearning(DATA.forget, RECIPE, Streams(0, CPU), -1.0, 2.0)
    given = copy.deepcopy(corrupted)
    given.register_forward_pre_hook(lambda m, _: seen.append([p.requires_grad for p in m.parameters()]))
    relearning(given)
    assert all(flags == [p.requires_grad for p in corrupted.parameters()] for flags in seen)
    assert sample_pass_flops(corrupted, RETAIN.inputs[:4]) < sample_pass_flops(plain, RETAIN.inputs[:4])


def test_a_model_with_all_parameters_frozen_cannot_be_trained():
    with pytest.raises(InputError, match="every parameter is frozen"):
        next(train_updates(model().requires_grad_(False), RETAIN, RECIPE, Streams(0, CPU)))


class Ordered(nn.Module):
    def __init__(self, names):
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(4, 4))


def test_distances_are_by_name():
    first, second = Ordered("ab"), Ordered("ba")
    second.load_state_dict(first.state_dict())
    assert distances(second, parameters_of(first)).eq(0).all()
    with pytest.raises(InputError, match=r"2 parameters are not both in the model .*c\.bias, c\.weight"):
        distances(Ordered("abc"), parameters_of(first))
