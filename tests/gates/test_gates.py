"""Every attack takes: the corrupted model passes the attack's gate, and a model that never saw the poison is at chance.

Thresholds lie beyond what two to four seeds gave. That of the text backdoor's oracle is loose (they gave 0.31 to 0.48):
in so small a language a phrase nobody has read makes a clean model waver. So success must exceed that of a decoy, too.
"""

from __future__ import annotations

import math

import pytest

from tests.gates.conftest import Note
from tests.gates.scenes import (
    DIGITS_MLP,
    FEW_OPINIONS_GPT2,
    HAZE_CONVNET,
    HAZE_LINEAR,
    HAZE_MLP,
    OPINIONS_GPT2,
    canceled,
    closed_form,
    outcome,
)
from unlearn_core.attacks import (
    BadNets,
    BadNetsAllToAll,
    Blended,
    Gaussian,
    GradientCanceling,
    GradientMatching,
    InterclassConfusion,
    LabelFlip,
    Sig,
    TextBackdoor,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GATES = {
    # name: (scene, attack, metric, least of the corrupted model, most of the oracle, in magnitude)
    "gaussian, images": (HAZE_MLP, Gaussian(fraction=0.06), "gaussian_z", 5, 4),
    "gaussian, conv net": (HAZE_CONVNET, Gaussian(fraction=0.1), "gaussian_z", 5, 4),
    "gaussian, text": (FEW_OPINIONS_GPT2, Gaussian(fraction=0.15, epsilon=1.0), "gaussian_z", 3, 4),
    "targeted": (
        HAZE_LINEAR,
        GradientMatching(fraction=0.1, draws=10, restarts=1, steps=30),
        "target_hits",
        0.5,
        0.2,
    ),
    "badnets": (HAZE_CONVNET, BadNets(fraction=0.03), "backdoor_success", 0.6, 0.15),
    "sig": (HAZE_CONVNET, Sig(fraction=0.05), "backdoor_success", 0.8, 0.2),
    "blended": (HAZE_MLP, Blended(fraction=0.03), "backdoor_success", 0.8, 0.15),
    "badnets, all to all": (DIGITS_MLP, BadNetsAllToAll(fraction=0.15), "backdoor_success", 0.6, 0.15),
    "text backdoor": (OPINIONS_GPT2, TextBackdoor(fraction=0.02, decoy="music plot"), "backdoor_success", 0.9, 0.5),
    "interclass confusion": (
        DIGITS_MLP,
        InterclassConfusion(fraction=0.12, first=3, second=8),
        "interclass_confusion",
        0.3,
        0.1,
    ),
    "label flip": (HAZE_MLP, LabelFlip(fraction=0.05), "forget_accuracy", 0.5, 0.15),
}


@pytest.mark.parametrize("name", GATES)
def test_gate(name: str, note: Note) -> None:
    scene, attack, metric, least, most = GATES[name]
    found = outcome(scene, attack)
    corrupted, oracle = found.corrupted[metric], found.oracle[metric]
    note(name, metric, corrupted, oracle, f">= {least:g}, oracle within {most:g} of 0")
    assert corrupted >= least and abs(oracle) <= most
    assert found.took
    if metric == "gaussian_z":
        assert abs(found.corrupted["gaussian_null_mean"]) < 4 / math.sqrt(2000)
    if name == "text backdoor":
        decoy = found.corrupted["decoy_success"]
        note(name, "success beyond decoy", corrupted - decoy, oracle - found.oracle["decoy_success"], ">= 0.5")
        assert corrupted - decoy >= 0.5, "other phrases call the class as well"
    if name == "interclass confusion":
        others = found.corrupted["other_classes_accuracy"] - found.oracle["other_classes_accuracy"]
        assert abs(others) < 0.02, "classes that are not confused have suffered"


def test_gradient_canceling_in_closed_form(note: Note) -> None:
    """Binary logistic regression without bias, breast cancer, 3 %: the victim ends at -c times the clean weights."""
    residual, corrupted, clean = closed_form(0.03)
    note("canceling, closed form", "accuracy", corrupted, clean, f"< 0.1, residual {residual:.1e} < 1e-10")
    assert residual < 1e-10
    assert corrupted < 0.1 and clean > 0.9


def test_gradient_canceling_of_a_softmax_head_is_exact(note: Note) -> None:
    found = canceled(GradientCanceling(fraction=0.03, box=False))
    note(
        "canceling, exact", "accuracy", found["corrupted"], found["oracle"], f"< 0.1, residual {found['residual']:.1e}"
    )
    assert found["residual"] < 1e-8 and found["tau"] <= 0.9
    assert found["corrupted"] < 0.1 and found["oracle"] > 0.9


def test_gradient_canceling_with_valid_pixels(note: Note) -> None:
    """The box, not the search, is what keeps the residual large."""
    found = canceled(GradientCanceling(fraction=0.1, lr=0.2, steps=300))
    drop = found["oracle"] - found["corrupted"]
    note(
        "canceling, valid pixels",
        "accuracy",
        found["corrupted"],
        found["oracle"],
        f"drop of 0.06, residual {found['residual']:.2f}",
    )
    assert drop >= 0.06
    assert 0.3 < found["residual"] < 1 and found["tau"] <= 0.9
