"""Files that are none, too large, packed too tightly, or in another encoding: refused before they are read."""

import os
import re
import time
import zipfile

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from unlearn_core.checks import InputError
from unlearn_core.datasets import Imdb, Npz, Table, Tsv
from unlearn_core.host import files

KEYS = ("x_train", "y_train", "x_test", "y_test")


def refused(source, message, root=None):
    start = time.process_time()
    with pytest.raises(InputError, match=message) as problem:
        source.load(root)
    assert "\n" not in str(problem.value)
    assert time.process_time() - start < 5
    return str(problem.value)


def header(shape, dtype="|u1", version=(1, 0)):
    """The beginning of an array's file, with no values after it."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}) + "\n"
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text.encode()


def sources(path):
    ending = path.suffix
    return [Npz(path=str(path)), Table(path=str(path))] if ending == ".npz" else [Table(path=str(path))]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz"])
def test_what_is_no_file_is_never_waited_for(tmp_path, ending):
    pipe, folder, link = (tmp_path / f"{name}{ending}" for name in ("pipe", "folder", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/dev/zero")
    for path, kind in ((pipe, "a pipe"), (folder, "a folder"), (link, "a device")):
        for source in sources(path):
            refused(source, f"{re.escape(str(path))} is {kind}, not a file")


def test_texts_that_are_no_files_are_never_waited_for(tmp_path):
    (tmp_path / "hub").mkdir()
    os.mkfifo(tmp_path / "train.tsv")
    refused(Tsv(path=str(tmp_path)), r"train\.tsv is a pipe, not a file")
    os.mkfifo(tmp_path / "hub" / "train-0.parquet")
    refused(Imdb(hub=str(tmp_path / "hub")), r"train-0\.parquet is a pipe, not a file")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_array_that_declares_a_terabyte_is_refused(tmp_path, version):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", header((10**6, 1000, 1000), version=version))
    for source in sources(tmp_path / "own.npz"):
        refused(source, r"own\.npz: holds 3,725\.3 GiB, more than the .* GiB that fit into memory here")


def test_an_archive_that_is_packed_too_tightly_is_refused(tmp_path):
    zeros = bytes(10**6)
    with zipfile.ZipFile(tmp_path / "own.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in KEYS:
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                member.write(header((200, 10**6)))
                for _ in range(200):
                    member.write(zeros)
    for source in sources(tmp_path / "own.npz"):
        refused(source, r"own\.npz: .* MiB on disk would become 0\.7 GiB in memory, .* times as much")


def test_a_parquet_file_that_is_packed_too_tightly_is_refused(tmp_path):
    rows = 3_000_000
    column = pyarrow.array(np.zeros(rows))
    table = pyarrow.table({f"c{i}": column for i in range(24)} | {"target": column})
    parquet.write_table(table, tmp_path / "own.parquet", compression="zstd")
    refused(Table(path=str(tmp_path / "own.parquet")), r"own\.parquet: .* MiB on disk would become 0\.6 GiB in memory")


@pytest.mark.slow
def test_equal_long_texts_are_limited_too(tmp_path):
    column = pyarrow.array(["x" * 10**6] * 1000).dictionary_encode()
    for part in ("train", "test"):
        table = pyarrow.table({"text": column.cast(pyarrow.string()), "label": [0, 1] * 500})
        parquet.write_table(table, tmp_path / f"{part}-0.parquet")
    refused(Imdb(hub=str(tmp_path)), r"train-0\.parquet: .* on disk would become 0\.9 GiB in memory")


def test_the_limit_is_that_of_the_memory_that_is_available(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", a=np.arange(10**5) % 7, target=np.arange(10**5) % 2)
    pd.DataFrame({"a": range(10**5), "target": np.arange(10**5) % 2}).to_csv(tmp_path / "own.csv", index=False)
    pd.DataFrame({"a": range(10**5), "target": np.arange(10**5) % 2}).to_parquet(tmp_path / "own.parquet", index=False)
    paths = [tmp_path / f"own{ending}" for ending in (".npz", ".csv", ".parquet")]
    for path in paths:
        assert Table(path=str(path)).load(None).classes == 2
    monkeypatch.setattr(files, "available_memory", lambda: 2**20)
    for path in paths:
        refused(Table(path=str(path)), r"own\..*: holds .* MiB, more than the 0\.5 MiB that fit into memory here")


def test_available_memory_is_some():
    assert 2**26 < files.available_memory() < 2**50


def test_the_limit_of_a_container_counts_without_what_is_only_cached(tmp_path):
    for name, text in (("max", "1000"), ("current", "900"), ("stat", "anon 500\nactive_file 100\ninactive_file 250\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert files._left_in_container(tmp_path) == 450


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,target\n1,0\n2,1\n".encode("utf-16"), "it looks like UTF-16; save it as UTF-8"),
        ("a,target\n1,0\n2,1\n".encode("utf-16-le"), "it looks like UTF-16; save it as UTF-8"),
        ("a,target\n1,Zürich\n2,Bern\n".encode("latin-1"), "line 2: cannot be read, byte 0xfc is no UTF-8"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, message):
    (tmp_path / "own.csv").write_bytes(content)
    refused(Table(path=str(tmp_path / "own.csv")), message)
    texts = content.replace(b",", b"\t")
    (tmp_path / "train.tsv").write_bytes(texts)
    refused(Tsv(path=str(tmp_path)), message)


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n\n"])
def test_marks_and_line_ends_of_other_systems_change_nothing(tmp_path, change):
    text = "a,target\n" + "".join(f"{i},{i % 2}\n" for i in range(20))
    plain, changed = tmp_path / "plain.csv", tmp_path / "changed.csv"
    plain.write_bytes(text.encode())
    changed.write_bytes(change(text).encode())
    both = [Table(path=str(path)).load(None) for path in (plain, changed)]
    assert np.array_equal(both[0].x_train, both[1].x_train) and both[0].reading.columns == both[1].reading.columns
    assert [name.split(":")[1] for name in both[1].reading.train_names] == [
        name.split(":")[1] for name in both[0].reading.train_names
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# made by a tool\na,target\n1,0\n", "line 1: is '# made by a tool', not the names of the columns; delete"),
        ("sep=,\na,target\n1,0\n", "line 1: is 'sep=,', not the names of the columns; delete what stands above them"),
        ("a,target\n1,0\n# half\n2,1\n", "line 3: must have 2 values, .* has 1: '# half'; delete the comment"),
        (
            "a;target\n1,5;0\n",
            "line 1: has semicolons between columns, as in 'a;target'; write commas, and numbers",
        ),
        ("a;target\n1;0\n", "line 1: has semicolons between columns, as in 'a;target'; write commas$"),
        ("a\ttarget\n1\t0\n", "line 1: has tabs between columns"),
        ("a|target\n1|0\n", "line 1: has bars between columns"),
        ("a,target\n1,5,0\n", "line 2: must have 2 values, .* has 3: '1,5,0'; write numbers with a point if they have"),
        ("5.1,3.5,0\n4.9,3.0,1\n", "line 1: must name the columns, but holds numbers, '5.1,3.5,0'; add a line"),
        ("a,target,\n1,0,x\n", "line 1: the first line must name each column once, but column 3 has no name"),
        (",,\n1,0,1\n", "line 1: the first line must name each column once"),
    ],
)
def test_what_is_no_table_with_commas_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text)
    refused(Table(path=str(tmp_path / "own.csv")), message)


def test_empty_columns_and_rows_of_spreadsheets_are_left_out(tmp_path):
    rows = "".join(f"{i},{i % 2},,\n" for i in range(20))
    (tmp_path / "own.csv").write_text("a,target,,\n" + rows + ",,,\n")
    raw = Table(path=str(tmp_path / "own.csv")).load(None)
    assert [str(note) for note in raw.reading.left_out] == [
        "1 row without a label ('' in own.csv:22)",
        "2 columns without a name or a value (column 3, column 4)",
    ]
    assert raw.reading.rows_found == 21


def test_a_file_of_arrays_that_are_none_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("target.npy", header((2,)) + b"\0\1")
        archive.writestr("notes.txt", "hello")
    refused(Table(path=str(tmp_path / "own.npz")), r"'notes\.txt' is no array; take it out of the file")
    np.savez(tmp_path / "own.npz", target=np.array(["a", None], dtype=object))
    refused(Table(path=str(tmp_path / "own.npz")), r"cannot be read, target holds Python objects; store it as numbers")
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("target.npy", header((2,)) + b"\0\1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("target.npy", header((2,)) + b"\0\1")
    refused(Table(path=str(tmp_path / "own.npz")), "'target' comes twice; each array needs a different name")
