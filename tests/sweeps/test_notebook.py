"""A sweep from Python: `from sweeps import Sweep, run_sweep`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import Sweep, run_sweep
from sweeps.commands.driver import Driver
from sweeps.storage.manifest import read_manifest
from sweeps.storage.record_log import read_trials
from tests.sweeps.tiny import tiny
from unlearn_core.checks import InputError


def test_a_sweep_runs_from_python_and_says_what_became_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)
    result = run_sweep(tiny(), out=str(tmp_path), inline=True, tracking=False)
    assert result.folder == tmp_path / "tiny"
    assert result.report == tmp_path / "tiny" / "report" / "index.html"
    assert result.complete
    assert read_trials(result.folder)
    assert read_manifest(result.folder)["spec"] == tiny().to_dict()
    monkeypatch.setattr(Driver, "_analyse", lambda self: 2)
    again = run_sweep(tiny(), out=tmp_path, inline=True, tracking=False)
    assert (again.failed, again.missing, again.reported, again.complete) == (0, 0, False, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inlin": True}, "option 'inlin' is unknown; did you mean 'inline'?"),
        ({"workers": 0}, "workers must lie in [1, "),
        ({"inline": True, "stop": {"score": 0.9}}, "callbacks and stop are for Ray Tune"),
        ({"gpu_fraction": 2}, "gpu_fraction must be above 0 and at most 1, but got 2"),
        ({"out": "ftp://somewhere"}, "--out must be a folder or s3://"),
    ],
)
def test_bad_options_raise_and_name_the_fix(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as problem:
        run_sweep(tiny(), **{"out": tmp_path / "out", **options})
    assert str(problem.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_preset_is_changed_by_path_and_gets_another_name() -> None:
    changed = Sweep.preset("quick", {"search.trials": 2, "attacks.gaussian.epsilon": 0.5, "methods": ["gd"]})
    assert changed.search.trials == 2
    assert changed.attacks["gaussian"][1].epsilon == 0.5
    assert list(changed.methods) == ["gd"]
    assert changed.name == f"quick-{changed.identity()[:8]}"
    assert Sweep.preset("quick").name == "quick"
    with pytest.raises(InputError, match="preset 'quik' is unknown; did you mean 'quick'"):
        Sweep.preset("quik")
    with pytest.raises(InputError, match=r"search.trial is unknown; did you mean 'trials'"):
        Sweep.preset("quick", {"search.trial": 2})
