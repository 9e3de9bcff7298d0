"""Noise on embeddings: what it is, against arithmetic in whole numbers, and that it goes wherever rows go."""

import copy
import math

import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import kstest
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.core.gpt2_weights import checkpoint
from unlearn_core.checks import InputError
from unlearn_core.gradients.input_gradients import input_gradients
from unlearn_core.models import Gpt2, build_model
from unlearn_core.models.token_noise import (
    KEYS,
    PADDING,
    embedding_noise,
    exact_scale,
    mixed,
    noise_products,
    tokens,
    with_keys,
)

LENGTH, VOCABULARY, WIDTH = 6, 40, 16
WORD = 1 << 64
DEVIATION = 0.02  # of initial embeddings
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def rows(count=7, seed=0):
    """Plain rows of 1 to LENGTH tokens; the last is full."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (count, LENGTH), generator=random)
    sizes = torch.randint(1, LENGTH + 1, (count, 1), generator=random)
    sizes[-1] = LENGTH
    return ids.masked_fill(torch.arange(LENGTH) >= sizes, PADDING)


def keyed(count=7, epsilon=0.5, first=1):
    return with_keys(rows(count), torch.arange(count) + first, epsilon)


def model(seed=0):
    """A model with no parameter at a special value."""
    built = build_model(Gpt2(width=WIDTH), input_shape=(LENGTH, VOCABULARY), classes=3, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return built


def word(z):
    """splitmix64's finalizer on one unsigned word."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


