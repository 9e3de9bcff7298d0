"""The models' block contract, their sizes and costs, and their seeded initial weights."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unlearn_core.checks import InputError
from unlearn_core.models import build_model, initialise
from unlearn_core.models.building import BatchNorm2d
from unlearn_core.models.resnet import BasicBlock
from unlearn_core.registry import MODELS

# One row per model: small settings, number of blocks, and parameters at default settings for 3x32x32 and 10 classes.
ROWS = {
    "linear": ({}, 1, 3072 * 10 + 10),
    "mlp": ({"hidden": (12, 8)}, 3, 3072 * 256 + 256 + 256 * 10 + 10),
    # convolutions of 9 weights a channel pair, 2 BatchNorm values a channel, 4x4x128 features
    "convnet": ({"width": 4}, 4, 9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * 224 + 2048 * 10 + 10),
    "resnet9": ({"width": 4}, 7, 9 * 64**2 * 178 + 9 * 3 * 64 + 2 * 64 * 35 + 512 * 10 + 10),
    "resnet18": ({"width": 4}, 10, 11_173_962),
    # 40 tokens, 10 positions; two layers of 12 matrices and 13 vectors of width 64; last norm; head without biases
    "gpt2": ({"width": 12}, 4, 50 * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64 + 640),
}
TEXT = {"gpt2": (10, 40)}  # models of text, with the length and the vocabulary that they get in place of an image
SHAPES = [(1, 32, 32), (3, 32, 32), (3, 28, 28)]
every_model = pytest.mark.parametrize("name", MODELS.names())
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def small(name, *, shape=(3, 32, 32), seed=0):
    return build_model(MODELS.get(name)(**ROWS[name][0]), input_shape=TEXT.get(name, shape), classes=5, seed=seed)


def images(shape, *, rows=4):
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(7))


def inputs(name, shape=(3, 32, 32), *, rows=4):
    """Rows that the model reads: images, or token ids."""
    if name not in TEXT:
        return images(shape, rows=rows)
    length, vocabulary = TEXT[name]
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(7))


def same_state(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@every_model
@every_shape
def test_children_in_order_are_the_forward_pass(name, shape):
    model, x = small(name, shape=shape).eval(), inputs(name, shape)
    by_blocks = x
    for block in model.children():
        by_blocks = block(by_blocks)
    names = [child for child, _ in model.named_children()]
    assert len(names) == ROWS[name][1]
    assert names[-1] == "head"
    assert by_blocks.shape == (4, 5)
    assert torch.equal(by_blocks, model(x))


@every_model
def test_only_the_head_depends_on_the_number_of_classes(name):
    settings = MODELS.get(name)(**ROWS[name][0])
    shape = TEXT.get(name, (3, 32, 32))
    five, ten = (build_model(settings, input_shape=shape, classes=c, seed=0) for c in (5, 10))
    assert same_state(five[:-1], ten[:-1])


@every_model
def test_parameter_count_at_default_settings(name):
    model = build_model(MODELS.get(name)(), input_shape=TEXT.get(name, (3, 32, 32)), classes=10, seed=0)
    assert sum(p.numel() for p in model.parameters()) == ROWS[name][2]


@every_model
def test_same_seed_same_bits_other_seed_other_values(name):
    first, again, other = small(name, seed=3), small(name, seed=3), small(name, seed=4)
    assert same_state(first, again)
    for key, value in first.state_dict().items():
        if value.unique().numel() > 1:  # norms and biases start at constants
            assert not torch.equal(value, other.state_dict()[key]), key


@every_model
def test_initialising_some_blocks_gives_them_the_values_of_initialising_all(name):
    fresh, worn = small(name, seed=3), small(name, seed=9)
    worn.train()(inputs(name))  # moves running statistics
    before = {key: value.clone() for key, value in worn.state_dict().items()}
    last = [child for child, _ in worn.named_children()][-2:]
    initialise(worn, 3, last)
    for key, value in worn.state_dict().items():
        expected = fresh.state_dict()[key] if key.split(".")[0] in last else before[key]
        assert torch.equal(value, expected), key


@every_model
def test_initialise_resets_running_statistics_and_keeps_the_rest_of_the_model(name):
    model, fresh = small(name), small(name)
    model.train()(inputs(name))
    kept = list(model.parameters())
    kept[0].requires_grad_(False)
    random = torch.get_rng_state()
    initialise(model, 0)
    assert same_state(model, fresh)
    assert all(a is b for a, b in zip(kept, model.parameters(), strict=True)), "optimisers would lose the parameters"
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(kept) - 1)
    assert torch.equal(torch.get_rng_state(), random), "global random state was used"


@every_model
def test_initial_values_depend_neither_on_memory_layout_nor_precision(name):
    plain = small(name)
    layout = small(name, seed=9).to(memory_format=torch.channels_last)
    double, half = small(name, seed=9).double(), small(name, seed=9).bfloat16()
    for model in (layout, double, half):
        initialise(model, 0)
    assert same_state(plain, layout)
    assert same_state(plain, double.float())
    assert same_state(small(name).bfloat16(), half)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_model
def test_initial_values_on_a_gpu_are_those_on_the_cpu(name):
    on_gpu = small(name, seed=9).cuda()
    initialise(on_gpu, 0)
    assert same_state(small(name), on_gpu.cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_model
def test_gradients_on_a_gpu_are_reproducible(name):
    model, x = small(name).cuda(), inputs(name).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        first, again = (torch.autograd.grad(model(x).square().sum(), list(model.parameters())) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@every_model
@every_shape
def test_every_parameter_gets_a_gradient(name, shape):
    model = small(name, shape=shape)
    x = inputs(name, shape, rows=8)
    nn.functional.cross_entropy(model(x), torch.arange(8) % 5).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@every_model
@every_shape
def test_one_row_in_eval_mode_equals_its_row_of_a_batch(name, shape):
    model, x = small(name, shape=shape).eval(), inputs(name, shape)
    torch.testing.assert_close(model(x[:1]), model(x)[:1])


def test_resnet18_costs_556_million_multiply_adds_an_image():
    model = build_model(MODELS.get("resnet18")(), input_shape=(3, 32, 32), classes=10, seed=0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images((3, 32, 32), rows=1))
    # Per output pixel and channel a convolution costs 9 x input channels (1 x in shortcuts). Each stage halves the
    # sides and doubles the channels, so 3x3 convolutions at full width all cost the same.
    unit = 9 * 64 * 64 * 32 * 32
    stem, head = 9 * 3 * 64 * 32 * 32, 512 * 10
    stages = 4 * unit + 3 * (3.5 * unit) + 3 * unit / 18  # the first convolution of a stage sees half the channels
    assert counter.get_total_flops() == 2 * (stem + stages + head)
    assert counter.get_total_flops() / 2 == pytest.approx(0.556e9, rel=2e-3)


def test_basic_block_without_a_shortcut_convolution_adds_its_input():
    block = BasicBlock(4, 4, stride=1).eval()
    x = images((4, 8, 8))
    torch.testing.assert_close(block(x), torch.relu(x + block.body(x)))


def test_unknown_block_is_named_with_the_nearest_one():
    with pytest.raises(InputError, match=r"block 'layer4_2' is unknown; did you mean .*'layer4_1'"):
        initialise(small("resnet18"), 0, ["layer4_2"])


class Loose(nn.Module):
    """Holds a parameter that nothing can redraw."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def test_parameters_that_cannot_be_redrawn_are_an_error_with_the_remedy():
    for holder in (nn.Sequential(Loose()), Loose()):
        with pytest.raises(InputError, match="Loose holds parameters but has no reset_parameters.*attribute `factory`"):
            initialise(holder, 0)


