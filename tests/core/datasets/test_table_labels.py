"""Labels of tables: missing ones are no class, equal ones are one, and their order is that of every format."""

import numpy as np
import pandas as pd
import pytest

from unlearn_core.checks import InputError
from unlearn_core.datasets import Table

ROWS = 60
LONG = "1234567890123456789012"
FORMATS = (".csv", ".parquet", ".npz")


def write(path, labels, **columns):
    """A table of noise with these labels, as pandas or numpy writes it."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=len(labels)), "b": random.normal(size=len(labels))} | columns)
    frame["target"] = labels
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        np.savez(path, a=frame.a, b=frame.b, target=np.array(labels))
    return path


def load(path, **settings):
    return Table(path=str(path), **settings).load(None)


def by_row(raw):
    """Class name of each row, by the number at the end of the row's name."""
    return {
        int(name.replace("row ", ":").split(":")[-1]): raw.reading.class_names[label]
        for names, labels in ((raw.reading.train_names, raw.y_train), (raw.reading.test_names, raw.y_test))
        for name, label in zip(names, labels, strict=True)
    }


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "word", ["NaN", "nan", "null", "NULL", "NA", "N/A", "n/a", "?", "", " ", "None", "<NA>", "#N/A"]
)
def test_words_for_a_missing_label_are_no_class(tmp_path, ending, word):
    labels = [("well", "sick")[i % 2] for i in range(ROWS)]
    labels[3] = labels[10] = word
    raw = load(write(tmp_path / f"own{ending}", labels))
    (lost,) = raw.reading.left_out
    assert raw.reading.class_names == ("sick", "well")
    assert (lost.rows, lost.count, raw.reading.rows_found) == (2, 2, ROWS)
    assert len(raw.y_train) + len(raw.y_test) == ROWS - 2
    first = {".csv": "own.csv:5", ".parquet": "own.parquet, row 4", ".npz": "own.npz, row 4"}[ending]
    assert str(lost) == f"2 rows without a label ({word!r} in {first}, {lost.examples[1]})"


def test_missing_labels_of_binary_formats_are_no_class(tmp_path):
    holes = [i % 2 if i != 7 else None for i in range(ROWS)]
    for name, labels in (("ints", pd.array(holes, dtype="Int64")), ("floats", pd.array(holes, dtype="Float64"))):
        raw = load(write(tmp_path / f"{name}.parquet", labels))
        assert (raw.reading.class_names, raw.reading.left_out[0].rows) == (("0", "1"), 1), name
    for labels in ([float("nan") if i == 7 else i % 2 for i in range(ROWS)],):
        for ending in FORMATS:
            raw = load(write(tmp_path / f"nan{ending}", labels))
            assert (raw.reading.class_names, raw.reading.left_out[0].rows) == (("0", "1"), 1), ending
    words = load(write(tmp_path / "words.parquet", [("a", "b")[i % 2] if i != 7 else None for i in range(ROWS)]))
    assert (words.reading.class_names, words.reading.left_out[0].rows) == (("a", "b"), 1)


def test_none_written_small_is_a_class_with_a_warning(tmp_path):
    raw = load(write(tmp_path / "own.csv", [("none", "mild", "severe")[i % 3] for i in range(ROWS)]))
    assert raw.reading.class_names == ("mild", "none", "severe")
    assert "name often stands for a missing label ('none')" in str(raw.reading.warnings[0])
    assert not raw.reading.left_out


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([str(i) for i in range(1, 12)], [str(i) for i in range(1, 12)]),
        (["007", "7", "08"], ["007", "08", "7"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        (["-2", "-10", "3"], ["-10", "-2", "3"]),
        (
            ["12345678901234567890123", "12345678901234567890124"],
            ["12345678901234567890123", "12345678901234567890124"],
        ),
        (["True", "False"], ["False", "True"]),
        (["0x10", "16"], ["0x10", "16"]),
        (["1_0", "10"], ["10", "1_0"]),
    ],
)
def test_the_order_of_classes_is_that_of_their_numbers_or_words(tmp_path, ending, labels, names):
    written = [labels[i % len(labels)] for i in range(ROWS)]
    raw = load(write(tmp_path / f"own{ending}", written))
    assert raw.reading.class_names == tuple(names) and raw.classes == len(names)
    assert not raw.reading.coerced
    first = 2 if ending == ".csv" else 1
    assert by_row(raw) == {first + i: label for i, label in enumerate(written)}


