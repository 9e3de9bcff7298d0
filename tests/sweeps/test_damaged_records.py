"""Damaged or foreign records and `sweep.json`: named, left out and made again, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.figures.panels import KINDS
from analysis.page_section import section
from analysis.pages.page import render
from analysis.reading.load import load_sweep
from analysis.results.analyse import analyse
from analysis.tables.report_tables import all_tables
from sweeps.__main__ import main as ask
from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.schema.lines import DamagedError, from_line, sealed, to_content, to_line
from sweeps.schema.manifest_kinds import MANIFEST_KINDS, wrong_in_manifest
from sweeps.storage.record_log import read_trials
from tests.faults.feeding import Feed
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
    "proposal missing": put("proposal", None),
    "proposal below 0": put("proposal", -1),
    "settings without a method": put("settings", '{"lr": 0.1}'),
    "chosen_for of words": put("chosen_for", '["a"]'),
    "chosen_for of nothing": put("chosen_for", "[null]"),
    "a score without efficacy": lambda trial: trial["rungs"][-1].update(removal=None, efficacy=None, score=0.5),
    "text that is no Unicode": put("primary_metric", "\ud800"),
    "a metric that is no Unicode": put_in_rung("metrics", {"\ud800": 0.5}),
}
REFERENCES: dict[str, Change] = {
    "took missing": lambda trial: trial.pop("attack_took"),
    "took empty": put("attack_took", None),
    "no rungs": put("rungs", []),
    "no metrics": lambda trial: trial["rungs"][0].pop("metrics"),
    "no seconds": put_in_rung("seconds", None),
}
"""Changes to what other trials are compared with."""
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
    "begun in month 13": {"started_at": "2026-13-45"},
    "attacks without names": {"spec": {"attacks": [{"name": ["badnets"]}]}},
    "methods of lists": {"spec": {"methods": [["gd"]]}},
    "seeds of no number": {"spec": {"seeds": {"confirmation": 3}}},
    "a seed beyond every float": {"spec": {"seeds": {"confirmation": [10**400]}}},
    "a tolerance below 0": {"spec": {"utility_tolerance": -1}},
    "text that is no Unicode": {"name": "\ud800", "command": "\ud800"},
    "card a number": {"card": 3},
    "card of nothing": {"card": {}},
}
SPLIT = {"name": "train", "rows": 3, "per_class": [1, 2], "low": 0.0, "high": 1}
NOTE = {"count": 3, "text": "rows", "examples": ["a"]}
CARD: dict[str, Any] = {
    "name": "digits", "kind": "images", "classes": ["a", "b"], "shape": [8, 8],
    "splits": [SPLIT | {"name": name} for name in ("train", "validation", "test")], "used": ["x.csv"], "facts": [NOTE],
}  # fmt: skip
CARDS: dict[str, dict[str, Any]] = {
    "no name": {"name": None},
    "classes of numbers": {"classes": [1, 2]},
    "shape of words": {"shape": ["8"]},
    "splits a mapping": {"splits": {}},
    "no splits": {"splits": []},
    "a split of numbers": {"splits": [1, 2, 3]},
    "a split that nobody knows": {"splits": [SPLIT | {"name": name} for name in ("train", "dev", "test")]},
    "a split twice": {"splits": [SPLIT] * 3},
    "low is a word": {"splits": [*CARD["splits"][:2], SPLIT | {"name": "test", "low": "0"}]},
    "rows of more classes": {"splits": [*CARD["splits"][:2], SPLIT | {"name": "test", "per_class": [1, 2, 3]}]},
    "a note without count": {"facts": [{"text": "rows", "examples": []}]},
    "notes of a note": {"left_out": NOTE},
    "an entry that nobody knows": {"surprise": 3},
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


def change_one(folder: Path, change: Change, *, seal: bool, cell: str = "badnets--ssd") -> Path:
    """Change the last line of a file with records; seal: with a checksum that fits, as another tool might write it."""
    (part,) = folder.glob(f"records/{cell}/*.jsonl")
    *others, last = part.read_bytes().splitlines(keepends=True)
    content = to_content(from_line(last.rstrip()))
    change(content)
    line = sealed(content) if seal else json.dumps(content).encode()[:-1] + last[last.rindex(b',"checksum"') :]
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
    assert set(sweep.rows["trial_id"]) <= {trial.trial_id for trial in done.trials}
    assert any("1 torn or damaged" in note and part.name in note for note in sweep.notes)


@pytest.mark.parametrize("name", ["a metric called budget", "schema of the future"])
def test_the_trial_of_a_damaged_line_is_done_again(
    name: str, folder: Path, done: Done, tmp_path: Path, feed: Feed
) -> None:
    change_one(folder, MUTATIONS[name], seal=True)
    assert run(folder, tmp_path) == 0
    assert science(read_trials(folder)) == science(done.trials)
    feed("record damaged", folder, done.trials)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_damaged_reference_is_measured_again(
    name: str, folder: Path, done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_one(folder, REFERENCES[name], seal=True, cell="badnets--references--seed1")
    for verb in ("status", "failures"):
        assert ask([verb, str(folder)]) == 0
    assert "damaged record: " in capsys.readouterr().err
    assert run(folder, tmp_path) == 0
    assert science(read_trials(folder)) == science(done.trials)


def test_a_line_that_was_copied_from_another_cell_answers_nothing(folder: Path, done: Done, tmp_path: Path) -> None:
    (part,), (other,) = (folder.glob(f"records/badnets--{name}/*.jsonl") for name in ("gd", "ssd"))
    part.write_bytes(other.read_bytes())
    assert run(folder, tmp_path) == 0
    assert science(read_trials(folder)) == science(done.trials)


@pytest.mark.parametrize("alone", [True, False], ids=["a file of its own", "in a file of ours"])
def test_a_trial_of_another_sweep_is_named(
    alone: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = folder.glob("records/badnets--gd/*.jsonl")
    lines = part.read_bytes().splitlines()
    foreign = to_line(replace(from_line(lines[0]), group_id="0123456789abcdef", trial_id="foreign"))
    before = b"" if alone else part.read_bytes()
    place = part.with_name("00000009-foreign.jsonl") if alone else part
    place.write_bytes(before + foreign)
    assert run(folder, tmp_path) == 2
    number = 1 if alone else len(lines) + 1
    assert f"{place}, line {number}, is a trial of another sweep; take" in capsys.readouterr().err
    compacted(folder)
    assert any("of another sweep" in note for note in load_sweep(folder).notes)


@pytest.mark.slow
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
    results = analyse(load_sweep(folder))
    assert render(results, tables=all_tables(results), figures={kind: [] for kind in KINDS}) and section(results)


@pytest.mark.parametrize("name", CARDS)
def test_a_damaged_card_is_seen(name: str) -> None:
    assert wrong_in_manifest({"card": CARD}) == wrong_in_manifest({"card": None}) == []
    assert wrong_in_manifest({"card": CARD | CARDS[name]}) == ["card"]


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
    old = replace(done.trials[0], schema=1)
    assert from_line(json.dumps(to_content(old)).encode()) == old
    with pytest.raises(DamagedError, match="checksum is missing"):
        from_line(json.dumps(to_content(done.trials[0])).encode())