class Noisy(nn.Module):
    """Settings of a model that draws a parameter of its own when it is built."""

    def build(self, *, input_shape, classes):
        net = nn.Sequential(nn.Linear(*input_shape, 3), Loose(), nn.Linear(3, classes))
        nn.init.normal_(net[1].scale)
        return net


def test_a_model_without_resets_is_built_again_for_each_seed():
    first, again, other = (build_model(Noisy(), input_shape=(4,), classes=2, seed=s) for s in (1, 1, 2))
    assert same_state(first, again)
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    initialise(other, 1, ["1", "2.bias"])
    for name, value in other.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]) == (name in ("1.scale", "2.bias"))


class Built:
    """Settings of a model that `build` does not leave as its layers were drawn."""

    def build(self, *, input_shape, classes):
        net = nn.Sequential(OrderedDict(body=nn.Linear(*input_shape, 5), head=nn.Linear(5, classes)))
        net.body.weight.data = torch.arange(5.0)[:, None].expand(5, *input_shape).clone()  # as if read from a file
        nn.init.zeros_(net.head.weight)
        net.register_buffer("centre", torch.zeros(5))
        return net


def test_what_build_does_to_the_weights_is_where_every_training_starts():
    net = build_model(Built(), input_shape=(3,), classes=2, seed=7)
    assert net.body.weight[:, 0].tolist() == [0, 1, 2, 3, 4] and not net.head.weight.any()
    other = build_model(Built(), input_shape=(3,), classes=2, seed=8)
    assert not torch.equal(net.body.bias, other.body.bias)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            value += 1  # trained
    initialise(net, 7)
    assert all(torch.equal(value, start[name]) for name, value in net.state_dict().items())


