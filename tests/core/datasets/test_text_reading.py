"""Files of texts: quotes, labels and rows as other programs write them."""

import csv
import hashlib
import lzma
import os
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from unlearn_core.checks import InputError
from unlearn_core.datasets import Imdb, Opinions, Sst2, Tsv
from unlearn_core.datasets.text_file import read_tsv

REAL = Path(os.environ.get("UNLEARN_DATA_ROOT", "nowhere"))
ODD = [
    'a fine film, "really"',
    'tab\there, "and quotes"',
    '"all of it"',
    'two "" marks',
    "line\nbreak",
    "a, comma",
    "plain",
]


def written(path, rows, **how):
    """As pandas writes it, with quotes where it thinks they are needed."""
    pd.DataFrame(rows, columns=["sentence", "label"]).to_csv(path, sep="\t", index=False, **how)
    return path


def raw_file(path, *lines, header="sentence\tlabel"):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_texts_written_by_pandas_are_what_they_were(tmp_path, quoting, end):
    rows = [(text, i % 2) for i, text in enumerate(ODD)]
    found = read_tsv(written(tmp_path / "train.tsv", rows, quoting=quoting, lineterminator=end))
    assert found.texts == ODD and found.labels.tolist() == [label for _, label in rows]
    (told,) = found.coerced
    assert told.text == "texts whose quotes around them were taken away"
    assert told.count == (5 if quoting == csv.QUOTE_MINIMAL else len(ODD)) and told.examples[0] == "train.tsv:2"
    assert list(found.names)[-2:] == ["train.tsv:8", "train.tsv:9"], "lines are counted, not rows"
    assert found.rows_found == len(ODD) and not found.left_out and not found.warnings


def test_quotes_of_one_class_give_nothing_away(tmp_path):
    rows = [(f'film {i}, "really"' if i % 2 else f"film {i}", i % 2) for i in range(40)]
    for name in ("train", "test"):
        written(tmp_path / f"{name}.tsv", rows)
    raw = Tsv(path=str(tmp_path)).load(None)
    starts = {raw.tokenizer.decode(row)[0] for row in raw.x_train}
    assert starts == {"f"}
    assert [note.count for note in raw.reading.coerced] == [20, 20]


@pytest.mark.parametrize(
    "stray", ['"quoted" words', 'say "so"', '"', 'a "', '"open', 'an "inch" and ""', '"a" and "b"', 'x"']
)
def test_texts_with_stray_quotes_stay_as_they_are(tmp_path, stray):
    lines = [f"{stray}\t1", '"whole"\t0', "plain\t1", "it's\t0"]
    found = read_tsv(raw_file(tmp_path / "train.tsv", *lines))
    assert found.texts == [line.rpartition("\t")[0] for line in lines] and not found.coerced


@pytest.mark.parametrize("escaped", ['"a ""film"" it is"', r'"a \"film\" it is"'])
def test_quoted_texts_among_others_with_stray_quotes_are_doubted(tmp_path, escaped):
    found = read_tsv(raw_file(tmp_path / "train.tsv", f"{escaped}\t1", 'say "so"\t0'))
    assert found.texts[0] == escaped and not found.coerced
    assert str(found.warnings[0]).startswith("1 text in quotes, kept as it is because") and "train.tsv:2" in str(
        found.warnings[0]
    )


@pytest.mark.skipif(not (REAL / "sst2").is_dir(), reason="UNLEARN_DATA_ROOT names no folder with sst2 and imdb")
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("sst2/train", "7f2bab55e524f7c4"),
        ("sst2/dev", "5d0bae2dd6fc5352"),
        ("sst2/test", "971a7352d8ed24e7"),
        ("imdb/train", "4479f9d9a9144899"),
        ("imdb/test", "161546ef3b80b40f"),
    ],
)
def test_real_texts_are_read_bit_for_bit_as_ever(tmp_path, name, digest):
    stored = REAL / f"{name}.tsv"
    content = stored.read_bytes() if stored.exists() else lzma.decompress(stored.with_suffix(".tsv.xz").read_bytes())
    (tmp_path / "part.tsv").write_bytes(content)
    found = read_tsv(tmp_path / "part.tsv")
    made = hashlib.sha256(b"".join(text.encode() + b"\0" for text in found.texts) + found.labels.tobytes())
    assert made.hexdigest()[:16] == digest
    assert not found.left_out and not found.coerced and not found.warnings


