"""The command `unlearn`: its verbs, what they say to wrong words, and what they load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.commands.choices import ALIASES
from sweeps.commands.describing import described
from sweeps.commands.main import main, overview
from sweeps.commands.verbs import VERBS
from sweeps.config.catalogue import FILE, catalogue
from sweeps.config.make_catalogue import registered
from sweeps.config.presets import preset_names
from tests.sweeps.tiny import ROOT
from unlearn_core.metrics import columns
from unlearn_core.registry import ATTACKS, DATASETS, MODELS, UNLEARNERS
from unlearn_core.space import Choice, Float

GREETING = """
from dataclasses import dataclass
from unlearn_core.registry import UNLEARNERS

@UNLEARNERS.register("greeting")
@dataclass(frozen=True, kw_only=True)
class Greeting:
    '''Says good day.'''

    needs = ()
    anytime = True
    volume: float = 0.5  # how loud

    def updates(self, task):
        return iter(())

    @classmethod
    def search_space(cls):
        return {}
"""


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    streams = capsys.readouterr()
    return streams.err if code else streams.out


def test_the_catalogue_is_what_the_registries_hold() -> None:
    assert list(catalogue()) == registered(), f"make {FILE.name} anew: python -P -m sweeps.config.make_catalogue"


def test_the_catalogue_knows_settings_of_all_sources() -> None:
    (scrub,) = [entry for entry in catalogue() if entry.name == "scrub"]
    settings = {setting.name: setting for setting in scrub.settings}
    assert settings["lr"].meaning == "step size"  # of the class that it inherits from
    assert settings["lr"].default == "0.0005"  # its own
    assert settings["lr"].searched == Float(1e-4, 0.3, log=True)
    assert settings["order"].searched == Choice(("max_first", "min_first"))
    assert scrub.space.keys() == UNLEARNERS.get("scrub").search_space().keys()
    assert scrub.facts["needs"] == "forget, retain, retain_labels"
    assert "arXiv:2302.09880" in scrub.source


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_everything_can_be_described(entry: object) -> None:
    (text,) = described([entry.kind, entry.name])  # type: ignore[attr-defined]
    assert all(f"\n{setting.name} " in text for setting in entry.settings)  # type: ignore[attr-defined]


def test_describe_shows_settings_ranges_needs_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "describe", "scrub")
    for part in ("unlearner scrub\n", "0.0001 to 0.3, log", "max_first or min_first", "step size", "arXiv:2302.09880"):
        assert part in text
    assert "needs   forget, retain, retain_labels\n" in text
    assert said(capsys, "describe", "attack", "gaussian").startswith("attack gaussian\n")
    assert "metric gaussian\n" in said(capsys, "describe", "gaussian")
    assert "  gaussian_z: " in said(capsys, "describe", "gaussian_z")
    assert said(capsys, "describe", "quick").startswith("preset quick\n\n# Every part of a sweep")


def test_list_filters_by_kind_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    everything = said(capsys, "list")
    known = [name for registry in (DATASETS, MODELS, ATTACKS, UNLEARNERS) for name in registry.names()]
    for name in (*known, *preset_names(), *columns()):
        assert f"\n  {name} " in everything, name
    methods = said(capsys, "list", "methods")
    assert methods.count("\n  ") == len(UNLEARNERS.names())
    found = said(capsys, "list", "unlearner", "Scrub")
    assert [line.split()[0] for line in found.splitlines()[2:]] == ["scrub", "scrub_r"]
    assert set(ALIASES.values()) >= {entry.kind for entry in catalogue()}


@pytest.mark.slow
def test_plugins_are_described_and_listed_live(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(GREETING)
    for words in (["list", "methods", "greeting"], ["describe", "greeting"]):
        command = [sys.executable, "-P", "-m", "sweeps", *words, "--plugin", str(tmp_path / "greeting.py")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "greeting" in done.stdout and "Says good day." in done.stdout
    assert "how loud" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stauts", "results/quick"], "verb 'stauts' is unknown; did you mean 'status'?"),
        ([], "give a verb: run, plan, list"),
        (["describe", "scrubb"], "nothing is called 'scrubb'; did you mean 'scrub'"),
        (["describe", "methd", "scrub"], "nothing is called 'methd'; did you mean 'method'"),
        (["list", "methods", "scrubb"], "nothing is called 'scrubb'; did you mean 'scrub'"),
        (["status", "nowhere"], "there is no sweep in "),
        (["sync", "nowhere"], "there is no sweep in "),
        (["failures", "nowhere"], "there is no sweep in "),
        (["export", "nowhere"], "there is no sweep in "),
        (["plan", "--preset", "quik"], "preset 'quik' is unknown; did you mean 'quick'?"),
    ],
)
def test_wrong_words_are_one_line_and_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, *words, code=2)
    assert text.startswith(f"error: {message}")
    assert text.count("\n") == 1


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "report"])
def test_misspelt_options_are_one_line_with_the_nearest(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["x"] if verb in ("describe", "status", "failures", "export", "sync") else []
    with pytest.raises(SystemExit) as stop:
        main([verb, *needed, "--hepl"])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: option --hepl is unknown; did you mean '--help'")
    assert text.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"\n  {verb} " in overview("unlearn")
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: unlearn {verb} ")
    assert f"\nexample:\n  unlearn {verb}" in text


def test_the_console_script_is_installed_and_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("unlearn")
    for name in ("analysis", "random", "sweeps", "argparse", "unlearn_core"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    done = subprocess.run([script, "list", "presets"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quick" in done.stdout
