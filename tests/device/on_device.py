"""The pretended device itself: what it refuses, counts and casts, as CUDA documents it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.device.gates import MemoryLeftError, leaving_nothing
from tests.device.pretended import CUDA, DeviceTensor, MixedDevicesError

bf16, float32, float64 = torch.bfloat16, torch.float32, torch.float64


def ones(*shape, **options):
    return torch.ones(*shape, device="cuda", **options)


def waits(gpu):
    return {wait.kind: count for wait, count in gpu.ledger.waits.items()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device="cuda"),
        lambda: torch.tensor([1.0, 2.0], device=CUDA),
        lambda: torch.ones(2).cuda(),
        lambda: torch.ones(2).to("cuda:0"),
        lambda: torch.ones(2).to(device="cuda"),
        lambda: ones(2).new_tensor([1.0]),
        lambda: torch.arange(3, device="cuda") + 1,
        lambda: nn.Linear(2, 2).to("cuda").weight,
        lambda: copy.deepcopy(nn.Linear(2, 2).to("cuda")).weight,
        lambda: nn.Linear(2, 2, device="cuda")(ones(1, 2)),
    ],
)
def test_tensors_say_where_they_are(gpu, make):
    made = make()
    assert isinstance(made, DeviceTensor) and made.is_cuda
    assert made.device == CUDA and made.device.type == "cuda"
    assert made.cpu().device.type == "cpu" and not isinstance(made.cpu(), DeviceTensor)


@pytest.mark.parametrize(
    "mix",
    [
        lambda: ones(2) + torch.ones(2),
        lambda: torch.ones(2) * ones(2),
        lambda: ones(2, 2) @ torch.ones(2, 2),
        lambda: torch.cat([ones(2), torch.ones(2)]),
        lambda: torch.stack([ones(()), torch.ones(())]),
        lambda: torch.where(torch.ones(2) > 0, ones(2), ones(2)),
        lambda: nn.Linear(2, 2)(ones(1, 2)),
        lambda: functional.cross_entropy(ones(1, 2), torch.zeros(1, dtype=torch.long)),
        lambda: torch.arange(3)[torch.zeros(2, dtype=torch.long, device="cuda")],
        lambda: ones(3).index_put_((torch.tensor([0, 1]),), torch.ones(2)),
        lambda: torch.ones(2).add_(ones(2)),
        lambda: torch.ones(()).add_(ones(())),
        lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
        lambda: torch.randn(2, generator=torch.Generator("cuda")),
        lambda: torch.randperm(4, device="cuda", generator=torch.Generator()),
        lambda: ones(2).normal_(generator=torch.Generator()),
    ],
)
def test_devices_do_not_mix(gpu, mix):
    with pytest.raises(MixedDevicesError):
        mix()


@pytest.mark.parametrize(
    "mix, expected",
    [
        (lambda: ones(2) + torch.tensor(2.0), [3.0, 3.0]),  # single numbers go along with pointwise operations
        (lambda: ones(2) * 3, [3.0, 3.0]),
        (lambda: torch.arange(3, device="cuda")[torch.tensor([2, 0])], [2, 0]),  # CUDA copies the index
        (lambda: ones(2).copy_(torch.tensor([4.0, 5.0])), [4.0, 5.0]),
        (lambda: torch.ones(2).copy_(2 * ones(2)), [2.0, 2.0]),
        (lambda: torch.where(ones(2) > 0, ones(2), torch.tensor(0.0)), [1.0, 1.0]),
    ],
)
def test_but_for_what_cuda_takes_from_the_cpu(gpu, mix, expected):
    assert mix().tolist() == expected


@pytest.mark.parametrize(
    "act, kind",
    [
        (lambda x: x[0].item(), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: bool(x.sum() > 0), "item"),
        (lambda x: 1 if x[0] > 0 else 0, "item"),
        (lambda x: x.tolist(), "to host"),
        (lambda x: x.cpu(), "to host"),
        (lambda x: torch.tensor([1.0]).to(x), "to device"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "mask index"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.long().bincount(), "bincount"),
        (lambda x: x.unique(), "unique"),
        (lambda x: torch.linalg.eigh(torch.outer(x, x)), "eigh"),
        (lambda x: x[torch.tensor([0])], "index to device"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
    ],
)
def test_the_host_waits(gpu, act, kind):
    x = ones(3)
    gpu.ledger.forget_counts()
    act(x)
    assert waits(gpu) == {kind: 1}


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x * 2 + x.sum(),
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.masked_fill_(x > 0, 1.0),
        lambda x: x.sort(),
        lambda x: x[torch.zeros(2, dtype=torch.long, device="cuda")],
        lambda x: x.new_zeros(3).fill_(2),
        lambda x: torch.randn(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1)),
        lambda x: (x.requires_grad_() * 2).sum().backward(),
    ],
)
def test_the_host_does_not_wait(gpu, act):
    x = ones(3)
    gpu.ledger.forget_counts()
    act(x)
    assert waits(gpu) == {}


def test_kernels_and_float64_are_counted(gpu):
    x = ones(2, 3)
    gpu.ledger.forget_counts()
    y = x.view(6)[1:] * 2
    assert (gpu.ledger.kernels, gpu.ledger.doubles.total()) == (1, 0)
    y.double().exp()
    assert (gpu.ledger.kernels, gpu.ledger.doubles.total()) == (3, 2)


def test_memory_is_that_of_what_is_held(gpu):
    assert gpu.ledger.alive == 0
    x = ones(100)
    view, other = x[50:], ones(10, dtype=float64)
    assert gpu.ledger.alive == 480
    del x
    assert gpu.ledger.alive == 480  # the view holds it
    del view
    assert (gpu.ledger.alive, gpu.ledger.peak) == (80, 480)
    weight = ones(5).requires_grad_()
    loss = (weight * other[:5].float()).sum()
    loss.backward()
    del loss
    assert gpu.ledger.alive == 80 + 20 + 20  # the weight and its gradient
    assert torch.cuda.memory_allocated() == 120 and torch.cuda.max_memory_allocated() == 480


def test_a_cycle_is_left_and_found(gpu):
    def cycle():
        rows = [ones(25)]
        rows.append(rows)

    with pytest.raises(MemoryLeftError, match="100 bytes are left"):
        leaving_nothing(gpu.ledger, cycle)
    assert leaving_nothing(gpu.ledger, lambda: ones(25).sum().item()) == 25


def test_memory_can_run_out(gpu):
    held = ones(100)
    gpu.ledger.limit = 800
    with pytest.raises(torch.OutOfMemoryError):
        ones(101)
    del held
    ones(101)


def test_a_device_that_broke_down_does_nothing_more(gpu):
    x = ones(2)
    gpu.break_down()
    for act in (lambda: x + 1, lambda: ones(1), x.cpu, lambda: torch.ones(1).to("cuda"), lambda: x[0].item()):
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            act()
    assert torch.ones(2).sum() == 2


@pytest.mark.parametrize(
    "compute, given, made",
    [
        (lambda x: x @ x, float32, bf16),
        (lambda x: functional.linear(x, x), float32, bf16),
        (lambda x: functional.conv2d(x[None, None], x[None, None]), float32, bf16),
        (lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None]), float32, bf16),
        (lambda x: x @ x, float64, float64),  # never cast
        (lambda x: x + x, float32, float32),
        (lambda x: x + x, bf16, bf16),
        (lambda x: x.exp(), bf16, float32),
        (lambda x: functional.layer_norm(x, [2]), bf16, float32),
        (lambda x: functional.cross_entropy(x, torch.zeros(2, dtype=torch.long, device="cuda")), bf16, float32),
        (lambda x: x.softmax(1), bf16, float32),
        (lambda x: x.sum(), bf16, float32),
        (lambda x: x.sum(dtype=bf16), bf16, bf16),
        (lambda x: functional.relu(x), bf16, bf16),
        (lambda x: torch.addcmul(x, x.float(), x), bf16, float32),  # widest of its arguments
    ],
)
def test_autocast_goes_by_the_rules_of_cuda(gpu, compute, given, made):
    x = ones(2, 2, dtype=given)
    with torch.autocast("cuda", dtype=bf16):
        assert compute(x).dtype == made
        with torch.autocast("cuda", enabled=False):
            assert compute(x).dtype == (x.dtype if made != float32 or given == float32 else compute(x).dtype)
    assert (x @ x).dtype == given


def test_autocast_holds_in_transformed_functions(gpu):
    weight, x = ones(2, 2).requires_grad_(), ones(3, 2)
    seen = []

    def loss(w, row):
        seen.append((row @ w).dtype)
        return (row @ w).float().sum()

    with torch.autocast("cuda", dtype=bf16):
        grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x)
    assert seen == [bf16] and grads.dtype == float32 and grads.shape == (3, 2, 2)


def test_weights_are_cast_once_in_an_autocast(gpu):
    net, x = nn.Linear(4, 4, bias=False).to("cuda"), ones(1, 4)
    for calls, kernels in ((1, 3), (2, 5)):  # weight and input cast, product; then the input again, and a product
        gpu.ledger.forget_counts()
        with torch.autocast("cuda", dtype=bf16):
            for _ in range(calls):
                net(x)
        assert gpu.ledger.kernels == kernels


def test_gradients_are_those_of_the_cpu(gpu):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(5, 4)
    there = copy.deepcopy(net).to("cuda")
    for model, rows in ((net, x), (there, x.to("cuda"))):
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(rows).square().sum().backward()
            optimizer.step()
    for mine, theirs in zip(net.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(theirs.cpu(), mine)


def test_it_leaves_torch_as_it_was(gpu):
    assert torch.cuda.is_available()
    gpu.close()
    assert torch.Generator is torch._C.Generator and torch.autocast is torch.amp.autocast_mode.autocast
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(1).to("cuda")
