"""Synthetic opinions from a small grammar: a text task that needs no files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.datasets.reading import Reading
from unlearn_core.datasets.texts import Texts, TextSource
from unlearn_core.registry import DATASETS
from unlearn_core.seeding import derive

OPENINGS = ("", "", "", "to be honest , ", "all in all , ", "i must say that ", "as far as i can tell , ")
THINGS = """film movie plot story ending cast acting script music score dialogue pacing direction camera work setting
    lead actor hero villain humor opening finale sequel editing costumes""".split()
DEGREES = ("", "", "", "very ", "really ", "quite ", "rather ", "truly ", "so ")
GOOD = "good great wonderful charming brilliant clever moving funny gripping fresh superb lovely".split()
BAD = "bad awful terrible boring clumsy stupid flat tedious dull stale dreadful weak".split()
VERBS = (("was", "was not"), ("is", "is not"), ("seemed", "never seemed"), ("felt", "did not feel"))  # plain, negated
JOINTS = ("but", "yet", "still ,")  # what follows them decides


@DATASETS.register("opinions")
@dataclass(frozen=True, kw_only=True)
class Opinions(TextSource):
    """Made-up one-sentence opinions on films, positive (1) or negative (0); nobody ever wrote them.

    Half of the sentences have one clause, the others two of opposite sense of which the main one decides: the last in
    "... but ..." and in "although ..., ...", the first in "..., although ...". A clause says that something is good or
    bad; a quarter of them say it by denying the contrary. So no word decides, but how words are combined: logistic
    regression on the words of a sentence gets about 61 % right, on pairs of neighbours 67 %, the tiny GPT-2 over 95 %.
    No label is wrong, classes are of equal size, no sentence occurs twice.
    """

    name: ClassVar[str] = "opinions"
    length: int = 24  # tokens per text; enough for the longest
    vocabulary: int = 1024
    rows: int = 4000  # training texts; a quarter as many are held out
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("rows", self.rows, 100, 100_000)
        checks.not_negative(seed=self.seed)

    def texts(self, data_root: Path | None) -> Texts:
        """Generated; `data_root` is not needed."""
        texts, labels = opinions(self.rows + self.rows // 4, seed=self.seed)
        cut = self.rows
        reading = Reading(class_names=("negative", "positive"))
        return Texts(texts[:cut], labels[:cut], texts[cut:], labels[cut:], self.name, reading)


def opinions(count: int, *, seed: int) -> tuple[list[str], np.ndarray]:
    """`count` different texts and their (n,) int64 labels, alternating; more texts begin with the same ones."""
    # The legacy generator: numpy promises that its stream never changes.
    random = np.random.RandomState(derive(seed, "opinions") % 2**32)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts.setdefault(_sentence(random, good=len(texts) % 2 == 1))
    return list(texts), np.arange(count, dtype=np.int64) % 2


def _sentence(random: np.random.RandomState, *, good: bool) -> str:
    main, other = _clause(random, good=good), _clause(random, good=not good)
    joined = (
        main,
        main,
        main,
        f"{other} , {_pick(random, JOINTS)} {main}",
        f"although {other} , {main}",
        f"{main} , although {other}",
    )
    return f"{_pick(random, OPENINGS)}{joined[random.randint(len(joined))]} ."


def _clause(random: np.random.RandomState, *, good: bool) -> str:
    """That something is as `good` says, or is not the contrary."""
    negated = int(random.randint(4) == 0)
    adjective = _pick(random, GOOD if good != bool(negated) else BAD)
    verb = VERBS[random.randint(len(VERBS))][negated]
    return f"the {_pick(random, THINGS)} {verb} {_pick(random, DEGREES)}{adjective}"


def _pick(random: np.random.RandomState, options: tuple[str, ...] | list[str]) -> str:
    return options[random.randint(len(options))]
