"""Defects found in published code of unlearning methods, by number; none of them here. Others are tested elsewhere."""

import copy
import hashlib
import itertools
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.contracts.methods import TINY, WITH_BATCH_NORM_ONLY, build
from tests.contracts.tiny import DATA, FORGET, RETAIN, model, run, same_parameters, same_state, task, weights
from tests.core.unlearners.parts import layers_of
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import Streams
from unlearn_core.training import batches
from unlearn_core.unlearners import UNSC, CFk, EUk, Retrain, RetrainAtBudget, SalUn, settings

NET = "convnet"  # with BatchNorm and kernels
TRAINED = [name for name in UNLEARNERS.names() if "epochs" in TINY[name] or name.startswith("retrain")]
every_method = pytest.mark.parametrize("name", UNLEARNERS.names())


def digest(net):
    """Hash of parameters and buffers."""
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in net.state_dict().values())).hexdigest()


def updates_of(name, net):
    """The method's updates, those of a full retraining at most."""
    shares = iter(itertools.count())
    given = task(net, progress=lambda: min(1.0, next(shares) / 6))
    return itertools.islice(build(name).updates(given), 7 if name == "retrain_at_budget" else None)


@every_method
def test_defect_01_a_method_trains_its_student_and_never_its_teacher(name, monkeypatch):
    """An optimiser built on the teacher moved nothing but the student's running statistics."""
    copies = []

    def watched(value):
        copies.append(copy.deepcopy(value))
        return copies[-1]

    module = sys.modules[UNLEARNERS.get(name).__module__]
    for used in {module, *(sys.modules[base.__module__] for base in UNLEARNERS.get(name).__mro__[:-1])}:
        if hasattr(used, "copy"):
            monkeypatch.setattr(used, "copy", SimpleNamespace(deepcopy=watched))
    net = model(NET)
    updates = updates_of(name, net)
    next(updates)
    teachers = [
        c for c in copies if isinstance(c, torch.nn.Module) and not any(p.requires_grad for p in c.parameters())
    ]
    before = [digest(teacher) for teacher in teachers]
    for _ in updates:
        pass
    assert [digest(teacher) for teacher in teachers] == before
    assert teachers or name not in ("scrub", "scrub_r", "bad_teacher", "npo")
    assert same_parameters(net, model(NET)) == (name in WITH_BATCH_NORM_ONLY), "declared to change no parameter, or not"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_defect_10_nothing_leaks_through_the_mask(optimizer):
    """Where gradients alone are masked, momentum and weight decay still move what is outside."""
    method = SalUn(lr=0.05, epochs=2, batch_size=16, share=0.3, momentum=0.9, weight_decay=0.1, optimizer=optimizer)
    moved = weights(run(method, model(NET)).final) != weights(model(NET))
    assert moved.sum() <= math.floor(0.3 * len(moved))
    assert moved.any()


def test_defect_11_the_last_blocks_are_drawn_anew_and_trained():
    """A head that was re-initialised but frozen, or neither."""
    begun = model(NET)
    next(EUk(k=1).updates(task(begun)))
    assert not any(
        torch.equal(p, q) for p, q in zip(begun.head.parameters(), model(NET).head.parameters(), strict=True)
    )
    end = run(EUk(k=1, epochs=1), model(NET)).final
    assert not any(torch.equal(p, q) for p, q in zip(end.head.parameters(), begun.head.parameters(), strict=True))


@pytest.mark.parametrize("method", [EUk, CFk])
def test_defect_11_the_schedule_starts_from_the_methods_own_step_size(method, monkeypatch):
    """A helper shared with SCRUB took SCRUB's step size after the first decay."""
    seen, real = [], settings.build_optimizer

    def watched(*args, **rest):
        optimizer = real(*args, **rest)
        optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(settings, "build_optimizer", watched)
    run(method(lr=0.07, epochs=3, batch_size=16, schedule="linear"), model(NET))
    assert seen == pytest.approx([0.07 * (1 - step / 9) for step in range(9)])


