"""SCRUB+R: what it holds out, which epoch it goes back to, and what that costs."""

import math
from dataclasses import replace

import pytest
import torch

from tests.contracts.tiny import CLASSES, CPU, FORGET, MODELS, RETAIN, examples, model, run, same_state, task
from unlearn_core.checks import InputError
from unlearn_core.scenarios.scenario import Split
from unlearn_core.seeding import Streams
from unlearn_core.types import Examples
from unlearn_core.unlearners import SCRUB, SCRUBR
from unlearn_core.unlearners.scrub_r import label_weights, nearest, split_held_out

SETTINGS = dict(lr=0.1, epochs=6, batch_size=16, forget_batch_size=3, max_epochs=4, order="min_first", momentum=0.0)
MANY = Split(examples(120, seed=5), examples(30, seed=6))


def held_out(data, share, seed=0):
    """The two parts of the retain set."""
    unseen, trained = split_held_out(task(model(), data, seed=seed), share)
    return unseen, data.retain.rows(trained)


def error(net, rows):
    """Mistakes as a share of the rows, one row at a time."""
    net.eval()
    return sum(int(net(x[None])[0].argmax() != y) for x, y in zip(rows.inputs, rows.targets, strict=True)) / len(rows)


def reference_error(net, unseen, forget):
    """Error on unseen rows, label by label, in the proportions of the forget set."""
    total = 0.0
    for label in forget.targets.tolist():
        total += error(net, unseen.rows(unseen.targets == label)) / len(forget)
    return total


def slow_choice(corrupted, data, epochs, seed):
    """Train all epochs anew, keep each end, and look for the nearest: the chosen model, all errors, the reference."""
    unseen, trained = held_out(data, 0.3, seed)
    kept = [
        run(SCRUB(**SETTINGS | dict(epochs=e)), corrupted, Split(trained, data.forget), seed=seed).final
        for e in range(1, epochs + 1)
    ]
    errors, wanted = [error(net, data.forget) for net in kept], reference_error(kept[-1], unseen, data.forget)
    gaps = [abs(e - wanted) for e in errors]
    return kept[max(i for i, gap in enumerate(gaps) if gap == pytest.approx(min(gaps)))], errors


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_it_is_the_epoch_that_a_slow_search_chooses(net):
    rewound = 0
    for seed in range(3):
        chosen, errors = slow_choice(model(net), MANY, 6, seed)
        end = run(SCRUBR(**SETTINGS, held_out_share=0.3), model(net), MANY, seed=seed).final
        assert same_state(end, chosen)
        last = run(SCRUB(**SETTINGS), model(net), Split(held_out(MANY, 0.3, seed)[1], MANY.forget), seed=seed).final
        rewound += not same_state(end, last)
        assert len(set(errors)) > 1
    assert rewound, "every run ended with its last epoch: this test shows nothing"


@pytest.mark.parametrize("net", MODELS)
def test_one_epoch_is_scrub_on_the_other_retain_rows(net):
    settings = SETTINGS | dict(epochs=1)
    end = run(SCRUBR(**settings, held_out_share=0.3), model(net), MANY).final
    assert same_state(end, run(SCRUB(**settings), model(net), Split(held_out(MANY, 0.3)[1], MANY.forget)).final)


def test_held_out_rows_have_the_labels_of_the_forget_set_and_are_never_trained_on():
    data = Split(MANY.retain, MANY.forget.rows(MANY.forget.targets < 2))
    unseen, trained = held_out(data, 0.25)
    assert torch.equal(torch.cat([unseen.ids, trained.ids]).sort().values, data.retain.ids)
    assert set(unseen.targets.tolist()) == {0, 1}
    for label in (0, 1):
        assert unseen.targets.eq(label).sum() == round(0.25 * int(data.retain.targets.eq(label).sum()))
    other = replace(data.retain, inputs=data.retain.inputs.clone())
    other.inputs[unseen.ids] = 0
    students = []
    for retain in (data.retain, other):
        method = SCRUBR(**SETTINGS | dict(epochs=1), held_out_share=0.25)
        students.append(run(method, data=Split(retain, data.forget)).final)
    assert same_state(*students)
    assert not torch.equal(unseen.ids, held_out(data, 0.25, seed=1)[0].ids)


