"""Configurations in YAML: what can be misread is refused in one line with its place, and fast."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.commands.run import main
from sweeps.config.overrides import apply
from sweeps.config.presets import PRESETS
from sweeps.config.strict_yaml import MOST_BYTES, MOST_NODES, parse, read_mapping
from unlearn_core.checks import InputError

LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))])


def refusal(text: str) -> str:
    with pytest.raises(InputError) as problem:
        parse(text, "mine.yaml")
    assert "\n" not in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("lr: 1\nlr: 2", "line 2, column 1", "the key 'lr' comes twice, first in line 1"),
        ("a:\n  - b: {c: 1, 'c': 2}", "line 2, column 15", "the key 'c' comes twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x", "line 4", "the key '<<' comes twice"),
        ("1: a\n1: b", "line 2", "the key '1' comes twice"),
        ("name: no", "line 1, column 7", 'no means false in YAML; write "no" in quotes if it is text, or false'),
        ("a: [x, Off]", "line 1, column 8", "Off means false"),
        ("on: 1", "line 1, column 1", "on means true"),
        ("seed: 010", "line 1, column 7", "010 means an octal number"),
        ("time: 1:30", "line 1, column 7", "1:30 means a number to the base 60"),
        ("time: 1:30.5", "line 1, column 7", "1:30.5 means a number to the base 60"),
        ("name: 2024-01-01", "line 1, column 7", "2024-01-01 is a date in YAML; write text in quotes"),
        ("name: 2024-13-01", "line 1, column 7", "2024-13-01 is a date in YAML"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4", "the tag tag:yaml.org,2002:python"),
        ("a: !!set {b, c}", "line 1, column 4", "is not allowed"),
        ("a: !!binary aGk=", "line 1, column 4", "is not allowed"),
        ("a: =", "line 1, column 4", "is not allowed"),
        ("a: 1" + "0" * 4999, "line 1, column 4", "a number of 5,000 digits"),
        ("? [a, b]\n: c", "line 1, column 3", "a key must be a word"),
        ("a: &a [*a]", "line 1, column 8", "the alias *a stands inside of what it names"),
        ("a: *b", "line 1, column 4", "no anchor &b comes before the alias *b"),
        (LAUGHS, "line 5", f"more than {MOST_NODES:,} values, with those that aliases repeat"),
        ("a: " + "[" * 5000, "line 1, column 33", "more than 30 deep"),
        ("a: [1", "line 1, column 6", "is not YAML, a comma is missing, or the closing ]"),
        ("a: {b: 1\nc: 2", "line 2, column 2", "a comma is missing, or the closing } (of what begins in line 1)"),
        ("a: 1\n\tb: 2", "line 2, column 1", "a tab stands where blanks must"),
        ("a: b: c", "line 1, column 5", "a colon too many"),
        ("a:\n  - b\n c: 1", "line 3, column 2", "the indentation does not fit"),
        ('a: "b', "line 1, column 6", "a quote that was opened is not closed"),
        ("a: @b", "line 1, column 4", "no value can begin with @; write it in quotes"),
        ("a: 1\n---\nb: 2", "line 2, column 1", "a second document begins"),
        ("a: 1\nb: \x00", "line 2", "character 0x0 is not allowed"),
    ],
)  # fmt: skip
def test_what_can_be_misread_is_refused_with_its_place(text: str, place: str, message: str) -> None:
    found = refusal(text)
    assert found.startswith(f"mine.yaml, {place}")
    assert message in found


def test_what_is_clear_is_read_as_yaml_reads_it() -> None:
    text = """
        base: &base {lr: 0.1, steps: 1_000, hex: 0x10}
        mine: {<<: *base, lr: 0.2}
        words: ["no", 'off', "010", "2024-01-01", y, n]
        flags: [true, False, TRUE]
        nothing: [~, null, ]
    """
    assert parse(text, "mine.yaml") == yaml.safe_load(text)
    assert parse("", "mine.yaml") is None
    for preset in PRESETS.glob("*.yaml"):
        assert read_mapping(preset) == yaml.safe_load(preset.read_text())


@settings(max_examples=60, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
))  # fmt: skip
def test_whatever_yaml_writes_is_read_back(value: Any) -> None:
    assert parse(yaml.safe_dump(value), "mine.yaml") == value


@pytest.mark.parametrize("text", [LAUGHS, "seeds: [" + "1, " * 200_000 + "1]", "[" * 150_000, "- a\n" * 49_000])
def test_bombs_are_refused_within_seconds(text: str) -> None:
    start = time.process_time()
    refusal(text)
    assert time.process_time() - start < 5


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a: 1\nb: \xe9")
    (tmp_path / "wide").write_bytes("a: 1".encode("utf-16"))
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("missing", "there is no such file"),
        (".", "is a folder, not a file"),
        ("pipe", "is a pipe, not a file"),
        ("binary", "line 2: cannot be read, byte 0xe9 is no UTF-8"),
        ("wide", "it looks like UTF-16"),
    ):
        with pytest.raises(
            InputError, match=f"^configuration {re.escape(str(tmp_path / name))} cannot be read: .*{message}"
        ):
            read_mapping(tmp_path / name)
    path = tmp_path / "a.yaml"
    for text, message in (
        ("- a\n- b", " must be a mapping of settings, but holds a list"),
        ("", " must be a mapping of settings, but holds nothing"),
        ("3", " must be a mapping of settings, but holds a single value"),
        ("# " + "x" * MOST_BYTES, ": is too large; a configuration may have 200,000 bytes"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"^configuration {re.escape(str(path))}{message}$"):
            read_mapping(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_mapping(path) == {"a": 1, "b": 2}


@pytest.mark.parametrize("value", ["{a: 1, a: 2}", "no", "2024-01-01", "[1, 2"])
def test_assignments_are_as_strict(value: str) -> None:
    with pytest.raises(InputError, match=r"^--set value is not readable \(YAML\) in 'recipe=.*', line 1, column"):
        apply({}, [f"recipe={value}"])


def test_the_command_refuses_a_bomb_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bomb.yaml").write_text(LAUGHS)
    assert main(["--config", str(tmp_path / "bomb.yaml"), "--dry-run"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: configuration ")
    assert errors.count("\n") == 1
