"""The page of all configuration keys is that of the classes, and says what each key means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from sweeps.config import reference_page
from sweeps.config.presets import preset_names, read_preset
from sweeps.config.spec import READERS, SECTIONS, Sweep
from unlearn_core.checks import InputError
from unlearn_core.ranges import POSITIVE, check, one_of, within
from unlearn_core.registry import ATTACKS, DATASETS, MODELS, UNLEARNERS

PAGE = reference_page.page()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]


def test_the_page_is_up_to_date() -> None:
    assert reference_page.PAGE.read_text() == PAGE, "run python -P -m sweeps.config.reference_page"


def test_every_key_has_a_type_a_default_and_a_meaning() -> None:
    incomplete = [row for row in ROWS if len(row) != 5 or not (row[1] and row[3] and row[4].strip())]
    assert not incomplete


def test_the_page_has_every_key_and_name() -> None:
    keys = {row[0].strip("`") for row in ROWS}
    assert keys >= {*READERS, *(name for cls in SECTIONS.values() for name in cls.__dataclass_fields__)}
    for registry in (DATASETS, MODELS, ATTACKS, UNLEARNERS):
        assert all(f"### `{name}`\n" in PAGE for name in registry.names())


def test_ranges_and_defaults_are_those_that_are_checked() -> None:
    assert "| `trials` | whole number | 1 to 100000 | `8` |" in PAGE
    assert "| `optimizer` | text | `sgd`, `adamw` | `sgd` |" in PAGE
    assert "| `lr` | number | above 0 | `0.1` |" in PAGE
    assert "| `name` | text |  | required |" in PAGE
    for low in (0, 100_001):
        with pytest.raises(InputError, match=r"trials must lie in \[1, 100000\]"):
            Sweep.from_dict(read_preset("quick") | {"search": {"trials": low}})


def test_presets_use_no_key_that_is_not_on_the_page() -> None:
    keys = {row[0].strip("`") for row in ROWS}
    for name in preset_names():
        assert set(read_preset(name)) <= keys


@dataclass(frozen=True, kw_only=True)
class Ruled:
    """Settings with rules."""

    share: Annotated[float, within(0, 1)] = 0.5
    steps: Annotated[tuple[int, ...], POSITIVE] = (1, 2)
    size: Annotated[int | None, POSITIVE] = None
    word: Annotated[str, one_of("a", "b")] = "a"
    free: int = -1

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.1}, "share must lie in [0, 1], but got 1.1"),
        ({"steps": (1, 0)}, "steps must be a positive number, but got 0"),
        ({"size": -1}, "size must be a positive number, but got -1"),
        ({"word": "c"}, "word 'c' is unknown; choose one of a, b"),
    ],
)
def test_a_rule_in_an_annotation_is_checked(change: dict[str, object], message: str) -> None:
    Ruled(share=1, steps=(), size=3, word="b", free=0)
    with pytest.raises(InputError) as problem:
        Ruled(**change)  # type: ignore[arg-type]
    assert str(problem.value) == message
