"""Configurations that nobody would write on purpose: each ends in one clear line, before anything is started."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.commands import driver
from sweeps.commands.run import main
from tests.sweeps.tiny import raw

EXAMPLES = 300

odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("../../etc/passwd"),
    st.just("<script>alert(1)</script>"), st.just(10**400), st.just("1e999"), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2), st.just([[]]), st.just({"name": {}}),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside a configuration."""
    if path:
        yield path
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = list(places(raw()))


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """The tiny sweep with one to three things replaced, removed or added."""
    config = raw()
    for _ in range(draw(st.integers(1, 3))):
        holder, (*way, key) = config, draw(st.sampled_from(PLACES))
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took that branch away
            for step in way:
                holder = holder[step]
            action = draw(st.sampled_from(["replace", "remove", "add"]))
            if action == "remove":
                del holder[key]
            elif action == "add" and isinstance(holder, dict):
                holder[draw(st.text(max_size=12))] = draw(odd)
            else:
                holder[key] = draw(odd)
    return config


@contextlib.contextmanager
def nothing_starts(ran: list[str]) -> Iterator[None]:
    """Takes the place of everything expensive: the driver's work, and Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver.Driver, "run", lambda self: ran.append(self.sweep.name) or driver.Ended(0, 0, 0))
        patch.setitem(sys.modules, "ray", None)  # importing it would fail
        yield


def run(text: str, out: Path) -> tuple[int, str]:
    """(exit code, what the command wrote to stderr)."""
    file, errors = out / "config.yaml", io.StringIO()
    file.write_text(text)
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main(["--config", str(file), "--out", str(out / "results"), "--inline"])
    return code, errors.getvalue()


def check(text: str) -> None:
    ran: list[str] = []
    with tempfile.TemporaryDirectory() as folder, nothing_starts(ran):
        code, errors = run(text, Path(folder))
        made = [path.name for path in Path(folder).iterdir()]
    if code == 0:
        assert len(ran) == 1  # the change left a valid sweep
        assert "/" not in ran[0]
        assert ran[0] != ".."
        return
    assert code == 2
    assert not ran
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert len(errors) < 2000
    assert "Traceback" not in errors
    assert made == ["config.yaml"]


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(config=changed())
def test_a_changed_configuration_is_valid_or_one_clear_line(config: Any) -> None:
    check(yaml.safe_dump(config))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(text=st.one_of(st.text(max_size=60), odd.map(lambda value: json.dumps(value, default=str))))
def test_text_that_is_no_configuration_is_one_clear_line(text: str) -> None:
    check(text)


def test_the_unchanged_configuration_is_valid() -> None:
    check(yaml.safe_dump(raw()))