def test_numbers_of_binary_formats_are_never_merged(tmp_path):
    large = [2**53, 2**53 + 1]
    for name, labels in (
        ("ints.parquet", [large[i % 2] for i in range(ROWS)]),
        ("holes.parquet", pd.array([large[i % 2] if i else None for i in range(ROWS)], dtype="Int64")),
        ("ints.csv", [large[i % 2] for i in range(ROWS)]),
        ("ints.npz", [large[i % 2] for i in range(ROWS)]),
    ):
        assert load(write(tmp_path / name, labels)).reading.class_names == tuple(map(str, large)), name


@pytest.mark.parametrize(
    ("labels", "names", "example"),
    [
        (["1.0", "0.0"], ("0", "1"), "'1.0' as 1 in own.csv:2"),
        (["+1", "-1"], ("-1", "1"), "'+1' as 1 in own.csv:2"),
        (["1e3", "7"], ("7", "1000"), "'1e3' as 1000 in own.csv:2"),
        (["1", "1.0", "2"], ("1", "2"), "'1.0' as 1 in own.csv:3"),
        (["a", "b "], ("a", "b"), "'b ' as b in own.csv:3"),
        (["cafe\u0301", "caf\u00e9", "tea"], ("caf\u00e9", "tea"), "'cafe\u0301' as caf\u00e9 in own.csv:2"),
    ],
)
def test_labels_read_as_another_are_told(tmp_path, labels, names, example):
    raw = load(write(tmp_path / "own.csv", [labels[i % len(labels)] for i in range(ROWS)]))
    assert raw.reading.class_names == names
    (told,) = raw.reading.coerced
    assert told.examples[0] == example and told.text == "labels written in another way"
    assert told.count in (ROWS // len(labels), ROWS)


@pytest.mark.parametrize("ending", FORMATS)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, ending):
    for bad in (0.5, float("inf")):
        with pytest.raises(InputError, match=rf"column target has the label {bad}; labels must be whole"):
            load(write(tmp_path / f"own{ending}", [bad if i == 3 else float(i % 2) for i in range(ROWS)]))


def test_classes_that_may_be_none_are_doubted(tmp_path):
    mixed = load(write(tmp_path / "mixed.csv", [("0", "1", "unknown")[i % 3] for i in range(ROWS)]))
    assert str(mixed.reading.warnings[0]).startswith("1 class that is a word, beside classes that are numbers")
    cases = load(write(tmp_path / "cases.csv", [("Yes", "yes", "no")[i % 3] for i in range(ROWS)]))
    assert cases.reading.warnings[0].examples == ("'Yes'", "'yes'")
    zeros = load(write(tmp_path / "zeros.csv", [("007", "7", "08")[i % 3] for i in range(ROWS)]))
    assert str(zeros.reading.warnings[0]) == "2 classes that are equal as numbers ('007', '7')"


def test_a_single_class_besides_missing_labels_is_refused(tmp_path):
    with pytest.raises(InputError, match="has only yes besides 30 rows without a label; it must hold 2 to 1000"):
        load(write(tmp_path / "own.csv", [("yes", "NA")[i % 2] for i in range(ROWS)]))
    with pytest.raises(InputError, match="has no label besides 60 rows"):
        load(write(tmp_path / "own.csv", ["?"] * ROWS))


def test_categories_of_pandas_are_labels(tmp_path):
    labels = pd.Categorical([("low", "high")[i % 2] for i in range(ROWS)], categories=["unused", "low", "high"])
    raw = load(write(tmp_path / "own.parquet", labels))
    assert raw.reading.class_names == ("high", "low") and by_row(raw)[1] == "low"


@pytest.mark.parametrize("rare", [2, 3, 4])
@pytest.mark.parametrize("held_out", [0.05, 0.25, 0.5])
def test_a_rare_class_is_held_out_too(tmp_path, rare, held_out):
    raw = load(write(tmp_path / "own.csv", [int(i < rare) for i in range(300)]), held_out=held_out)
    assert (raw.y_test == 1).sum() >= 1 and (raw.y_train == 1).sum() >= 1
    assert len(raw.y_test) == round(held_out * 300)
    assert sorted(by_row(raw)) == list(range(2, 302)), "no row is lost or used twice"


def test_a_class_of_one_row_is_for_training(tmp_path):
    raw = load(write(tmp_path / "own.csv", [int(i < 1) for i in range(300)]))
    assert raw.y_train.sum() == 1 and raw.y_test.sum() == 0