def test_a_factory_is_matched_by_name_and_shape():
    class Swapped(nn.Module):
        def __init__(self, order, width=3):
            super().__init__()
            for name in order:
                setattr(self, name, nn.Linear(3, width))

    torch.manual_seed(0)
    model, made = Swapped("ab"), Swapped("ba")
    model.factory = lambda: made
    initialise(model, 0)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in model.state_dict().items())
    model.factory = lambda: Swapped("ab", width=4)
    with pytest.raises(InputError, match="factory gives no 'a.weight' of shape"):
        initialise(model, 0)


def test_frozen_parameters_and_statistics_keep_what_build_gave_them():
    class Settings:
        def build(self, *, input_shape, classes):
            body = nn.Sequential(nn.Linear(*input_shape, 3), nn.BatchNorm1d(3)).requires_grad_(False)
            body[1].running_mean.fill_(0.5)
            return nn.Sequential(body, nn.Linear(3, classes))

    first, other = (build_model(Settings(), input_shape=(4,), classes=2, seed=s) for s in (1, 2))
    assert same_state(first[0], other[0]), "not a function of the seed"
    assert not torch.equal(first[1].weight, other[1].weight)
    assert (first[0][1].running_mean == 0.5).all()


def test_a_shared_parameter_is_reset_with_the_part_that_holds_it_first():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    before = net[0].weight.clone()
    initialise(net, 0, ["1"])
    assert torch.equal(net[0].weight, before)
    initialise(net, 0, ["0"])
    assert not torch.equal(net[0].weight, before)


@pytest.mark.parametrize("name", ["convnet", "resnet9", "resnet18"])
def test_image_models_refuse_other_inputs(name):
    with pytest.raises(InputError, match=rf"{name} needs images .* shape \(20,\)"):
        small(name, shape=(20,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small("resnet9", shape=(3, 7, 32)), "8x8 or more pixels, but got 7x32"),
        (
            lambda: build_model(MODELS.get("linear")(), input_shape=(4,), classes=1, seed=0),
            "classes must be at least 2",
        ),
        (lambda: MODELS.get("mlp")(hidden=()), "hidden must list at least one layer"),
        (lambda: MODELS.get("mlp")(hidden=(8, 0)), "hidden must lie in"),
        (lambda: MODELS.get("convnet")(width=0), "width must lie in"),
        (lambda: MODELS.get("resnet9")(width=-1), "width must lie in"),
        (lambda: MODELS.get("resnet18")(width=0), "width must lie in"),
    ],
)
def test_settings_that_cannot_work_are_errors(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_dense_models_accept_plain_feature_rows():
    assert small("mlp", shape=(20,))(images((20,))).shape == (4, 5)
    assert small("linear", shape=(20,))(images((20,))).shape == (4, 5)


@pytest.mark.parametrize("name", ["convnet", "resnet9"])
def test_a_single_row_whose_map_has_one_pixel_can_be_trained_on(name):
    """Its variance is undefined: the running statistics serve, and stay."""
    model = small(name, shape=(3, 8, 8)).train()
    row = images((3, 8, 8))[:1]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = norms[-1].running_mean.clone()
    model(row).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if name == "convnet":
        assert torch.equal(norms[-1].running_mean, before)
    x = torch.randn(4, 6, 2, 2)
    ours, theirs = BatchNorm2d(6).train(), nn.BatchNorm2d(6).train()
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)


def test_convnet_without_batch_norm_has_biases_instead():
    model = build_model(MODELS.get("convnet")(width=4, batch_norm=False), input_shape=(3, 32, 32), classes=5, seed=0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    nn.functional.cross_entropy(model(images((3, 32, 32))), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
