"""The data card: what it counts, how it is written and read, and what equal rows are."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.cases.data_cases import Held, table
from unlearn_core.checks import InputError
from unlearn_core.datasets import BreastCancer, Digits, Features, Opinions, Raw, load_dataset
from unlearn_core.datasets.card import DataCard, SplitFacts, differences, printable
from unlearn_core.datasets.describing import describe
from unlearn_core.datasets.equal_rows import row_keys
from unlearn_core.datasets.parts import SPLITS, Part
from unlearn_core.datasets.reading import Note, Reading


def card_of(raw: Raw, **rows: int) -> DataCard:
    card = load_dataset(Held(raw), data_root=None, **rows).card
    assert card is not None
    return card


def pictures(**reading: object) -> Raw:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    y = np.arange(30) % 3
    return Raw(x[:18], y[:18], x[18:], y[18:], 3, reading=Reading(**reading))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [Digits(size=8), BreastCancer(), Opinions(rows=1000)])
def test_the_embedded_data_sets_have_nothing_to_warn_of(source: object) -> None:
    card = load_dataset(source, data_root=None).card  # type: ignore[arg-type]
    assert card is not None
    assert not card.warnings
    assert not card.errors


def test_rows_per_split_and_class_with_names_in_order() -> None:
    card = card_of(pictures(class_names=("cat", "dog", "eel")), train_rows=9, held_out_rows=6)
    assert card.classes == ("cat", "dog", "eel")
    assert [(split.name, split.rows, split.per_class) for split in card.splits] == [
        ("train", 9, (3, 3, 3)), ("validation", 2, card.splits[1].per_class), ("test", 4, card.splits[2].per_class)
    ]  # fmt: skip
    assert [str(note) for note in card.facts] == [
        "9 training rows are not used: rows.train_rows asks for fewer",
        "6 held-out rows are not used: rows.held_out_rows asks for fewer",
    ]
    assert "0 'cat' 3/" in "\n".join(card.lines())


def test_what_the_reading_says_is_in_the_card() -> None:
    left_out = Note(text="files that are no images", count=2, examples=("a.txt", "b.txt"))
    coerced = Note(text="pictures of 16 bits", count=4)
    warned = Note(text="classes named after numbers", count=3)
    raw = pictures(used=("train", "test"), left_out=(left_out,), coerced=(coerced,), warnings=(warned,))
    card = card_of(raw)
    assert (card.used, card.left_out, card.coerced) == (("train", "test"), (left_out,), (coerced,))
    assert warned in card.warnings
    text = "\n".join(card.lines())
    assert "left out    2 files that are no images (a.txt, b.txt)" in text
    assert "changed     4 pictures of 16 bits" in text


def test_the_card_survives_json() -> None:
    raw = pictures(
        warnings=(Note(text="things", count=1, examples=("a",)),), columns=("x",), class_names=("a", "b", "c")
    )
    card = card_of(raw)
    as_dict = card.to_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert DataCard.from_dict(as_dict) == card


def test_a_thousand_classes_make_a_short_text_and_a_whole_dictionary() -> None:
    x, y = np.random.default_rng(0).normal(size=(4000, 3)), np.arange(4000) % 1000
    card = card_of(table(x, y, held_out=2000))
    assert max(map(len, card.lines())) < 400
    assert "and 994 more classes; all have 2/" in card.lines()[1]
    assert len(card.to_dict()["classes"]) == len(card.to_dict()["splits"][0]["per_class"]) == 1000


def test_names_from_files_cannot_steer_a_terminal() -> None:
    card = card_of(pictures(class_names=("a\nwarning: b", "\x1b[31mred", "c")))
    assert all(line.isprintable() for line in card.lines())
    assert printable("a\n\x1bb") == "a\\n\\x1bb"


def test_the_card_changes_neither_digest_nor_tensors() -> None:
    """Digest and first pixels as they were before there was a card."""
    data = load_dataset(Digits(size=8), data_root=None, train_rows=200, held_out_rows=120)
    assert data.digest.startswith("65086183705f9e14c99a9904aebca0ae")
    named = pictures(train_names=tuple(map(str, range(18))), used=("a",))
    with_names, without = (load_dataset(Held(raw), data_root=None) for raw in (named, pictures()))
    assert with_names.digest == without.digest


rows = hnp.arrays(np.uint8, (12, 2, 1, 1), elements=st.integers(0, 2))


@settings(deadline=None)
@given(x=rows, y=hnp.arrays(np.int64, 12, elements=st.integers(0, 1)))
def test_equal_rows_are_those_that_a_slow_comparison_finds(x: np.ndarray, y: np.ndarray) -> None:
    names = {"train": slice(0, 6), "validation": slice(6, 8), "test": slice(8, 12)}
    parts = {name: Part(x[rows], y[rows], np.arange(12)[rows]) for name, rows in names.items()}
    card = describe("any", Raw(x[:6], y[:6], x[6:], y[6:], 2), parts)
    kinds = {name: [row.tobytes() for row in part.x] for name, part in parts.items()}
    repeated = sum(len(own) - len(set(own)) for own in kinds.values())
    assert sum(note.count for note in card.duplicates) == repeated
    shared = sum(row in kinds["train"] for split in ("validation", "test") for row in kinds[split])
    shared += sum(row in kinds["validation"] for row in kinds["test"])
    assert sum(note.count for note in card.overlaps) == shared
    labels: dict[bytes, set[int]] = {}
    for row, label in zip(x, y, strict=True):
        labels.setdefault(row.tobytes(), set()).add(int(label))
    assert sum(note.count for note in card.contradictions) == sum(len(labels[row.tobytes()]) > 1 for row in x)


@given(hnp.arrays(np.float64, (5, 3), elements=st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-15])))
def test_keys_are_equal_where_rows_are(x: np.ndarray) -> None:
    keys = row_keys(x)
    for i in range(5):
        assert [keys[i] == key for key in keys] == [(x[i] == row).all() for row in x]


def test_equal_rows_are_told_by_their_names() -> None:
    raw = pictures(
        train_names=tuple(f"train/{i}.png" for i in range(18)),
        test_names=tuple(f"test/{i}.png" for i in range(12)),
        class_names=("cat", "dog", "eel"),
    )
    raw.x_test[4] = raw.x_train[7]  # classes 1 and 1
    raw.x_train[3] = raw.x_train[4]  # classes 0 and 1
    card = card_of(raw)
    assert [note.examples for note in card.overlaps] == [("test/4.png = train/7.png",)]
    (found,) = card.contradictions
    assert (found.count, sorted(found.examples[0].split(" and "))) == (
        2, ["train/3.png (class cat)", "train/4.png (class dog)"]
    )  # fmt: skip


def test_a_table_of_few_different_rows_is_no_leak() -> None:
    x = np.stack(np.unravel_index(np.arange(400) % 8, (2, 2, 2)), axis=1)
    y = np.random.default_rng(0).integers(0, 2, 400)
    card = card_of(table(x, y, held_out=100))
    assert {note.count for note in card.overlaps if "training rows" in note.text} == {33, 67}
    assert not card.errors
    different = np.random.default_rng(0).normal(size=(400, 3))
    different[300:] = different[:100]
    with pytest.raises(InputError, match="all 33 validation rows and all 67 test rows are training rows, too"):
        card_of(table(different, y, held_out=100))


def test_cards_are_compared_by_what_they_count() -> None:
    card = card_of(pictures())
    assert differences(card, card) == []
    first = replace(card.splits[0], per_class=(8, 4, 6))
    other = replace(card, splits=(first, *card.splits[1:]), classes=("a", "b", "c"), columns=("x",))
    assert [text.partition(":")[0] for text in differences(card, other)] == [
        "classes", "columns", "training rows per class"
    ]  # fmt: skip


def test_features_keep_the_class_names_of_their_base() -> None:
    recipe = {"epochs": 1}
    base = {"name": "digits", "size": 8}
    source = Features(base=base, model={"name": "mlp", "hidden": (4,)}, recipe=recipe, train_rows=200, held_out_rows=60)
    card = load_dataset(source, data_root=None).card
    assert card is not None
    assert card.used == ("features of digits", "scikit-learn's digits")
    assert card.classes == tuple("0123456789")


def test_many_classes_of_equal_size_are_told_by_one_number() -> None:
    split = {name: SplitFacts(name=name, rows=40, per_class=(2,) * 20, low=0, high=1) for name in SPLITS}
    long = "c" * 119 + "de"
    card = DataCard(
        name="own",
        kind="numbers",
        classes=tuple("abcdefghijklmnopqrst"),
        shape=(1,),
        splits=tuple(split.values()),
        used=(long,),
    )
    text = "\n".join(card.lines())
    assert "and 14 more classes; all have 2/2/2" in text
    assert text.endswith("c" * 117 + "...")
