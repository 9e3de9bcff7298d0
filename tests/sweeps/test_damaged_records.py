"""Damaged or foreign records and `sweep.json`: named, left out and made again, never a traceback."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.load import load_sweep
from sweeps.__main__ import main as ask
from sweeps.cli import main
from sweeps.driver import Driver
from sweeps.record_lines import DamagedError, from_line, to_line
from sweeps.records import MANIFEST_KINDS
from sweeps.store import read_trials
from tests.faults.feeding import Feed
from tests.faults.feeding import feed as feed  # a fixture
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import bare_trial, compacted, science, write_config

Change = Callable[[dict[str, Any]], Any]


def put(name: str, value: Any) -> Change:
    return lambda trial: trial.update({name: value})


def put_in_rung(name: str, value: Any) -> Change:
    return lambda trial: trial["rungs"][-1].update({name: value})


MUTATIONS: dict[str, Change] = {
    "schema of the future": put("schema", 99),
    "schema as text": put("schema", "2"),
    "schema missing": lambda trial: trial.pop("schema"),
    "id as a number": put("trial_id", 7),
    "id missing": lambda trial: trial.pop("trial_id"),
    "stage unknown": put("stage", "training"),
    "stage as a list": put("stage", ["tuning"]),
    "study null": put("study", None),
    "method as a mapping": put("method", {"name": "gd"}),
    "attack as a number": put("attack", 3),
    "seed as text": put("seed", "zero"),
    "seed as a real number": put("seed", 0.5),
    "seed beyond 64 bits": put("seed", 2**70),
    "settings not JSON": put("settings", "{"),
    "settings a list": put("settings", "[1]"),
    "settings no text": put("settings", {"lr": 1}),
    "chosen_for a mapping": put("chosen_for", "{}"),
    "error as a number": put("error", 1),
    "error missing": lambda trial: trial.pop("error"),
    "took as text": put("attack_took", "yes"),
    "rungs null": put("rungs", None),
    "rungs a mapping": put("rungs", {}),
    "a rung is a number": lambda trial: trial["rungs"].append(3),
    "a rung without budget": lambda trial: trial["rungs"][-1].pop("budget"),
    "status unknown": put_in_rung("status", "fine"),
    "budget as text": put_in_rung("budget", "0.1"),
    "metrics a list": put_in_rung("metrics", [1]),
    "a metric is text": put_in_rung("metrics", {"auc": "high"}),
    "a metric called budget": put_in_rung("metrics", {"budget": 0.5}),
    "efficacy beyond 1": put_in_rung("efficacy", 3.5),
    "accuracy beyond 1": put_in_rung("test_accuracy", 7.0),
    "flops below 0": put_in_rung("flops", -1.0),
    "flops beyond every float": put_in_rung("flops", 10**400),
}
MANIFESTS: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "nested beyond reading": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "no text": b"\xff\xfe",
    "no spec": b"{}",
    "spec a list": {"spec": []},
    "spec of another sort": {"spec": {"name": 3}},
    "methods of the spec a number": {"spec": {"methods": 3}},
    "name a list": {"name": ["tiny"]},
    "versions a text": {"versions": "new"},
    "machine a number": {"machine": 3},
    "data a mapping": {"data": {}},
}


@pytest.fixture(scope="module")
def whole(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished sweep with everything that the command adds; read it only."""
    out = tmp_path_factory.mktemp("whole")
    shutil.copytree(done.dir, out / "tiny")
    assert run(out / "tiny", out) == 0
    return out / "tiny"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out" / "tiny"))


def change_one(folder: Path, change: Change, *, seal: bool) -> Path:
    """Change the last line of a file with records; seal: with a checksum that fits, as another tool might write it."""
    part = max(folder.glob("records/*/*.jsonl"), key=lambda path: ("--" in path.parent.name, path.name))
    *others, last = part.read_bytes().splitlines(keepends=True)
    trial = copy.deepcopy(from_line(last.rstrip()))
    change(trial)
    line = to_line(trial) if seal else json.dumps(trial).encode()[:-1] + last[last.rindex(b',"checksum"') :]
    part.write_bytes(b"".join(others) + line)
    return part


def run(folder: Path, tmp_path: Path) -> int:
    """The command, without its report."""
    config = write_config(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "_analyse", lambda self: 0)
        return main(["--config", str(config), "--out", str(folder.parent), "--inline", "--no-tracking"])


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("seal", [True, False], ids=["sealed", "not sealed"])
def test_a_changed_line_is_named_and_counts_as_not_done(
    name: str, seal: bool, folder: Path, done: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    part = change_one(folder, MUTATIONS[name], seal=seal)
    assert len(read_trials(folder)) == len(done.trials) - 1
    told = capsys.readouterr().err
    assert f"{part}, line {len(part.read_bytes().splitlines())}: " in told
    for verb in ("status", "failures"):
        assert ask([verb, str(folder)]) == 0
    compacted(folder)
    (folder / "records.parquet").unlink()
    sweep = load_sweep(folder)
    assert set(sweep.rows["trial_id"]) <= {trial["trial_id"] for trial in done.trials}
    assert any("1 torn or damaged" in note and part.name in note for note in sweep.notes)


@pytest.mark.parametrize("name", ["a metric called budget", "schema of the future"])
def test_the_trial_of_a_damaged_line_is_done_again(
    name: str, folder: Path, done: Done, tmp_path: Path, feed: Feed
) -> None:
    change_one(folder, MUTATIONS[name], seal=True)
    assert run(folder, tmp_path) == 0
    assert science(read_trials(folder)) == science(done.trials)
    feed("record damaged", folder, done.trials)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_is_one_line(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, content = folder / "sweep.json", MANIFESTS[name]
    changed = content if isinstance(content, bytes) else json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(changed)
    for verb in ("status", "failures", "export"):
        to = ["--to", str(tmp_path / "x.tar.gz")] if verb == "export" else []
        assert ask([verb, str(folder), *to]) in (0, 2)
    assert run(folder, tmp_path) in (0, 2)
    capsys.readouterr()
    compacted(folder)
    assert load_sweep(folder).rows.shape[0] > 0


def test_the_manifest_is_what_the_schema_says(folder: Path) -> None:
    content = json.loads((folder / "sweep.json").read_text())
    assert content.keys() <= MANIFEST_KINDS.keys()


@settings(deadline=None, max_examples=300)
@given(bit=st.integers(0, 10**6))
def test_every_flipped_bit_is_seen(bit: int) -> None:
    rung = {"budget": 0.1, "status": "ok", "removal": 0.5, "efficacy": 0.5, "test_accuracy": 0.9, "metrics": {"x": 1.5}}
    line = to_line(bare_trial(3, rungs=[rung])).rstrip()
    place = bit % (8 * len(line))
    flipped = bytearray(line)
    flipped[place // 8] ^= 1 << place % 8
    with pytest.raises(DamagedError):
        from_line(bytes(flipped))


def test_lines_from_before_checksums_are_read(done: Done) -> None:
    old = done.trials[0] | {"schema": 1}
    assert from_line(json.dumps(old).encode()) == old
    with pytest.raises(DamagedError, match="checksum is missing"):
        from_line(json.dumps(done.trials[0]).encode())