@pytest.mark.parametrize("word", ["", "NaN", "NA", "null", "?", "None"])
def test_rows_without_a_label_are_left_out(tmp_path, word):
    for name in ("train", "test"):
        raw_file(tmp_path / f"{name}.tsv", *[f"film {i}\t{i % 2}" for i in range(20)], f"no label\t{word}")
    raw = Tsv(path=str(tmp_path)).load(None)
    assert (len(raw.y_train), len(raw.y_test), raw.reading.rows_found) == (20, 20, 42)
    assert [str(note) for note in raw.reading.left_out] == [
        f"1 row without a label ({name}.tsv:22)" for name in ("train", "test")
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["a\t12345678901234567890123"],
            "line 2: the label must be a whole number 0 .. classes - 1.*'123456789012345678",
        ),
        (["a\t01"], "line 2: the label must be a whole number .*written plainly, but is '01'"),
        (["a\t1.0"], "line 2: the label must be .* is '1.0'"),
        (["a\t-1"], "line 2: the label must be .* is '-1'"),
        (["a\t\u0661"], "line 2: the label must be"),
        (["a\tpositive"], "line 2: the label must be .* is 'positive'"),
        (
            ["a\t0", "# half way", "b\t1"],
            "line 3: must be text, a tab and a label, but is '# half way'; delete the comm",
        ),
        (["a\tb\t1"], "line 2: must be text, a tab and a label, .*; write no tab in a text"),
        (["a\t1", "b\t2"], r"train\.tsv: labels must count the classes from 0, but are 1 \.\. 2; subtract 1"),
        (["a\t0", "b\t2"], r"training labels must be 0 \.\. 2 with none left out, but got 0, 2"),
        (["a\t0", "b\t1"], "held-out labels 2 never occur in the training part"),
    ],
)
def test_labels_that_count_no_classes_are_refused(tmp_path, lines, message):
    raw_file(tmp_path / "train.tsv", *lines)
    raw_file(tmp_path / "test.tsv", "a\t0", "b\t2")
    with pytest.raises(InputError, match=message):
        Tsv(path=str(tmp_path)).load(None)


@pytest.mark.parametrize(
    ("header", "fix"),
    [
        ("# made by a tool\nsentence\tlabel", "delete the lines before line 2"),
        ("\tsentence\tlabel", "leave the index out, in pandas with index=False"),
        ("sentence,label", "write the columns sentence and label"),
        ("label\tsentence", "write the columns sentence and label"),
    ],
)
def test_another_first_line_is_refused_with_the_fix(tmp_path, header, fix):
    with pytest.raises(InputError, match=f"line 1: the first line must be 'sentence.*tlabel', but is .*; {fix}"):
        read_tsv(raw_file(tmp_path / "train.tsv", "a\t0", header=header))


def test_texts_that_are_cut_are_told(tmp_path):
    for name in ("train", "test"):
        raw_file(tmp_path / f"{name}.tsv", *[f"{'long ' * (i == 7) * 900}film {i}\t{i % 2}" for i in range(20)])
    (told, *_) = Tsv(path=str(tmp_path)).load(None).reading.coerced
    assert str(told) == ("2 texts of more than 64 tokens, cut off at the end (train.tsv:9, test.tsv:9)")
    assert not Opinions(rows=400).load(None).reading.coerced, "some fill all their tokens, and none is cut"


def test_sources_of_texts_say_what_they_used(tmp_path):
    for name in ("train", "test"):
        raw_file(tmp_path / "sst2" / f"{name}.tsv", "bad\t0", "good\t1")
    reading = Sst2().load(tmp_path).reading
    assert (reading.class_names, reading.used) == (("negative", "positive"), ("train.tsv", "test.tsv"))
    assert list(reading.train_names) == ["train.tsv:2", "train.tsv:3"] and reading.rows_found == 4
    assert Opinions(rows=100).load(None).reading.class_names == ("negative", "positive")


def test_a_hub_cache_says_what_it_used(tmp_path):
    def write(name, **columns):
        parquet.write_table(pyarrow.table({"text": ["bad", "good"], "label": [0, 1]} | columns), tmp_path / name)

    for name in ("train-0.parquet", "test-0.parquet", "unsupervised-0.parquet"):
        write(name)
    reading = Imdb(hub=str(tmp_path)).load(None).reading
    assert (reading.used, reading.rows_found) == (("train-0.parquet", "test-0.parquet"), 4)
    assert str(reading.left_out[0]) == "1 file of another part (unsupervised-0.parquet)"
    assert list(reading.test_names) == ["test-0.parquet, row 1", "test-0.parquet, row 2"]
    for columns, message in (
        (dict(label=[0.5, 1.0]), "column label must hold whole numbers, but holds double"),
        (dict(label=["0", "1"]), "column label must hold whole numbers, but holds"),
        (dict(label=[None, 1]), "column label is needed, with a value in every row"),
        (dict(text=[3, 4]), "column text must hold texts, but has 3"),
    ):
        write("train-0.parquet", **columns)
        with pytest.raises(InputError, match=rf"train-0\.parquet: {message}"):
            Imdb(hub=str(tmp_path)).load(None)
