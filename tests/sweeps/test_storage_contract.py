"""What every kind of storage promises to the rest of `sweeps`: the same cases on a disk and in an object store."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.schema.line_files import first_line
from sweeps.storage.base import PART, Folder
from sweeps.storage.errors import StorageError
from sweeps.storage.folders import at, child
from sweeps.storage.s3 import S3Path, S3Storage
from tests.sweeps.object_store import bucket, endpoint

__all__ = ["bucket", "endpoint"]  # fixtures

FORK = multiprocessing.get_context("fork")
LAST = "meta.json"


@pytest.fixture(params=["local", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder that can be written and holds nothing."""
    monkeypatch.chdir(tmp_path)
    folder: Folder = tmp_path / "x" if request.param == "local" else request.getfixturevalue("bucket") / "x"
    at(folder).make_folder()
    return folder


def names(folder: Folder) -> list[str]:
    return [name for name, _ in at(folder).files()]


# names


def test_names(home: Folder) -> None:
    file = home / "a" / "b.json"
    assert (file.name, str(file.parent), str(file)) == ("b.json", f"{home}/a", f"{home}/a/b.json")
    assert file == home / "a" / "b.json"
    assert hash(file) == hash(home / "a" / "b.json")
    assert file.parent.parent == home
    with pytest.raises(ValueError, match="is no name for a folder"):
        child(home, "../b")


def test_a_storage_travels_to_workers(home: Folder) -> None:
    sent = pickle.loads(pickle.dumps(at(home / "a")))
    sent.write(b"1")
    assert (home / "a").read_bytes() == b"1"


def test_the_local_copy_is_a_folder_of_this_machine(home: Folder) -> None:
    assert at(home).local_copy.is_absolute()
    assert at(home / "a").local_copy == at(home).local_copy / "a"
    assert at(home).resolved("--out") == home


# files


def test_what_is_not_there(home: Folder) -> None:
    assert not (home / "a").exists()
    with pytest.raises(FileNotFoundError):
        (home / "a").read_bytes()
    at(home / "a").remove()
    assert at(home / "a").files() == []
    assert list(at(home).contents(["a", "b"])) == []


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole(home: Folder, durable: bool) -> None:
    for data in (b"one, the longer", b"\x00two"):
        at(home / "a").write(data, durable=durable)
        assert (home / "a").read_bytes() == data
    assert names(home) == ["a"], "nothing else is left"
    assert (home / "a").read_text() == "\x00two"
    at(home / "a").remove()
    assert not (home / "a").exists()


def test_files_are_listed_by_end_and_level(home: Folder) -> None:
    for folder in ("b", "a"):
        at(home / folder).make_folder()
        for name, size in (("2.jsonl", 3), ("1.jsonl", 0), (".hidden.jsonl", 1), ("other.json", 5)):
            at(home / folder / name).write(b"x" * size)
    at(home / "top.jsonl").write(b"")
    assert at(home).files(PART) == [("top.jsonl", 0)]
    assert at(home / "a").files(PART) == [(".hidden.jsonl", 1), ("1.jsonl", 0), ("2.jsonl", 3)]
    assert [name for name, _ in at(home).files(PART, levels=2)] == [
        "a/.hidden.jsonl", "a/1.jsonl", "a/2.jsonl", "b/.hidden.jsonl", "b/1.jsonl", "b/2.jsonl",
    ]  # fmt: skip
    found = at(home).contents(["a/2.jsonl", "gone", "b/other.json"])
    assert dict(found) == {"a/2.jsonl": b"xxx", "b/other.json": b"xxxxx"}


def test_a_folder_that_can_be_written_says_so_and_is_left_as_it_was(home: Folder) -> None:
    assert at(home / "new").unwritable() is None
    assert names(home / "new") == []
    at(home).check_room()


# lines


def lines_in(folder: Folder) -> list[bytes]:
    """All lines, those with lower numbers first."""
    parts = sorted(at(folder).contents(names(folder)), key=lambda part: first_line(part[0]))
    return [line for _, data in parts for line in data.splitlines()]


def test_lines_of_writers_that_follow_each_other_keep_their_order(home: Folder) -> None:
    cell = home / "cell"
    for start in (0, 3, 6):
        writer = at(cell).lines()
        for number in range(start, start + 3):
            writer.append(b"%d\n" % number)
            assert lines_in(cell)[-1] == b"%d" % number, "it can be read at once"
    assert lines_in(cell) == [b"%d" % number for number in range(9)]
    assert {first_line(name) for name in names(cell)} >= {0, 3, 6}
    assert all(name.endswith(PART) for name in names(cell))


def test_writers_at_once_share_no_file(home: Folder) -> None:
    cell = home / "cell"
    one, other = at(cell).lines(), at(cell).lines()
    for number in range(6):
        (other if number % 2 else one).append(b"%d\n" % number)
    per_file = [set(data.split()) for _, data in at(cell).contents(names(cell))]
    assert all(found <= {b"0", b"2", b"4"} or found <= {b"1", b"3", b"5"} for found in per_file)
    assert sorted(lines_in(cell)) == [b"%d" % number for number in range(6)]


# folders that are written as a whole


