"""A sweep from Python: `from sweeps import Sweep, run_sweep`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from ray.tune import Callback, Stopper
from ray.tune.stopper import MaximumIterationStopper

from sweeps import Sweep, run_sweep
from sweeps.commands.driver import Driver
from sweeps.commands.options import RunOptions
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
        ({"out": "ftp://somewhere"}, "out must be a folder or s3://"),
        ({"out": 5}, "out must be a folder or s3:// URL, but got 5"),
        ({"out": None}, "out must be a folder or s3:// URL, but got None"),
        ({"store": 5}, "store must be a folder, s3:// URL or None, but got 5"),
        ({"data_root": 5}, "data_root must be a folder or None, but got 5"),
        ({"address": 5}, "address must be text or None, but got 5"),
        ({"tracking_uri": 5}, "tracking_uri must be text or None, but got 5"),
        ({"inline": "no"}, "inline must be True or False, but got 'no'"),
        ({"tracking": "no"}, "tracking must be True or False, but got 'no'"),
        ({"download": "no"}, "download must be True or False, but got 'no'"),
        ({"workers": 1.5}, "workers must be a whole number, but got 1.5"),
        ({"workers": True}, "workers must be a whole number, but got True"),
        ({"workers": "2"}, "workers must be a whole number, but got '2'"),
        ({"workers": 2, "address": "head:6379"}, "workers is for this machine alone"),
        ({"gpu_fraction": "x"}, "gpu_fraction must be above 0 and at most 1, but got 'x'"),
        ({"gpu_fraction": True}, "gpu_fraction must be above 0 and at most 1, but got True"),
        ({"callbacks": [1]}, "callbacks must be a list of ray.tune.Callback objects, but got [1]"),
        ({"callbacks": Callback()}, "callbacks must be a list of ray.tune.Callback objects, but got <"),
        ({"callbacks": [Callback]}, "callbacks must be a list of ray.tune.Callback objects, but got [<class"),
        ({"stop": 3}, "stop must be a ray.tune.Stopper object, a function or a mapping, but got 3"),
        ({"stop": Stopper}, "stop must be a ray.tune.Stopper object, a function or a mapping, but got <class"),
        ({"stop": {"scor": 0.9}}, "stop names 'scor', which is no number that studies report; choose from proposal,"),
        ({"stop": {1: 0.9}}, "stop names 1, which is no number"),
        ({"stop": {"study": 0.9}}, "stop names 'study', which is no number"),
        ({"stop": {"efficacy": 0.9}}, "stop names 'efficacy', which is no number"),
        ({"stop": {"score": "x"}}, "stop['score'] must be a number, but got 'x'"),
        ({"stop": {"efficacy/0.1": math.nan}}, "stop['efficacy/0.1'] must be a number, but got nan"),
    ],
)
def test_bad_options_raise_and_name_the_fix(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as problem:
        run_sweep(tiny(), **{"out": tmp_path / "out", **options})
    assert str(problem.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_good_options_are_accepted(tmp_path: Path) -> None:
    stops: list[Any] = [{"score": 1, "efficacy/0.1": 0.5}, lambda study, result: False, MaximumIterationStopper(2)]
    for stop in stops:
        options = RunOptions.of(stop=stop, callbacks=[Callback()], workers=2, gpu_fraction=1, data_root=str(tmp_path))
        assert (options.stop, options.data_root) == (stop, tmp_path)


@pytest.mark.parametrize("sweep", ["quick", {"name": "quick"}, None])
def test_what_is_no_sweep_is_refused(sweep: Any) -> None:
    with pytest.raises(InputError) as problem:
        run_sweep(sweep)
    assert str(problem.value).startswith(
        f"sweep must be a Sweep, but got {sweep!r}; make one with Sweep.preset('quick')"
    )


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