def test_one_row_of_each_label_at_least():
    assert torch.bincount(held_out(MANY, 0.0)[0].targets).tolist() == [1] * CLASSES


def test_weights_give_held_out_rows_the_labels_of_the_forget_set():
    weights = label_weights(torch.tensor([0, 0, 2, 3]), torch.tensor([0, 2, 2, 2, 1]))
    assert weights.tolist() == pytest.approx([1 / 8, 1 / 8, 3 / 4, 0])


@pytest.mark.parametrize(
    ("errors", "reference", "chosen"),
    [
        ([0.1, 0.5, 0.9], 0.55, 1),
        ([0.0, 0.5, 1.0], 0.75, 2),  # of two equally near the last
        ([0.2, 0.2, 0.2], 0.9, 2),
        ([0.9, 0.1, 0.4], 1.0, 0),
        ([0.1, 0.5], math.nan, 1),
        ([0.1, math.nan], 0.1, 1),
        ([math.nan, 0.5, 0.9], 0.1, 1),
    ],
)
def test_nearest(errors, reference, chosen):
    assert nearest(errors, reference) == chosen


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_a_run_stopped_at_any_budget_holds_the_rewound_model_of_its_finished_epochs(net):
    ends = [run(SCRUBR(**SETTINGS | dict(epochs=e), held_out_share=0.3), model(net), MANY) for e in range(1, 7)]
    costs = [end.rungs[0].flops for end in ends]
    assert costs == sorted(set(costs))
    for epochs in (0, 1, 4):
        before = costs[epochs - 1] if epochs else 0
        middle = before + 0.9 * (costs[epochs] - before)
        stopped = run(SCRUBR(**SETTINGS, held_out_share=0.3), model(net), MANY, budgets=[middle]).final
        assert same_state(stopped, ends[epochs - 1].final if epochs else model(net))


def test_errors_are_charged_after_every_epoch():
    """6 epochs of 4/3 training passes; then a forward pass of all forget and held-out rows."""
    unseen, trained = held_out(MANY, 0.3)
    plain = run(SCRUB(**SETTINGS), data=Split(trained, MANY.forget)).rungs[0]
    rewinding = run(SCRUBR(**SETTINGS, held_out_share=0.3), data=MANY).rungs[0]
    forward = 2 * (192 * 6 + 6 * 4)
    assert rewinding.flops - plain.flops == 6 * (len(MANY.forget) + len(unseen)) * forward


def test_the_errors_are_announced_and_depend_on_the_labels_of_the_forget_set():
    shown = [update.phase for update in SCRUBR(**SETTINGS).updates(task(model(), MANY))]
    assert shown.count("error") == 6 * sum(-(-rows // 16) for rows in (len(MANY.forget), len(held_out(MANY, 0.1)[0])))
    relabelled = Split(MANY.retain, replace(MANY.forget, targets=(MANY.forget.targets + 1) % CLASSES))
    assert not same_state(*(run(SCRUBR(**SETTINGS), data=data).final for data in (MANY, relabelled)))


@pytest.mark.parametrize("labels", [[0], [0, 1, 2, 3]])
def test_retain_rows_without_the_labels_of_the_forget_set_are_refused(labels):
    retain = RETAIN.rows(RETAIN.targets > 0) if labels == [0] else one_of_each()
    forget = Examples(FORGET.inputs, torch.arange(9) % len(labels), FORGET.ids)
    with pytest.raises(InputError, match="choose scrub"):
        split_held_out(replace(task(model()), retain=retain, forget=forget, rng=Streams(0, CPU)), 0.3)


def one_of_each():
    return Examples(RETAIN.inputs[:CLASSES], torch.arange(CLASSES), RETAIN.ids[:CLASSES])


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="held_out_share"):
        SCRUBR(held_out_share=1.0)