def test_a_folder_is_there_when_its_last_file_is(home: Folder) -> None:
    folder = home / "model" / "1"
    assert not at(folder).has_folder(LAST)
    at(folder).write_folder({"a": b"1", LAST: b"2"})
    assert at(folder).has_folder(LAST)
    assert dict(at(folder).contents(["a", LAST])) == {"a": b"1", LAST: b"2"}
    assert names(home / "model") == [], "nothing else is left"


class Interrupted(dict[str, bytes]):
    """Files of which the writer comes to the first only."""

    def items(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
        yield next(iter(super().items()))
        raise KeyboardInterrupt


def test_a_folder_that_was_begun_is_not_there(home: Folder) -> None:
    folder = home / "model" / "1"
    with pytest.raises(KeyboardInterrupt):
        at(folder).write_folder(Interrupted({"a": b"1", LAST: b"2"}))
    assert not at(folder).has_folder(LAST)
    at(folder).write_folder({"a": b"3", LAST: b"4"})
    assert dict(at(folder).contents(["a", LAST])) == {"a": b"3", LAST: b"4"}


@pytest.mark.parametrize("second_is_interrupted", [True, False])
def test_of_two_writers_of_a_folder_nothing_is_mixed(home: Folder, second_is_interrupted: bool) -> None:
    folder = home / "model" / "1"

    def files(checksum: str) -> dict[str, bytes]:
        return {at(folder).file_name("tensors.bin", checksum): checksum.encode(), LAST: checksum.encode()}

    assert all(name.startswith("tensors") and name.endswith(".bin") for name in files("1f") if name != LAST)
    at(folder).write_folder(files("1f"))
    second = Interrupted(files("2e")) if second_is_interrupted else files("2e")
    with contextlib.suppress(StorageError, KeyboardInterrupt):  # on a disk there is one already
        at(folder).write_folder(second)
    last = (folder / LAST).read_bytes().decode()
    assert {name: (folder / name).read_bytes() for name in files(last)} == files(last)
    assert last == "1f" or not second_is_interrupted


def test_what_was_discarded_is_in_nobodys_way(home: Folder) -> None:
    folder = home / "model" / "1"
    for data in (b"1", b"2"):
        at(folder).write_folder({LAST: data})
        assert (folder / LAST).read_bytes() == data
        at(folder).discard_folder()


# leases


def _create(file: Folder, number: int, barrier: Any, made: Any) -> None:
    barrier.wait(30)
    made.put(at(file).create(b"%d" % number))


@pytest.mark.slow
def test_of_many_that_create_a_file_one_does(home: Folder) -> None:
    barrier, made = FORK.Barrier(6), FORK.Queue()
    processes = [FORK.Process(target=_create, args=(home / "lock", number, barrier, made)) for number in range(6)]
    for process in processes:
        process.start()
    assert sum(made.get(timeout=60) for _ in processes) == 1
    for process in processes:
        process.join(60)
    seen = at(home / "lock").look()
    assert seen is not None
    assert seen.data in {b"%d" % number for number in range(6)}
    assert not at(home / "lock").create(b"another")
    assert at(home / "lock").look() == seen._replace(now=at(home / "lock").look().now)  # type: ignore[union-attr]


def test_a_file_is_dated_by_the_clock_of_its_storage(home: Folder) -> None:
    lock = at(home / "lock")
    assert lock.look() is None
    assert not lock.touch(b"mine")
    assert lock.create(b"mine")
    seen = lock.look()
    assert seen is not None
    assert -2 < lock.age(seen) < 60  # an object store tells seconds only
    assert lock.age(seen._replace(dated=seen.dated - 100)) == pytest.approx(lock.age(seen) + 100, abs=5)
    assert lock.touch(b"mine")
    assert not lock.touch(b"another's")
    assert names(home) == ["lock"], "nothing else is left"


def test_a_file_is_cleared_unless_it_has_changed(home: Folder) -> None:
    lock = at(home / "lock")
    lock.create(b"dead")
    seen = lock.look()
    assert seen is not None
    lock.remove()
    lock.create(b"alive")
    lock.clear(seen, lambda age: False)
    now = lock.look()
    assert now is not None
    assert now.data == b"alive"
    lock.clear(now, lambda age: False)
    assert names(home) == []
    lock.clear(now, lambda age: False)  # another was faster
    assert names(home) == []


# what only one kind can lose


def test_what_must_last_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(number: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    writer = at(tmp_path / "cell").lines()
    for count in (1, 2):
        writer.append(b"line\n")
        assert synced == names(tmp_path / "cell") * count
    synced.clear()
    at(tmp_path / "a").write(b"1")
    assert len(synced) == 1
    at(tmp_path / "quick").write(b"1", durable=False)
    assert len(synced) == 1
    at(tmp_path / "model" / "1").write_folder({"a": b"1", LAST: b"2"})
    assert synced[1:] == ["a", LAST]


def test_objects_are_written_in_the_order_in_which_they_are_given(
    bucket: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(S3Storage, "write", lambda self, data: written.append(self.path.name))
    at(bucket / "model" / "1").write_folder({"b": b"1", "a": b"2", LAST: b"3"})
    assert written == ["b", "a", LAST]


def test_a_lease_that_was_lost_between_look_and_touch_stays_lost(
    bucket: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = S3Storage(bucket / "lock")
    lock.create(b"mine")
    before = lock.look()
    lock.write(b"another's")
    monkeypatch.setattr(S3Storage, "look", lambda self: before)
    assert not lock.touch(b"mine")
    assert lock.path.read_bytes() == b"another's"