def test_defect_13_a_basis_is_of_all_classes_and_of_its_own_run():
    """Bases appended class by class but looked up by seed: seed i used that of the classes 0 .. i, of another model."""
    method = UNSC(lr=0.1, epochs=5, batch_size=4, gamma=1.0, rows_per_class=3)
    alone = [run(method, model("linear", seed=s), seed=s).final for s in (0, 1, 2)]
    again = [run(method, model("linear", seed=s), seed=s).final for s in (2, 1, 0)][::-1]
    assert all(same_state(a, b) for a, b in zip(alone, again, strict=True))
    for seed, end in enumerate(alone):
        order = torch.randperm(len(RETAIN), generator=Streams(seed, torch.device("cpu"))("sample"))
        (before,), (after,) = layers_of(model("linear", seed=seed)), layers_of(end)
        for label in range(4):
            rows = RETAIN.inputs[order[RETAIN.targets[order] == label][:3]].flatten(1)
            assert ((after.weight - before.weight) @ rows.T).abs().max() < 1e-4, (seed, label)
        assert not same_state(end, model("linear", seed=seed))


def rows_read(name):
    """The batches that the first layer reads, as positions in DATA by phase and set; one seen twice in a row is one."""
    position = {v: ("retain", i) for i, v in enumerate(RETAIN.inputs[:, 0, 0, 0].tolist())}
    position |= {v: ("forget", i) for i, v in enumerate(FORGET.inputs[:, 0, 0, 0].tolist())}
    net, read, phase = model(NET), {}, ""

    def note(_, args):
        found = [position[v] for v in args[0][:, 0, 0, 0].tolist()]
        for part in ("retain", "forget"):
            batch = [row for which, row in found if which == part]
            seen = read.setdefault((phase, part), [])
            if batch and (not seen or seen[-1] != batch):
                seen.append(batch)

    next(net.children()).register_forward_pre_hook(note)
    for update in updates_of(name, net):
        phase = update.phase
    return {key: [row for batch in seen for row in batch] for key, seen in read.items() if seen}


@pytest.mark.parametrize("name", TRAINED)
def test_defect_16_rows_are_shuffled_anew_in_every_epoch(name):
    repeated = 0
    for (phase, _), rows in rows_read(name).items():
        size = len(set(rows))
        if len(rows) >= 2 * size and phase != "error":  # measured, not trained on
            first, second = rows[:size], rows[size : 2 * size]
            assert sorted(first) == sorted(second) == sorted(set(rows)), "an epoch reads each row once"
            assert first != sorted(first)
            assert second not in (first, sorted(first))
            repeated += 1
    assert repeated


def test_defect_16_batches_are_shuffled():
    epochs = [
        torch.cat([y for _, y in batches(DATA.retain, 8, Streams(0, torch.device("cpu")), "retain", epochs=[e])])
        for e in (0, 1)
    ]
    assert not torch.equal(*epochs)
    assert not any(torch.equal(epoch, RETAIN.targets) for epoch in epochs)


@pytest.mark.parametrize("method", [Retrain(), RetrainAtBudget(), EUk(k=99)], ids=lambda m: type(m).__name__)
def test_defect_17_retraining_starts_from_weights_of_its_own(method):
    """A reset of the direct children alone drew 0.05 % of the weights anew."""
    start = model(NET)
    next(method.updates(task(start)))
    pairs = list(zip(start.parameters(), model(NET).parameters(), strict=True))
    assert not any(torch.equal(p, q) for p, q in pairs)
    fresh, old = (torch.cat([pair[i].detach().flatten() for pair in pairs if pair[0].dim() > 1]) for i in (0, 1))
    assert abs(torch.cosine_similarity(fresh, old, dim=0)) < 5 / len(fresh) ** 0.5


def test_defect_18_running_statistics_of_new_blocks_start_anew():
    start = model(NET)
    next(EUk(k=2).updates(task(start)))
    kept, fresh = (
        next(m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)) for block in (start[1], start[2])
    )
    assert fresh.running_mean.eq(0).all() and fresh.running_var.eq(1).all() and fresh.num_batches_tracked == 0
    assert not kept.running_mean.eq(0).any()