def expected_noise(key, place, feature):
    """One draw, in Python's own whole numbers."""
    bits = word((word(key) + (place * 2**32 + feature // 2) * 0x9E3779B97F4A7C15) % WORD)
    radius = math.sqrt(-2 * math.log(((bits >> 32) + 0.5) / 2**32))
    angle = 2 * math.pi * (bits % 2**32) / 2**32
    return radius * (math.sin(angle) if feature % 2 else math.cos(angle))


def test_bits_are_those_of_splitmix64():
    """The first numbers of the generator as its authors seed it with 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + i * 0x9E3779B97F4A7C15) % WORD for i in (1, 2, 3)]
    signed = torch.tensor([state - WORD if state >> 63 else state for state in states])
    assert [value % WORD for value in mixed(signed).tolist()] == published


def test_noise_is_that_of_slow_arithmetic():
    keys = torch.tensor([1, 77, KEYS - 1])
    noise = embedding_noise(with_keys(torch.zeros(3, 4, dtype=torch.int64), keys, 1.0), 5)
    slow = [[[expected_noise(key, place, i) for i in range(5)] for place in range(4)] for key in keys.tolist()]
    torch.testing.assert_close(noise, torch.tensor(slow), rtol=1e-6, atol=1e-7)


def test_noise_is_standard_normal_and_independent():
    noise = embedding_noise(with_keys(torch.zeros(200, 10, dtype=torch.int64), torch.arange(200) + 5, 1.0), 32)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    for other in (noise.roll(1, 0), noise.roll(1, 1), noise.roll(1, 2), noise.roll(2, 2)):
        assert abs((noise * other).mean().item()) < 4 / math.sqrt(noise.numel())


@devices
def test_noise_depends_on_key_place_and_feature_alone(device):
    """The same bits in any order and any batch; more features are more of the same."""
    ids = keyed().to(device)
    whole, order = embedding_noise(ids, WIDTH), torch.tensor([3, 0, 6, 1], device=device)
    assert torch.equal(embedding_noise(ids[order], WIDTH), whole[order])
    assert torch.equal(torch.cat([embedding_noise(part, WIDTH) for part in ids.split(2)]), whole)
    assert torch.equal(embedding_noise(ids[:, :3], WIDTH), whole[:, :3])
    assert torch.equal(embedding_noise(ids, 2 * WIDTH)[..., :WIDTH], whole)
    assert torch.equal(embedding_noise(ids, WIDTH - 1), whole[..., :-1])
    assert not torch.equal(embedding_noise(keyed(first=2).to(device), WIDTH), whole)
    torch.testing.assert_close(embedding_noise(keyed(epsilon=2.0).to(device), WIDTH), 4 * whole)
    torch.testing.assert_close(whole.cpu(), embedding_noise(ids.cpu(), WIDTH), rtol=1e-6, atol=1e-7)


def test_padding_and_rows_without_a_key_get_none():
    ids = rows()
    assert not embedding_noise(ids, WIDTH).any()
    noise = embedding_noise(keyed(), WIDTH)
    assert torch.equal(noise.any(-1), ids != PADDING)
    assert torch.equal(tokens(keyed()), ids) and torch.equal(tokens(ids), ids)
    assert torch.equal(keyed() == PADDING, ids == PADDING)


def test_a_model_adds_the_noise_to_what_tokens_mean():
    """In units of the deviation that embeddings start with, whatever they are by now."""
    net, ids, plain = model(), keyed(), rows()
    embedding = net.embedding
    noise = torch.zeros(7, LENGTH, WIDTH)
    for row in range(7):
        for place in range(LENGTH):
            if plain[row, place] != PADDING:
                noise[row, place] = torch.tensor([expected_noise(row + 1, place, i) for i in range(WIDTH)])
    hidden = embedding.wte.weight[plain.clamp(min=0)] + 0.5 * DEVIATION * noise + embedding.wpe.weight
    torch.testing.assert_close(embedding(ids)[..., :-1], hidden)
    assert torch.equal(embedding(ids)[..., -1], embedding(plain)[..., -1]), "another token is marked as the last"
    assert not torch.equal(net(ids), net(plain))


def test_rows_without_a_key_are_read_as_ever():
    """Bit for bit, in the company of rows with keys too."""
    net, plain, mixed_rows = model(), rows(), rows()
    mixed_rows[::2] = keyed()[::2]
    assert torch.equal(net(mixed_rows)[1::2], net(plain)[1::2])
    before = net.embedding.wpe(net.embedding.wte(plain.clamp(min=0)))
    assert torch.equal(net.embedding(plain)[..., :-1], before)


def test_noise_stays_the_same_in_training_evaluation_and_copies():
    net, ids = model(), keyed()
    noise = net.embedding(ids) - net.embedding(rows())
    with torch.no_grad():
        net.embedding.wte.weight.mul_(3)
    for other in (net.eval(), copy.deepcopy(net)):
        torch.testing.assert_close(other.embedding(ids) - other.embedding(rows()), noise, rtol=0, atol=1e-6)


def test_noise_costs_no_flops():
    def price(ids):
        with FlopCounterMode(display=False) as counter:
            model()(ids).sum().backward()
        return counter.get_total_flops()

    assert price(keyed()) == price(rows()) > 0


def test_noise_passes_through_function_transforms():
    """Per-sample gradients by vmap are those of single rows."""
    net, ids, targets = model(), keyed(4), torch.tensor([0, 2, 1, 0])
    own = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def loss(parameters, row, target):
        return functional.cross_entropy(functional_call(net, parameters, (row[None],)), target[None])

    batched = vmap(grad(loss), in_dims=(None, 0, 0))(own, ids, targets)
    for i in range(4):
        net.zero_grad()
        functional.cross_entropy(net(ids[i : i + 1]), targets[i : i + 1]).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(batched[name][i], parameter.grad, rtol=1e-4, atol=1e-6)
    assert embedding_noise(ids.to("meta"), WIDTH).shape == (4, LENGTH, WIDTH)


def test_noise_stays_in_single_precision_under_autocast():
    net, ids = model(), keyed()
    expected = net.embedding(ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net.embedding(ids), expected) and net(ids).dtype == torch.bfloat16


def test_the_unit_of_pretrained_embeddings_is_their_own_deviation(tmp_path):
    """However they have been trained since."""
    state = checkpoint(model())
    save_file(state, tmp_path / "model.safetensors")
    settings = Gpt2(width=WIDTH, pretrained=str(tmp_path))
    net = build_model(settings, input_shape=(LENGTH, VOCABULARY), classes=3, seed=0)
    with torch.no_grad():
        net.embedding.wte.weight.mul_(3)
    noise = (net.embedding(keyed()) - net.embedding(rows()))[..., :-1]
    unit = state["wte.weight"].std().item()
    torch.testing.assert_close(noise, unit * embedding_noise(keyed(), WIDTH), rtol=1e-3, atol=1e-5)
    assert unit > 5 * DEVIATION


def test_vocabularies_that_leave_no_room_for_keys_are_refused():
    with torch.device("meta"), pytest.raises(InputError, match="the vocabulary must lie in"):
        Gpt2(width=WIDTH).build(input_shape=(LENGTH, (1 << 20) + 1), classes=2)


@pytest.mark.parametrize("epsilon", [0.001, 8.0, 100])
def test_scales_that_ids_cannot_hold_are_refused(epsilon):
    with pytest.raises(InputError, match=r"epsilon must lie in \[1/256, 8\) on text, but got"):
        with_keys(rows(), torch.arange(7), epsilon)
    assert exact_scale(0.566) == 145 / 256


# Gradients at embeddings


def test_gradients_are_those_at_the_embeddings_of_single_rows():
    """With the rest of the model run by hand, one row at a time; none at padding."""
    net, ids, targets = model().train(), rows(), torch.arange(7) % 3
    batched = input_gradients(net, ids, targets, chunk=3)
    assert net.training and all(parameter.grad is None for parameter in net.parameters())
    embedding, blocks = net.embedding, net[1:]
    for row, target, found in zip(ids, targets, batched, strict=True):
        length = int((row != PADDING).sum())
        meaning = embedding.wte.weight[row[:length]].detach().requires_grad_()
        mark = (torch.arange(length) == length - 1).float().unsqueeze(1)
        hidden = torch.cat([meaning + embedding.wpe.weight[:length], mark], dim=1)
        functional.cross_entropy(blocks(hidden[None]), target[None]).backward()
        torch.testing.assert_close(found[:length], meaning.grad, rtol=1e-4, atol=1e-7)
        assert not found[length:].any()


def test_products_with_noise_are_those_of_the_whole(monkeypatch):
    ids, vectors = keyed(), torch.randn(7, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    draws = torch.stack([ids, keyed(first=9)])
    whole = torch.stack([(embedding_noise(some, WIDTH) * vectors).sum((1, 2)) for some in draws])
    torch.testing.assert_close(noise_products(vectors, draws), whole)
    monkeypatch.setattr("unlearn_core.models.token_noise.AT_ONCE", 2 * LENGTH * WIDTH)
    torch.testing.assert_close(noise_products(vectors, draws), whole)
    assert noise_products(vectors, ids).shape == (7,)
