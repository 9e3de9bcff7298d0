"""Columns of tables: which are inputs, which are left out, and which values change."""

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from unlearn_core.checks import InputError
from unlearn_core.datasets import Table

ROWS = 40


def frame(**columns):
    random = np.random.default_rng(1)
    made = {"a": random.normal(size=ROWS), "b": random.normal(size=ROWS), "target": np.arange(ROWS) // 20}
    return pd.DataFrame(made | columns)


def load(path, **settings):
    return Table(path=str(path), **settings).load(None)


def csv(tmp_path, table, **how):
    table.to_csv(tmp_path / "own.csv", **{"index": False} | how)
    return tmp_path / "own.csv"


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    return tmp_path / "own.npz"


def test_the_index_of_pandas_is_no_input(tmp_path):
    plain = frame().drop(index=7)
    several = plain.assign(g=1).set_index(["g", "b"], drop=False).rename_axis(["g0", None])
    for name, table, index in (
        ("gap", plain, ["__index_level_0__"]),
        ("named", plain.rename_axis("patient"), ["patient"]),
        ("several", several.drop(columns="g"), ["g0", "__index_level_1__"]),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
        raw = load(tmp_path / f"{name}.parquet")
        assert raw.reading.columns == ("a", "b"), name
        (told,) = raw.reading.left_out
        assert told.examples == tuple(index) and told.rows == 0
    stored = parquet.read_table(tmp_path / "gap.parquet").replace_schema_metadata(None)
    parquet.write_table(stored, tmp_path / "bare.parquet")
    assert load(tmp_path / "bare.parquet").reading.columns == ("a", "b"), "the name alone tells"
    assert load(csv(tmp_path, frame(), index=True)).reading.columns == ("a", "b")
    again = pd.read_csv(tmp_path / "own.csv")
    raw = load(csv(tmp_path, again, index=True))
    assert raw.reading.columns == ("a", "b") and raw.reading.left_out[0].examples == ("no name", "Unnamed: 0")


def test_an_index_can_be_the_target(tmp_path):
    frame().set_index("target").to_parquet(tmp_path / "own.parquet")
    raw = load(tmp_path / "own.parquet")
    assert raw.reading.columns == ("a", "b") and not raw.reading.left_out


def test_one_hot_labels_of_an_npz_are_decoded(tmp_path):
    labels = np.arange(ROWS) % 3
    raw = load(npz(tmp_path, x=np.random.default_rng(0).normal(size=(ROWS, 2)), target=np.eye(3)[labels]))
    plain = load(npz(tmp_path, x=np.random.default_rng(0).normal(size=(ROWS, 2)), target=labels))
    assert raw.reading.columns == ("x.0", "x.1") and raw.reading.class_names == ("0", "1", "2")
    assert np.array_equal(raw.y_train, plain.y_train) and np.array_equal(raw.x_train, plain.x_train)
    assert str(raw.reading.coerced[0]) == "40 one-hot rows of target read as the number of their column"
    column = load(npz(tmp_path, x=np.random.default_rng(0).normal(size=(ROWS, 2)), target=labels[:, None]))
    assert np.array_equal(column.y_train, plain.y_train) and not column.reading.coerced


@pytest.mark.parametrize("cold", [0.0, -1.0, 0.1])
def test_a_part_of_one_hot_labels_is_refused_as_target(tmp_path, cold):
    labels = np.where(np.eye(3)[np.arange(ROWS) % 3] == 1, 1.0, cold)
    path = npz(tmp_path, x=np.random.default_rng(0).normal(size=(ROWS, 2)), y=np.where(labels == 1, 1, 0))
    with pytest.raises(InputError, match=r"y\.1 is one-hot together with \['y\.0', 'y\.2'\].*; choose target 'y'"):
        load(path, target="y.1")
    with pytest.raises(InputError, match="none is called 'target'; choose one of x, y$"):
        load(path)
    if cold != 0:
        with pytest.raises(InputError, match=r"y has shape \(40, 3\) and is not one-hot, .* one label per row"):
            load(npz(tmp_path, x=np.zeros((ROWS, 2)), y=labels), target="y")


def test_one_hot_columns_of_other_files_are_refused(tmp_path):
    dummies = pd.get_dummies(np.array(["p", "q", "r"])[np.arange(ROWS) % 3], prefix="target", dtype=int)
    wide = pd.concat([frame().drop(columns="target"), dummies], axis=1)
    wide.to_parquet(tmp_path / "own.parquet")
    for path in (csv(tmp_path, wide), tmp_path / "own.parquet"):
        with pytest.raises(InputError, match=r"\['target_p', 'target_q', 'target_r'\] are its one-hot form: put the"):
            load(path)
        for part in ("target_p", "target_q", "target_r"):
            with pytest.raises(InputError, match="is one-hot together with .*put the class of each row into one"):
                load(path, target=part)
    unlike = frame(ill=np.arange(ROWS) % 2, well=1 - np.arange(ROWS) % 2).drop(columns="target")
    with pytest.raises(InputError, match=r"column ill is one-hot together with \['well'\]"):
        load(csv(tmp_path, unlike), target="ill")


def test_independent_flags_beside_the_target_stay_inputs(tmp_path):
    flags = frame(target=np.arange(ROWS) % 2, target_of_test=np.arange(ROWS) // 20 % 2, sex=np.arange(ROWS) // 10 % 2)
    assert load(csv(tmp_path, flags)).reading.columns == ("a", "b", "target_of_test", "sex")
    data = np.column_stack([np.random.default_rng(0).normal(size=(ROWS, 2)), np.arange(ROWS) % 2])
    raw = load(npz(tmp_path, data=data), target="data.2")
    assert raw.reading.columns == ("data.0", "data.1")
    assert str(raw.reading.warnings[0]).startswith("2 columns of the array that holds the target, used as inputs")


@pytest.mark.parametrize(
    ("cell", "value", "note"),
    [
        ("01234", 1234.0, "1 value that lost the zeros in front in column zip (01234 as 1234 in own.csv:2)"),
        (str(2**53 + 1), 2.0**53, "1 value rounded to double precision in column zip (9007199254740993 as 9"),
        ("1e-400", 0.0, "1 value rounded to double precision in column zip (1e-400 as 0"),
        ("+1", 1.0, ""),
        ("1e3", 1000.0, ""),
        (" 7 ", 7.0, ""),
        (".5", 0.5, ""),
        ("0.1", 0.1, ""),
    ],
)
def test_a_value_changes_only_with_a_note(tmp_path, cell, value, note):
    raw = load(csv(tmp_path, frame(zip=[cell] + ["5"] * (ROWS - 1))))
    where = list(raw.reading.train_names).index("own.csv:2")
    assert raw.x_train[where, 2] == value
    assert "".join(map(str, raw.reading.coerced)).startswith(note) and bool(raw.reading.coerced) == bool(note)


def test_rounded_whole_numbers_of_binary_formats_are_told(tmp_path):
    large = np.full(ROWS, 2**53 + 1)
    frame(big=large, huge=large.astype(np.uint64) + np.uint64(2**63)).to_parquet(tmp_path / "own.parquet")
    made = frame()
    stored = npz(tmp_path, a=made.a, big=large, target=made.target)
    assert [n.count for n in load(tmp_path / "own.parquet").reading.coerced] == [ROWS, ROWS]
    assert [n.count for n in load(stored).reading.coerced] == [ROWS]
    decimals = pyarrow.table({"p": pyarrow.array(range(ROWS), pyarrow.decimal128(5, 2)), "target": made.target})
    parquet.write_table(decimals, tmp_path / "decimals.parquet")
    assert load(tmp_path / "decimals.parquet").x_train.max() >= ROWS - 12


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1,5", r"column odd has '1,5' with a decimal comma in own\.csv:2; write numbers with a point"),
        ("0x10", r"column odd is text, such as '0x10' in own\.csv:2"),
        ("1_000", "column odd is text, such as '1_000'"),
        ("\uff11", "column odd is text"),
        ("True", "column odd is text, such as 'True' in own.csv:2; write 1 and 0"),
        ("2024-01-01", "column odd is text, such as '2024-01-01'"),
        ("NA", "column odd has NA in own.csv:2; fill missing values in"),
        ("none", "column odd has none in own.csv:2; fill missing values in"),
        ("-Infinity", "column odd has -Infinity in own.csv:2"),
        ("1e999", "column odd has 1e999 in own.csv:2"),
        ("", "column odd has no value in own.csv:2"),
    ],
)
def test_cells_that_are_no_numbers_are_refused_with_their_line(tmp_path, cell, message):
    with pytest.raises(InputError, match=message):
        load(csv(tmp_path, frame(odd=[cell] + ["5"] * (ROWS - 1))))


def test_columns_of_other_kinds_are_refused(tmp_path):
    for values in (
        pd.date_range("2024-01-01", periods=ROWS),
        pd.Categorical(["x", "y"] * 20),
        [[1, 2]] * ROWS,
        [b"\xff"] * ROWS,
        ["01234"] * ROWS,
        [{"x": "y"}] * ROWS,
        pd.array([True, None] * 20, dtype="boolean"),
    ):
        frame(odd=values).to_parquet(tmp_path / "own.parquet")
        with pytest.raises(InputError, match=r"own\.parquet: column odd (is|has) "):
            load(tmp_path / "own.parquet")
    for values in (np.arange(ROWS).astype("M8[D]"), np.ones(ROWS, complex), np.array(["7"] * ROWS)):
        with pytest.raises(InputError, match=r"own\.npz: column odd (is|holds) "):
            load(npz(tmp_path, odd=values, target=np.arange(ROWS) % 2))
    frame(flag=np.arange(ROWS) % 2 == 0, kind=pd.Categorical(np.arange(ROWS) % 7)).to_parquet(tmp_path / "own.parquet")
    assert load(tmp_path / "own.parquet").x_train[:, 2:].max() == 6.0


def test_names_must_be_unique(tmp_path):
    both = pyarrow.table([pyarrow.array([1.0] * 8), pyarrow.array([0, 1] * 4)] * 2, names=["a", "target", "a", "b"])
    parquet.write_table(both, tmp_path / "own.parquet")
    with pytest.raises(InputError, match="each column needs a different name, but 'a' comes twice"):
        load(tmp_path / "own.parquet")
    with pytest.raises(InputError, match=r"two arrays give the column x\.0; rename one"):
        load(npz(tmp_path, **{"x": np.ones((8, 2)), "x.0": np.ones(8), "target": np.arange(8) % 2}))
    (tmp_path / "own.csv").write_text("a,target,a\n1,0,2\n")
    with pytest.raises(InputError, match="line 1: the first line must name each column once, but 'a' comes twice"):
        load(tmp_path / "own.csv")
