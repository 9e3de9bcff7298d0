"""Messages on data that cannot be used: each names what is really wrong, and a remedy that works."""

from __future__ import annotations

import numpy as np
import pytest

from unlearn_core.checks import InputError
from unlearn_core.datasets.loading import load_dataset
from unlearn_core.datasets.npz import Npz, read_npz
from unlearn_core.datasets.table import Table
from unlearn_core.datasets.text_file import read_tsv
from unlearn_core.datasets.tsv import Tsv

ROWS = "a film\t0\nthe plot\t1\n"


def test_a_first_line_of_a_text_file_is_mended_by_what_is_wrong_with_it(tmp_path) -> None:
    file = tmp_path / "train.tsv"
    order = "write the columns sentence and label, in this order and no others"
    for first, fix in {
        "label\tsentence\n0\ta film\n": order,
        "text\tlabel\n" + ROWS: order,
        "review\tsentiment\n" + ROWS: order,
        "Sentence\tLabel\n" + ROWS: order,
        "idx\tsentence\tlabel\n0\ta film\t0\n": order,
        "sentence\tlabel\t\na film\t0\t\n": order,
        "sentence,label\na film,0\n": order + ", separated by tabs",
        ROWS: "add it",
        "": "the file is empty",
    }.items():
        file.write_text(first)
        with pytest.raises(InputError) as problem:
            read_tsv(file)
        assert fix in str(problem.value), first
        assert ("add it" in str(problem.value)) == (fix == "add it"), first


def test_a_text_file_without_any_label_is_named(tmp_path) -> None:
    file = tmp_path / "test.tsv"
    file.write_text("sentence\tlabel\na film\t\nthe plot\t\n")
    with pytest.raises(InputError, match=r"test\.tsv: none of its 2 rows has a label"):
        read_tsv(file)


def test_texts_that_are_equal_once_cut_off_point_to_the_length(tmp_path) -> None:
    lines = [f"the same words begin them all , then {i}\t{i % 2}" for i in range(40)]
    for name in ("train.tsv", "test.tsv"):
        (tmp_path / name).write_text("sentence\tlabel\n" + "\n".join(lines))
    with pytest.raises(InputError, match="all 40 training rows have the same input.*`length`"):
        load_dataset(Tsv(path=str(tmp_path), length=2, vocabulary=257), data_root=None)


@pytest.mark.parametrize("number", ["1,000", "-12,345", "1,234.5", "1,000,000"])
def test_commas_between_thousands_are_no_decimal_commas(tmp_path, number) -> None:
    (tmp_path / "own.csv").write_text("a,target\n" + f'"{number}",0\n1,1\n2,0\n3,1\n')
    with pytest.raises(
        InputError, match=f"column a has '{number}' with commas between thousands or before decimals in own.csv:2"
    ):
        Table(path=str(tmp_path / "own.csv")).load(None)


PIXELS = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
LABELS = np.arange(12) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(y_train=LABELS + 1), "but got 1, 2; subtract 1 from all labels"),
        (dict(y_train=4 * LABELS), "but got 0, 4; number the 2 classes from 0 to 1"),
        (dict(y_train=LABELS.astype(float)), r"is float64; store y\.astype\(int\)"),
        (dict(y_train=LABELS > 0), "is bool, such as False; number the classes from 0"),
        (dict(y_train=np.array(3)), "one label per image"),
        (dict(x_train=np.where(np.arange(12)[:, None, None] == 4, np.nan, PIXELS / 255)), r"\(NaN\), first in row 5"),
    ],
)
def test_arrays_of_images_say_what_to_store(tmp_path, arrays, message) -> None:
    whole = dict(x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS) | arrays
    np.savez(tmp_path / "own.npz", **whole)
    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "own.npz")


def test_a_single_held_out_row_is_too_few_in_plain_words(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:1], y_test=LABELS[:1])
    with pytest.raises(InputError, match="only 1 held-out row, but validation and test need one each"):
        load_dataset(Npz(path=str(tmp_path / "own.npz")), data_root=None)


@pytest.mark.parametrize("word", ["unknown", "-", "?? ", "Unlabeled", r"\N", "."])
def test_words_that_often_stand_for_a_missing_label_are_doubted(tmp_path, word) -> None:
    cells = [word if i % 10 == 0 else "cat" if i % 2 else "dog" for i in range(60)]
    (tmp_path / "own.csv").write_text("a,target\n" + "".join(f"{i % 7},{cell}\n" for i, cell in enumerate(cells)))
    (doubt,) = Table(path=str(tmp_path / "own.csv")).load(None).reading.warnings
    assert str(doubt) == f"1 class whose name often stands for a missing label ({word.strip()!r})"
