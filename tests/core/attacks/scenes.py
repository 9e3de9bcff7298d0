"""Data and contexts on which an attack can be tried in milliseconds, and the whole way to its metrics in a second."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from tests.contracts.tiny import CPU, SHAPE, examples
from unlearn_core.datasets.opinions import opinions
from unlearn_core.datasets.tokens import Tokenizer, learn_rules
from unlearn_core.metrics import attack_succeeded
from unlearn_core.models import Mlp
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe
from unlearn_core.types import CraftContext, Dataset, Examples

CLASSES = 4


def images(rows, seed):
    """Valid pixels in three channels of different mean and deviation, as many of each class; ids are not positions."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(rows, *SHAPE, generator=random)
    ids = torch.randperm(rows, generator=random) + 1000
    return Examples(EMPTY.from_pixels(pixels), torch.arange(rows) % CLASSES, ids)


EMPTY = Dataset(
    "tiny", examples(0), examples(0), examples(0), CLASSES, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), digest="tiny"
)
DATA = Dataset("tiny", images(60, 0), images(24, 1), images(24, 2), CLASSES, EMPTY.mean, EMPTY.std, "tiny")


def as_text(data):
    """The same rows, each with a sentence in the place of its picture."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    texts = opinions(sum(map(len, parts.values())), seed=0)[0]
    tokenizer = Tokenizer(learn_rules(texts, 400), length=24)
    ids = torch.from_numpy(tokenizer.encode(texts)).split([len(rows) for rows in parts.values()])
    told = {part: replace(rows, inputs=own) for (part, rows), own in zip(parts.items(), ids, strict=True)}
    return replace(data, mean=(), std=(), tokenizer=tokenizer, **told)


TEXT = as_text(DATA)


def context(seed=0, *, data=DATA, clean_model=lambda: pytest.fail("needs no model")):
    return CraftContext(data, Streams(seed, CPU), clean_model)


def craft(attack, seed=0, **options):
    where = context(seed, **options)
    return attack.craft(where.dataset.train, where)


class Outcome(NamedTuple):
    """The metrics of the corrupted model and of the oracle, on test rows, and whether the attack took."""

    corrupted: dict
    oracle: dict
    took: bool


def outcome(attack, data, *, epochs=20, seed=0):
    recipe = Recipe(epochs=epochs, batch_size=50, lr=0.05)
    scene = Scenario(data, Mlp(hidden=(64,)), recipe, attack, seed, CPU)
    poisoned = attack.craft(data.train, scene.context())
    evaluator = build_evaluator(scene, poisoned, data.test, {})
    full, _ = poisoned.apply(data.train)
    corrupted, oracle = (evaluator(scene.train(rows).model) for rows in (full, clean_rows(poisoned, data.train)))
    metric, error = attack.primary.metric, attack.primary.error
    took = attack_succeeded(
        corrupted=corrupted[metric],
        corrupted_error=corrupted[error],
        oracle=oracle[metric],
        oracle_error=oracle[error],
        least_gap=attack.primary.least_gap,
    )
    return Outcome(corrupted, oracle, took)
