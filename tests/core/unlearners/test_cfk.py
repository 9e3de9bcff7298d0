"""Fine-tuning of the last k blocks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import MODELS, RETAIN, SHAPE, Forbidden, model, run, same_state
from tests.core.unlearners.parts import states_by_block, unchanged
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GD, CFk

DATA = Split(RETAIN, Forbidden())
SETTINGS = dict(lr=0.05, epochs=2, batch_size=16, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_exactly_the_last_blocks_change(net, optimizer, k):
    """Parameters and buffers of the rest are bit for bit the same, whatever decay or momentum do."""
    end = run(CFk(**SETTINGS | dict(epochs=1), k=k, optimizer=optimizer), model(net), DATA).final
    kept = unchanged(states_by_block(model(net)), states_by_block(end))
    blocks = len(kept)
    assert kept == [index < blocks - k for index in range(blocks)]


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("bn", ["train", "frozen"])
def test_all_blocks_is_gd_bit_for_bit(net, bn):
    whole = run(CFk(**SETTINGS, k=99, bn=bn), model(net), DATA).final
    assert same_state(whole, run(GD(**SETTINGS, bn=bn), model(net), DATA).final)


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
def test_tuned_batch_norm_moves_only_in_mode_train(net):
    for bn in ("train", "frozen"):
        end = run(CFk(**SETTINGS | dict(lr=0.0), k=2, bn=bn), model(net), DATA).final
        assert same_state(end, model(net)) == (bn == "frozen")


@pytest.mark.parametrize(("net", "k"), [("mlp", 1), ("convnet", 2), ("resnet9", 3)])
def test_a_row_costs_a_forward_pass_and_the_tuned_blocks_backward_pass(net, k):
    """Twice the tuned blocks' forward price, without the gradient that their first layer would pass on."""
    whole = model(net).eval()
    blocks = list(whole.children())
    frozen, tuned = torch.nn.Sequential(*blocks[:-k]), torch.nn.Sequential(*blocks[-k:])
    with FlopCounterMode(display=False) as forward:
        features = frozen(torch.zeros(1, *SHAPE)).detach()
    with FlopCounterMode(display=False) as training:
        torch.autograd.grad(tuned(features).sum(), list(tuned.parameters()))
    rung = run(CFk(k=k, epochs=1, batch_size=16), model(net), DATA).rungs[0]
    assert rung.flops == len(RETAIN) * (forward.get_total_flops() + training.get_total_flops())
    assert rung.flops < run(GD(epochs=1, batch_size=16), model(net), DATA).rungs[0].flops
