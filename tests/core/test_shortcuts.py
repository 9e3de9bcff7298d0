"""What gives labels away is found, and what is merely informative is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from tests.cases.data_cases import Held, table, texts
from unlearn_core.checks import InputError
from unlearn_core.datasets import Raw, load_dataset
from unlearn_core.datasets.image_signs import two_level_images
from unlearn_core.datasets.opinions import opinions
from unlearn_core.datasets.reading import Reading
from unlearn_core.datasets.shortcuts import find_shortcuts


def told(raw: Raw) -> str:
    """All warnings about a data set, one a line."""
    card = load_dataset(Held(raw), data_root=None).card
    assert card is not None
    return "\n".join(map(str, card.warnings))


def gives(column: np.ndarray, y: np.ndarray) -> bool:
    return bool(find_shortcuts(column.reshape(-1, 1).astype(float), y, int(y.max()) + 1).labels[0])


# Single columns


@settings(deadline=None)
@given(
    y=st.integers(2, 5).flatmap(lambda k: st.permutations(list(range(k)) * 20)).map(np.array),
    names=st.permutations([3.0, -7.0, 0.5, 100.0, 12.0]),
)
def test_a_copy_of_the_label_under_any_names_is_found(y: np.ndarray, names: list[float]) -> None:
    assert gives(np.array(names)[y], y)
    steps = np.argsort(np.argsort(np.array(names)[y], kind="stable"))  # a row number of rows sorted by class
    assert gives(steps, y)
    assert gives(-steps, y)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 5), levels=st.sampled_from([1, 2, 3, 10, 10**6]))
def test_a_column_that_knows_nothing_is_not_found(seed: int, classes: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), random.integers(0, classes, 60)])
    found = find_shortcuts(random.integers(0, levels, (len(y), 5)).astype(float), y, classes)
    assert not found.labels.any()
    assert not found.classes.any()


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_iris, load_digits])
def test_strong_features_of_small_real_tables_are_no_shortcuts(load: object) -> None:
    x, y = load(return_X_y=True)  # type: ignore[operator]
    mixed = np.random.default_rng(0).permutation(len(y))
    text = told(table(x[mixed], y[mixed], held_out=len(y) // 4))
    assert "label" not in text
    assert "class" not in text.replace("repeat", "")


def test_nearly_perfect_is_found_and_good_is_not() -> None:
    y = np.arange(400) % 2
    noise = np.random.default_rng(0).normal(size=400)
    assert gives(y + 0.15 * noise, y)
    assert not gives(y + 0.4 * noise, y)


def test_a_number_that_decides_the_label_is_found_whatever_its_order() -> None:
    """Such as the number of a patient, where each has one diagnosis."""
    random = np.random.default_rng(0)
    patient = random.integers(0, 60, 600)
    assert gives(patient, random.integers(0, 2, 60)[patient])
    assert not gives(patient, random.integers(0, 2, 600))


def test_tables_name_the_columns() -> None:
    random = np.random.default_rng(0)
    y = random.permutation(np.repeat([0, 1, 2], 60))
    x = np.column_stack([random.normal(size=(180, 2)), y == 1, np.argsort(np.argsort(y)), np.full(180, 3.0)])
    names = ("a", "b", "target.1", "id", "unit")
    raw = table(x, y, held_out=60, reading=Reading(columns=names))
    assert told(raw).splitlines() == [
        "1 column gives nearly every label alone, as a copy of it or a row number would (id)",
        "1 column of two values tells one class from all others, as a coded label would (target.1)",
    ]
    card = load_dataset(Held(raw), data_root=None).card
    assert card is not None
    assert "1 column has one value in all training rows (unit)" in map(str, card.facts)


def test_repeated_rows_make_no_column_a_shortcut() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(100, 3)), random.integers(0, 2, 100)
    again = np.concatenate([np.arange(100)] * 4 + [random.integers(0, 100, 20)])
    x = np.concatenate([x[again], random.normal(size=(10, 3))])
    assert "label alone" not in told(table(x, np.append(y[again], [0, 1] * 5), held_out=40))


# Images


def grey(x: np.ndarray, y: np.ndarray) -> Raw:
    return Raw(x[:90, ..., None], y[:90], x[90:, ..., None], y[90:], int(y.max()) + 1)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_two_level_images_are_those_of_at_most_two_values(seed: int) -> None:
    random = np.random.default_rng(seed)
    levels = random.integers(1, 5, 20)
    x = np.stack([random.choice(256, n, replace=False)[random.integers(0, n, (9, 7, 2))] for n in levels])
    x = x.astype(np.uint8)
    assert two_level_images(x).tolist() == [i for i in range(20) if len(np.unique(x[i])) <= 2]


def test_colour_in_one_class_is_told() -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    y = np.arange(120) % 3
    assert told(Raw(x[:90], y[:90], x[90:], y[90:], 3)) == ""
    x[y == 1] = x[y == 1][..., :1]
    text = told(Raw(x[:90], y[:90], x[90:], y[90:], 3))
    assert "30 training images of class 1 differ from all others by a single number (such as colour)" in text


# Scale


@pytest.mark.parametrize(("factor", "text"), [(1000.0, "1 column has another scale"), (1.0, "")])
def test_a_column_in_another_unit_is_told(factor: float, text: str) -> None:
    x = np.random.default_rng(0).normal(5, 1, size=(200, 3))
    x[150:, 1] *= factor
    assert text in (found := told(table(x, np.arange(200) % 2, held_out=50)))
    assert bool(found) == bool(text)


def test_a_table_whose_columns_all_have_other_units_is_refused() -> None:
    x = np.random.default_rng(0).normal(5, 1, size=(200, 3))
    x[150:] = (x[150:] - 5) / 100
    with pytest.raises(InputError, match=r"all columns \(column 0, column 1, column 2\) have other units"):
        told(table(x, np.arange(200) % 2, held_out=50))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_rows_of_one_source_have_one_scale(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_t(2, size=(120, 4)) * 10.0 ** random.integers(-3, 4, 4)  # heavy tails
    assert "scale" not in told(table(x, np.arange(120) % 2, held_out=40))


# Texts


def test_a_quote_in_all_texts_of_a_class_is_told() -> None:
    lines, y = opinions(400, seed=0)
    plain = texts(lines[:300], y[:300], lines[300:], y[300:])
    quoted = [f'"{line}"' if label == 0 else line for line, label in zip(lines, y, strict=True)]
    assert told(plain) == ""
    assert "in the training texts of one class and in no others ('\"': 0" in told(
        texts(quoted[:300], y[:300], quoted[300:], y[300:])
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (str.capitalize, "capital letters"),
        (lambda line: "?!;:" + line, "punctuation"),
        (lambda line: "so   " + line, "blanks after blanks"),
        (lambda line: f"{len(line)} {line}", "digits"),
    ],
)
def test_a_kind_of_characters_in_one_class_alone_is_told(change, kind) -> None:
    lines, y = opinions(400, seed=0)
    changed = [change(line) if label == 0 else line for line, label in zip(lines, y, strict=True)]
    found = told(texts(changed[:300], y[:300], changed[300:], y[300:]))
    assert "300 training texts show their class by how many characters of a kind they have" in found and kind in found


def test_a_class_of_short_texts_is_told() -> None:
    lines, y = opinions(400, seed=0)
    cut = [
        " ".join(line.split()[: 1 if label else 99]) + f" {i}"
        for i, (line, label) in enumerate(zip(lines, y, strict=True))
    ]
    assert "training texts show their class by their length alone" in told(
        texts(cut[:300], y[:300], cut[300:], y[300:])
    )
