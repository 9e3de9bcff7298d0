"""Artifacts: made once, checked when read, made again when damaged."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sweeps.schema.digest import digest
from sweeps.storage.artifacts import Artifact, ArtifactStore, read, write
from sweeps.storage.errors import StorageError
from sweeps.storage.local import ABANDONED, LocalStorage
from tests.sweeps.artifact_maker import CONTENT, RECIPE, Maker, same


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def folder_of(store: ArtifactStore) -> Path:
    return store.root / "model" / digest(RECIPE)


def test_what_a_killed_writer_left_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    store, folder = ArtifactStore(tmp_path), tmp_path / "model" / digest({"seed": 1})
    old, young, other = (folder.with_name(name) for name in (f".{folder.name}-1", f".{folder.name}-2", ".other-1"))
    for left in (old, young, other):
        left.mkdir(parents=True)
        (left / "tensors.safetensors").write_bytes(b"half")
    long_ago = time.time() - 2 * ABANDONED
    for left in (old, other):
        os.utime(left, (long_ago, long_ago))
    store.get("model", {"seed": 1}, lambda: Artifact({}, {}))
    assert [left.exists() for left in (old, young, other)] == [False, True, True]


def test_made_once_and_read_back_exactly(store: ArtifactStore) -> None:
    make = Maker()
    first, again = store.get("model", RECIPE, make), ArtifactStore(store.root).get("model", RECIPE, make)
    assert make.calls == 1
    assert same(first, make())
    assert same(first, again)
    store.get("model", RECIPE | {"lr": 0.2}, make)
    store.get("poison", RECIPE, make)
    assert make.calls == 4  # with the one above


def test_only_safetensors_and_json_are_kept(store: ArtifactStore) -> None:
    store.get("model", RECIPE, Maker())
    assert sorted(path.name for path in store.root.rglob("*") if path.is_file()) == ["meta.json", "tensors.safetensors"]
    assert [path.name for path in (store.root / "model").iterdir()] == [digest(RECIPE)]
    assert json.loads((folder_of(store) / "meta.json").read_text())["recipe"] == RECIPE


@pytest.mark.parametrize("name", ["meta.json", "tensors.safetensors"])
def test_a_flipped_bit_anywhere_is_noticed(store: ArtifactStore, name: str, caplog: pytest.LogCaptureFixture) -> None:
    make = Maker()
    sound = store.get("model", RECIPE, make)
    path = folder_of(store) / name
    whole = path.read_bytes()
    for place in range(0, len(whole), 7 if name == "meta.json" else 1):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        before = make.calls
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert same(store.get("model", RECIPE, make), sound)
        if make.calls == before:  # white space in meta.json
            assert json.loads(damaged) == json.loads(whole), place
        else:
            assert "is damaged" in caplog.text
            assert make.calls == before + 1


def truncate(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "tensors cut": truncate,
    "tensors empty": lambda folder: (folder / "tensors.safetensors").write_bytes(b""),
    "tensors missing": lambda folder: (folder / "tensors.safetensors").unlink(),
    "meta missing": lambda folder: (folder / "meta.json").unlink(),
    "meta empty": lambda folder: (folder / "meta.json").write_text(""),
    "meta null": lambda folder: (folder / "meta.json").write_text("null"),
    "meta of another kind": lambda folder: (folder / "meta.json").write_text('{"sha256": "0"}'),
    "meta not text": lambda folder: (folder / "meta.json").write_bytes(b"\xff\xfe"),
    "both missing": lambda folder: [path.unlink() for path in folder.iterdir()],
    "meta nested without end": lambda folder: (folder / "meta.json").write_text("[" * 100_000),
    "meta a folder": lambda folder: [(folder / "meta.json").unlink(), (folder / "meta.json").mkdir()],
    "tensors a folder": lambda folder: [truncate(folder), into_folder(folder / "tensors.safetensors")],
    "a file in its place": lambda folder: [shutil.rmtree(folder), folder.write_text("file")],
    "a link to nothing in its place": lambda folder: [shutil.rmtree(folder), folder.symlink_to("gone")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_artifacts_are_made_again(store: ArtifactStore, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    make = Maker()
    sound = store.get("model", RECIPE, make)
    DAMAGES[damage](folder_of(store))
    assert same(store.get("model", RECIPE, make), sound)
    assert make.calls == 2
    assert "it is made again" in caplog.text
    assert same(store.get("model", RECIPE, make), sound)
    assert make.calls == 2


def test_a_file_in_place_of_a_folder_of_the_store_is_one_line(store: ArtifactStore) -> None:
    store.root.mkdir()
    (store.root / "model").write_text("file")
    with pytest.raises(StorageError, match="model cannot be written: .*; move away what stands in its place"):
        store.get("model", RECIPE, Maker())
    assert (store.root / "model").read_text() == "file"


def test_half_written_folders_are_ignored(store: ArtifactStore) -> None:
    left = folder_of(store).with_name(f".{digest(RECIPE)}-12345678")
    left.mkdir(parents=True)
    (left / "tensors.safetensors").write_bytes(b"half")
    make = Maker()
    store.get("model", RECIPE, make)
    assert same(store.get("model", RECIPE, make), make())
    assert make.calls == 2


def test_a_writer_that_comes_second_keeps_the_first_copy(store: ArtifactStore) -> None:
    folder, make = folder_of(store), Maker()
    one, other = make(), Artifact({"w": torch.zeros(1)}, {})
    for artifact in (one, other):
        contiguous = {name: tensor.contiguous() for name, tensor in artifact.tensors.items()}
        write(folder, Artifact(contiguous, artifact.meta), RECIPE)
    found = read(folder)
    assert found is not None
    assert same(found, one)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def _race(root: Path, barrier: object, results: object, *, leases: bool) -> None:
    """Ask for the same artifact as another process does at this moment; tells how often this one made it."""
    if not leases:  # as on storage that takes none

        def refuse(self: LocalStorage, data: bytes) -> bool:
            raise PermissionError(1, "no", str(self.path))

        LocalStorage.create = refuse  # type: ignore[method-assign]
    calls = []

    def make() -> Artifact:
        calls.append(1)
        if leases:
            time.sleep(0.5)
        else:
            barrier.wait(30)  # type: ignore[attr-defined]  # both are making it now
        return Artifact({"w": torch.arange(1000.0)}, dict(CONTENT))

    barrier.wait(30)  # type: ignore[attr-defined]
    made = ArtifactStore(root).get("model", RECIPE, make)
    results.put((float(made.tensors["w"].sum()), made.meta, len(calls)))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("leases", "made"), [(True, [0, 1]), (False, [1, 1])])
def test_processes_that_ask_for_the_same_at_once(store: ArtifactStore, leases: bool, made: list[int]) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    arguments, options = (store.root, barrier, results), {"leases": leases}
    both = [context.Process(target=_race, args=arguments, kwargs=options) for _ in range(2)]
    for process in both:
        process.start()
    found = [results.get(timeout=60) for _ in both]
    assert [one[:2] for one in found] == [(499500.0, CONTENT)] * 2
    assert sorted(one[2] for one in found) == made
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert [path.name for path in (store.root / "model").iterdir()] == [digest(RECIPE)]


def _make_for_ever(root: Path, begun: object) -> None:
    def make() -> Artifact:
        begun.set()  # type: ignore[attr-defined]
        time.sleep(600)
        raise AssertionError

    ArtifactStore(root).get("model", RECIPE, make)


def test_when_the_maker_is_killed_one_who_waits_takes_over(store: ArtifactStore) -> None:
    context = multiprocessing.get_context("fork")
    begun, make = context.Event(), Maker()
    process = context.Process(target=_make_for_ever, args=(store.root, begun))
    process.start()
    assert begun.wait(30)
    killer = threading.Timer(0.5, process.kill)
    killer.start()
    began = time.monotonic()
    assert same(store.get("model", RECIPE, make), make())
    assert time.monotonic() - began >= 0.5
    process.join(30)
    assert [path.name for path in (store.root / "model").iterdir()] == [digest(RECIPE)]


def test_a_maker_that_fails_leaves_nothing_in_the_way(store: ArtifactStore) -> None:
    def fail() -> Artifact:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.get("model", RECIPE, fail)
    assert list((store.root / "model").iterdir()) == []
    assert same(store.get("model", RECIPE, Maker()), Maker()())


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file in the way")
    with pytest.raises(OSError):
        ArtifactStore(tmp_path / "store").get("model", RECIPE, Maker())


def test_digest_is_of_the_value_not_of_its_form() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1, 2), "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0})  # settings are cast to their types before they come here
    with pytest.raises(ValueError):
        digest({"a": float("nan")})
