"""Messy files: rows in the file = rows used + rows listed as left out, and a value changes only with a note."""

import csv
import io
import tempfile
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from unlearn_core.checks import InputError
from unlearn_core.datasets import Table, Tsv
from unlearn_core.datasets.text_file import read_tsv

MISSING = ("", "NaN", "nan", "NA", "N/A", "null", "None", "?", " ")
LABELS = ("0", "1", "2", "10", "007", "7", "1.0", "+1", "1e1", "yes", "no", "Yes", "none", " no", "0.5", "inf", "1,0")
CELLS = ("1", "-2.5", "1e3", "+4", ".5", " 6", "007", str(2**53 + 1), "0.1", "1e-400")
ODD_CELLS = ("", "nan", "inf", "1,5", "0x10", "x", "1_000", "True", "#")

messy_labels = st.lists(st.sampled_from(MISSING + LABELS), min_size=12, max_size=24)
plain_labels = st.lists(st.sampled_from(MISSING + ("0", "1", "10", "+1", "007")), min_size=12, max_size=24)
cells = st.lists(st.sampled_from(CELLS), min_size=24, max_size=24)
blank_lines = st.sets(st.integers(0, 20))
ends = st.sampled_from(["\n", "\r\n"])


def table(labels, columns, end, *, index=False, blank=()):
    """The text of a CSV file; blank: rows after which an empty line stands."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator=end)
    writer.writerow([*([""] if index else []), *(f"c{i}" for i in range(len(columns))), "target"])
    for row, label in enumerate(labels):
        writer.writerow([*([row] if index else []), *(column[row] for column in columns), label])
        if row in blank:
            file.write(end)
    return file.getvalue()


def load(text):
    """The table, None if it is refused in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.csv"
        path.write_bytes(text.encode())
        try:
            return Table(path=str(path)).load(None)
        except InputError as problem:
            assert "\n" not in str(problem) and str(path) in str(problem)
            return None


def rows_of(raw, text):
    """(line of the file, cells of that line, inputs, class name) of every row that is used."""
    lines = text.replace("\r\n", "\n").split("\n")
    reading = raw.reading
    for names, x, y in ((reading.train_names, raw.x_train, raw.y_train), (reading.test_names, raw.x_test, raw.y_test)):
        for name, inputs, label in zip(names, x, y, strict=True):
            number = int(name.split(":")[1])
            yield number, next(csv.reader([lines[number - 1]])), inputs, reading.class_names[label]


def same(cell, value):
    """Whether a cell is the number that became of it, as it is written and without rounding that counts."""
    text = cell.strip()
    number = Decimal(text)
    whole = number == number.to_integral_value()
    exact = Decimal(float(value)) == number if whole else float(value) == float(text) != 0
    return exact and not (text.lstrip("+-")[:1] == "0" and text.lstrip("+-")[1:2].isdigit())


def is_number(text):
    try:
        return Decimal(text.strip()).is_finite()
    except InvalidOperation:
        return False


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    messy_labels | plain_labels,
    st.lists(cells, min_size=1, max_size=3),
    ends,
    st.booleans(),
    st.sets(st.integers(0, 20)),
)
@example(["0", "1", "NA"] * 5, [list(CELLS) * 3], "\n", True, {3})
@example(["007", "7", "08"] * 5, [["1"] * 24], "\r\n", False, set())
def test_every_row_of_a_table_is_used_or_listed_and_no_value_changes_in_silence(labels, columns, end, index, blank):
    text = table(labels, columns, end, index=index, blank=blank)
    raw = load(text)
    assume(raw is not None)
    reading, used = raw.reading, list(rows_of(raw, text))
    left_out = sum(note.rows for note in reading.left_out)
    assert reading.rows_found == len(labels) == len(used) + left_out
    assert len({number for number, *_ in used}) == len(used), "no row is used twice"
    assert left_out == sum(label in MISSING for label in labels)
    changed = {"label": 0, "value": 0}
    for _, (*written, label), inputs, name in used:
        assert label not in MISSING
        changed["label"] += name != label
        changed["value"] += sum(not same(cell, value) for cell, value in zip(written[index:], inputs, strict=True))
    told = {"label": 0, "value": 0}
    for note in reading.coerced:
        told["label" if note.text.startswith("label") else "value"] += note.count
    assert told == changed
    assert reading.columns == tuple(f"c{i}" for i in range(len(columns)))
    assert any("column that numbers the rows" in note.text for note in reading.left_out) == index
    merged = {(label, name) for _, (*_, label), _, name in used}
    for label, name in merged:  # labels that became one class are one number, or one word with blanks around it
        assert name == label.strip() or Decimal(name) == Decimal(label.strip())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 11), st.sampled_from(ODD_CELLS))
def test_a_cell_that_is_no_number_is_refused_with_its_line(row, cell):
    column = ["1"] * 12
    column[row] = cell
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.csv"
        path.write_text(table(["0", "1"] * 6, [column], "\n"))
        try:
            Table(path=str(path)).load(None)
        except InputError as problem:
            assert f"own.csv:{row + 2}" in str(problem)
        else:
            raise AssertionError(f"{cell!r} was taken for a number")


words = st.text(st.sampled_from("ab \"\t\n'#,;"), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(words, st.sampled_from(("0", "1", "", "NA"))), min_size=1, max_size=12), ends)
def test_texts_that_are_written_with_quoting_are_read_back(rows, end):
    assume(any(label in ("0", "1") for _, label in rows))  # a file without any label is refused
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator=end)
    writer.writerows([("sentence", "label"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.tsv"
        path.write_bytes(file.getvalue().encode())
        found = read_tsv(path)
    kept = [(text, label) for text, label in rows if label in ("0", "1")]
    assert found.texts == [text.strip() for text, _ in kept]
    assert found.labels.tolist() == [int(label) for _, label in kept]
    assert found.rows_found == len(rows) == len(kept) + sum(note.rows for note in found.left_out)
    assert sum(note.count for note in found.coerced) == sum(any(c in text for c in '"\t\n') for text, _ in kept)


lines = st.text(st.sampled_from("ab \"'#,"), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(lines, st.sampled_from(("0", "1", "NA"))), min_size=4, max_size=12))
@example([('a "film"', "1"), ("b", "0"), ('"c"', "1"), ("d", "NA")])
@example([("a", "0"), ("a", "0"), ('"', "NA"), ('"', "0")])
@example([("a", "0"), ('"a', "1"), ("b", "0"), ('c"', "1")])
def test_texts_that_are_written_without_quoting_are_kept_or_told(rows):
    whole = [("first", "0"), ("second", "1"), *rows]
    text = "\n".join(["sentence\tlabel", *("\t".join(row) for row in whole)])
    with tempfile.TemporaryDirectory() as folder:
        for name in ("train", "test"):
            (Path(folder) / f"{name}.tsv").write_text(text)
        assume(not any(row[0].strip() == '""' for row in whole))  # an empty text in quotes, which is refused
        found = read_tsv(Path(folder) / "train.tsv")
        raw = Tsv(path=folder, vocabulary=300).load(None)
    kept = [row[0].strip() for row in whole if row[1] != "NA"]
    changed = sum(text != written for text, written in zip(found.texts, kept, strict=True))
    assert changed == sum(note.count for note in found.coerced)
    assert (
        raw.reading.rows_found
        == 2 * len(whole)
        == len(raw.y_train) + len(raw.y_test) + sum(note.rows for note in raw.reading.left_out)
    )
