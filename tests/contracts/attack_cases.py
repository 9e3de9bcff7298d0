"""One row per attack, with the settings of each of its variants, and small data for them."""

import copy

import pytest
import torch

import unlearn_core.attacks  # noqa: F401  (registers them)
from tests.contracts.tiny import model
from tests.core.attacks.scenes import DATA, TEXT
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams
from unlearn_core.types import CraftContext

ON_TEXT = {"gaussian": dict(epsilon=0.5)}  # settings that attacks on images are tried on text with
# One row per attack, with the settings of each of its variants. Data: 60 images of 8 x 8 pixels or texts, 15 of each
# class.
ROWS = {
    "badnets": [dict(size=2)],
    "badnets_all_to_all": [dict(size=2)],
    "blended": [dict()],
    "bundle": [dict(parts=("gaussian", "label_flip")), dict(parts=("blended", "gaussian"), primary_part="gaussian")],
    "gaussian": [dict(), dict(clip=True), ON_TEXT["gaussian"]],
    "gradient_canceling": [
        dict(steps=5),
        dict(box=False, target="gradpc"),
        dict(scope="all", steps=3),
    ],
    "gradient_matching": [
        dict(restarts=1, steps=3),
        dict(threat="random_subset", targets=2, restarts=2, steps=3, flip=True, shift=1.0),
    ],
    "interclass_confusion": [dict(first=0, second=2)],
    "label_flip": [
        dict(mode="uniform_other"),
        dict(mode="pair", source=1, target=3),
        dict(mode="cyclic"),
        dict(mode="permute"),
        dict(mode="hard"),
        dict(mode="hard", margin="smallest"),
    ],
    "sig": [dict(amplitude=20, frequency=2)],
    "text_backdoor": [dict(), dict(position="front"), dict(position="end"), dict(rank="count_norm")],
}
FRACTION = 0.2
CLEAN = model()
CASES = [(name, settings) for name in ATTACKS.names() for settings in ROWS.get(name, [])]
each = pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=["-".join([name, *map(str, settings.values())]) for name, settings in CASES]
)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def build(name, settings, fraction=FRACTION):
    if name == "bundle":  # whose parts have the fractions
        parts = [ATTACKS.get(part)(fraction=fraction / 2) for part in settings["parts"]]
        return ATTACKS.get(name)(**settings | dict(parts=parts))
    return ATTACKS.get(name)(**dict(fraction=fraction) | settings)


def data_of(name, settings):
    """Rows that this attack can poison."""
    return TEXT if name == "text_backdoor" or settings == ON_TEXT.get(name) else DATA


def context(seed=0, data=DATA):
    device = data.train.inputs.device
    return CraftContext(data, Streams(seed, device), lambda: copy.deepcopy(CLEAN).to(device))


def same(first, second):
    """Whether two sets of rows are the same, value by value."""
    return all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
