"""What the README shows must work."""

import re
from pathlib import Path

import pytest

from benchmarks import method_table
from sweeps.commands.reading import read_sweep
from sweeps.commands.run import parser
from tests.contracts.tiny import run
from unlearn_core.registry import UNLEARNERS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_method_of_the_example_runs(monkeypatch):
    monkeypatch.setattr(UNLEARNERS, "_items", dict(UNLEARNERS._items))
    (block,) = [text for text in re.findall(r"```python\n(.*?)```", README, re.S) if "UNLEARNERS.register" in text]
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    rungs = run(UNLEARNERS.get("sign_descent")()).rungs
    assert rungs[-1].steps > 0
    assert rungs[-1].status in ("ok", "finished")


@pytest.mark.parametrize("line", re.findall(r"(?:budget_sweep\.py|unlearn run) (--(?:set|preset)[^\n`#]*)", README))
def test_the_commands_are_understood(line):
    import shlex

    options = parser().parse_args(shlex.split(line))
    assert read_sweep(options).methods


def test_figures_exist():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parent.parent / path).exists(), path


@pytest.mark.slow
def test_the_table_of_methods_is_what_its_command_makes():
    found = README.partition(method_table.BEGIN)[2].partition(method_table.END)[0]
    assert found == method_table.table(), "run python -m benchmarks.method_table --write"


def test_the_table_names_every_method():
    assert sorted(method_table.COSTS) == UNLEARNERS.names()
