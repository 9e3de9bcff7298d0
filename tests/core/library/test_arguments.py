"""Wrong arguments are answered by one clear line before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import unlearn_core as uc
from tests.contracts.tiny import CLASSES, DATA, RECIPE, TEXT, model, same_state

RETAIN, FORGET = ((rows.inputs, rows.targets) for rows in DATA)
X, Y = RETAIN
HOLE = X.clone()
HOLE[3, 0, 0, 0] = float("nan")


def poisoned_model() -> nn.Module:
    net = model("mlp")
    with torch.no_grad():
        next(net.parameters())[0] = float("inf")
    return net


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x, x


class Unresettable(nn.Sequential):
    """The shapes fit, but its scale cannot be drawn anew."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, CLASSES))
        self.scale = nn.Parameter(torch.ones(CLASSES))

    def forward(self, x):
        return self.scale * super().forward(x)


class PairInTraining(nn.Sequential):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class Keeping(nn.Sequential):
    def forward(self, x):
        self.last = super().forward(x)
        return self.last


def linear(kind=nn.Sequential):
    return kind(nn.Flatten(), nn.Linear(192, CLASSES))


@torch.inference_mode()
def untrainable_model() -> nn.Module:
    return linear()


CASES = {
    "no model": ({"model": "resnet"}, r"model must be a torch.nn.Module, but got str"),
    "no parameters": ({"model": nn.Flatten()}, "model has no parameters"),
    "half": ({"model": model("mlp").half()}, r"model must be float32, but .* is float16; convert it with \.float\(\)"),
    "diverged": ({"model": poisoned_model()}, "model holds numbers that are not finite"),
    "two devices": ({"model": nn.Sequential(model("mlp"), nn.Linear(2, 2, device="meta"))}, "must be on one device"),
    "no logits": ({"model": Pair()}, r"must give logits \(n, classes\), but for 2 rows it gives tuple"),
    "few outputs": (
        {"model": nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES - 1))},
        r"retain labels go up to 3, but the model's 3 outputs end at class 2",
    ),
    "other shape": ({"model": nn.Linear(5, 2)}, r"the model cannot read retain inputs of shape \(2, 3, 8, 8\)"),
    "lazy": ({"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES))}, "no shape for 1.weight yet; call it once"),
    "made for inference": ({"model": untrainable_model()}, r"model was made inside torch.inference_mode\(\)"),
    "script": ({"model": torch.jit.script(linear())}, "model is compiled by torch.jit"),
    "keeps a pass": ({"model": Keeping(nn.Flatten(), nn.Linear(192, CLASSES))}, "SCRUB cannot be used with this model"),
    "a pair in training": (
        {"model": linear(PairInTraining), "method": uc.unlearners.SSD()}, "cannot be trained by reference: .*tuple"
    ),
    "no convolutions": ({"method": uc.unlearners.CT()}, "CT cannot be used with this model: ct needs"),
    "none for MSG": ({"method": uc.unlearners.MSG()}, "MSG cannot be used with this model: msg needs a"),
    **{
        f"no reset for {type(method).__name__}": (
            {"model": Unresettable(), "method": method}, "Unresettable holds parameters but has no reset_parameters"
        )
        for method in (uc.unlearners.Retrain(), uc.unlearners.EUk(k=5), uc.unlearners.BadTeacher())
    },
    "half an epoch": ({"method": uc.unlearners.SCRUB(epochs=1.5)}, "epochs must be a whole number, but got 1.5"),
    "true": ({"method": uc.unlearners.SCRUB(alpha=True)}, "alpha must be a number, but got True"),
    "not one tuple": ({"method": uc.unlearners.SCRUB(decay_epochs=1)}, "decay_epochs must be a tuple, but got 1"),
    "class": ({"method": uc.unlearners.SCRUB}, r"method SCRUB is a class; write SCRUB\(\)"),
    "name": ({"method": "neggrad_plus"}, r"method 'neggrad_plus' is a name; write unlearners\.NegGradPlus\(\)"),
    "no method": ({"method": 3}, "method 3 has no 'updates'"),
    "ten": ({"budgets": [10]}, "budgets are shares of the reference, but got 10; 0.1 means 10 %"),
    "zero": ({"budgets": [0, 0.1]}, "budgets must be numbers above 0, but got 0"),
    "negative": ({"budgets": [-0.1]}, "budgets must be numbers above 0"),
    "nan": ({"budgets": [float("nan")]}, "budgets must be numbers above 0, but got nan"),
    "word": ({"budgets": ["0.1"]}, "budgets must be numbers above 0, but got '0.1'"),
    "truth": ({"budgets": [True]}, "budgets must be numbers above 0, but got True"),
    "alone": ({"budgets": 0.1}, r"budgets must be a list of shares such as \[0.02, 0.1\], but got 0.1"),
    "none": ({"budgets": []}, "budgets must increase strictly and not be empty"),
    "falling": ({"budgets": [0.2, 0.1]}, "budgets must increase strictly"),
    "no reference": ({"reference": None}, "reference must be a Recipe or FLOPs as a number, but got None"),
    "no cost": ({"reference": 0}, "reference must be a positive number, but got 0"),
    "no recipe": (
        {"method": uc.unlearners.RetrainAtBudget(), "reference": 1e9},
        "RetrainAtBudget trains by a recipe, but reference is a number",
    ),
    "seed": ({"seed": -1}, "seed must be a whole number from 0"),
    "a true seed": ({"seed": True}, "seed must be a whole number from 0"),
    "half a seed": ({"seed": 0.5}, "seed must be a whole number from 0"),
    "needs forget": ({"method": uc.unlearners.SSD(), "forget": None}, r"SSD needs the forget set; give forget="),
    "needs labels": (
        {"method": uc.unlearners.GA(), "forget": (FORGET[0], None)}, "GA needs the labels of the forget set"
    ),
    "recipe needs retain": (
        {"method": uc.unlearners.GA(), "retain": None}, "reference is a recipe, whose cost is that of training on"
    ),
    "flat augmentation": (
        {"reference": uc.Recipe(augmentation="flip"), "retain": (X.flatten(1), Y), "forget": None,
         "method": uc.unlearners.GD()}, "augmentation 'flip' is for images"
    ),
    "no pair": ({"retain": X}, r"retain must be \(inputs, labels\), tensors or numpy arrays, but got Tensor"),
    "list": ({"retain": ([[1.0]], Y)}, "retain inputs must be a tensor or a numpy array, but got list"),
    "texts": ({"retain": (np.array(["a"] * len(X)), Y)}, "retain inputs must be numbers, but got an array of <U1"),
    "empty": ({"forget": (X[:0], Y[:0])}, "forget is empty; give at least one row"),
    "lengths": ({"retain": (X, Y[:-1])}, "retain has 41 inputs, but 40 labels"),
    "shapes": ({"forget": (X[:, :2], Y)}, r"differ in shape: \(3, 8, 8\) and \(2, 8, 8\)"),
    "one row": ({"retain": (torch.ones(8), torch.zeros(8).long())}, r"retain inputs must have the shape \(n, \*row\)"),
    "bytes": ({"retain": ((255 * X).to(torch.uint8), Y)}, "must be floats, scaled as in the model's training, but got"),
    "sparse": ({"retain": (X.to_sparse(), Y)}, r"retain inputs must be a dense tensor, .*; convert it with .to_dense"),
    "too large for float32": (
        {"retain": (X.double() * 1e300, Y)}, "retain inputs hold a number that is not finite in float32, first in row 0"
    ),
    "hole": ({"retain": (HOLE, Y)}, "retain inputs hold a number that is not finite in float32, first in row 3"),
    "one-hot": ({"retain": (X, torch.eye(CLASSES)[Y])}, r"of shape \(41, 4\); of one-hot rows take argmax\(1\)"),
    "float labels": ({"retain": (X, Y.float())}, r"retain labels must be \(n,\) class numbers, but got float32"),
    "negative label": ({"retain": (X, Y - 1)}, "retain labels must be class numbers from 0, but got -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named(case: str) -> None:
    changes, message = CASES[case]
    given = {"model": model("mlp"), "method": uc.unlearners.SCRUB(), "retain": RETAIN, "forget": FORGET,
             "budgets": [0.1], "reference": RECIPE, "seed": 0} | changes  # fmt: skip
    net, method = given.pop("model"), given.pop("method")
    with pytest.raises(uc.InputError, match=message) as raised:
        uc.unlearn(net, method, **given)
    assert "\n" not in str(raised.value)


def test_token_ids_are_for_models_with_embeddings() -> None:
    ids = TEXT.retain.inputs
    with pytest.raises(uc.InputError, match="must be floats"):
        uc.unlearn(model("mlp"), uc.unlearners.GD(), retain=(ids, Y), budgets=[0.1], reference=RECIPE)
    run = uc.unlearn(model("gpt2"), uc.unlearners.GD(batch_size=16), retain=(ids.int().numpy(), Y), budgets=[0.5],
                     reference=RECIPE)  # fmt: skip
    assert run.last.steps > 0


def test_token_ids_of_all_rows_are_in_range() -> None:
    ids = TEXT.retain.inputs.clone()
    ids[20, 0] = 10**6
    with pytest.raises(uc.InputError, match="the model cannot read forget inputs of shape .*: IndexError"):
        uc.unlearn(nn.Sequential(nn.Embedding(300, 4), nn.Flatten(), nn.Linear(4 * ids.shape[1], CLASSES)),
                   uc.unlearners.GD(), retain=(TEXT.retain.inputs.clamp(0), Y), forget=(ids.clamp(0), Y),
                   budgets=[0.1], reference=RECIPE)  # fmt: skip


@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble, "<f2"])
def test_numbers_of_any_length_and_byte_order_are_read(kind) -> None:
    like, numbers = (X.half(), Y), (X.half().numpy().astype(kind), Y.numpy().astype(">i4"))
    runs = [uc.unlearn(model("mlp"), uc.unlearners.GD(epochs=1), retain=rows, budgets=[0.9], reference=RECIPE)
            for rows in (like, numbers)]  # fmt: skip
    assert same_state(runs[0].last.model, runs[1].last.model)


def test_a_seed_may_be_of_numpy() -> None:
    runs = [uc.unlearn(model("mlp"), uc.unlearners.GD(epochs=1), retain=RETAIN, budgets=[0.9], reference=RECIPE,
                       seed=seed) for seed in (3, np.int64(3))]  # fmt: skip
    assert same_state(runs[0].last.model, runs[1].last.model)


def test_inference_mode_is_refused_at_the_call_and_later() -> None:
    with torch.inference_mode(), pytest.raises(uc.InputError, match="call it outside"):
        uc.unlearn(model("mlp"), uc.unlearners.GD(), retain=RETAIN, budgets=[0.1], reference=RECIPE)
    with torch.inference_mode():
        rows = (X.clone(), Y.clone())
    run = uc.unlearn(model("mlp"), uc.unlearners.GD(), retain=rows, budgets=[0.1], reference=RECIPE)
    with torch.inference_mode(), pytest.raises(uc.InputError, match="call it outside"):
        _ = run.last
    assert run.last.status


@pytest.mark.parametrize("make, message", [
    (lambda: uc.Recipe(batch_size=1.5), "batch_size must be a whole number, but got 1.5"),
    (lambda: uc.Recipe(epochs=1.5), "epochs must be a whole number, but got 1.5"),
    (lambda: uc.Recipe(epochs=True), "epochs must be a whole number, but got True"),
    (lambda: uc.Recipe(epochs=(1, 2)), r"epochs must be a whole number, but got \(1, 2\)"),
    (lambda: uc.Recipe(lr="0.1"), "lr must be a number, but got '0.1'"),
    (lambda: uc.Recipe(nesterov=1), "nesterov must be True or False, but got 1"),
    (lambda: uc.Recipe(milestones=("a",)), "milestones must be a number, but got 'a'"),
    (lambda: uc.unlearners.SCRUB(alpha="x"), "alpha must be zero or a positive number, but got 'x'"),
    (lambda: uc.unlearners.SCRUB(epochs="3"), "epochs must lie in .*, but got '3'"),
])  # fmt: skip
def test_settings_of_another_kind_are_refused_where_they_are_made(make, message: str) -> None:
    with pytest.raises(uc.InputError, match=message):
        make()
