"""What a tracking store shows of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.schema.lines import from_content
from sweeps.tracking import mlflow_mirror, rows, sync
from tests.sweeps.mirrored import SMALL, Sweep, content, fill, trial
from tests.sweeps.mirrored import empty_sweep as empty_sweep  # the fixture `sweep`
from tests.sweeps.mirrored import uri_of_one_store as uri_of_one_store  # the fixture `uri`


@pytest.mark.slow
def test_runs_parameters_metrics_and_tags(sweep: Sweep) -> None:
    sweep.write(SMALL)
    report = sweep.sync()
    assert (report.new, report.total) == (4, 4)
    shown = sweep.shown()
    assert sorted(shown) == ["study/patch x none", "study/patch x scrub", "sweep", *(f"trial/t00{n}" for n in range(4))]
    one = shown["trial/t001"]
    assert one["run"] == ("scrub tuning #1 seed 3", "FINISHED", 999_500, 1_001_000)
    assert one["parent"] == "study/patch x scrub"
    assert shown["study/patch x scrub"]["parent"] == "sweep"
    assert one["params"].items() >= {"settings.lr": "0.1", "settings.phases": "[1, 2]", "attack": "patch"}.items()
    assert one["tags"].items() >= {"scenario": "s1", "seed": "3", "commit": "abc", "outcome": "ok"}.items()
    scores = [row for row in one["metrics"] if row[0] == "score"]
    assert scores == [("score", 20, 1_001_000, pytest.approx(0.12)), ("score", 100, 1_001_000, pytest.approx(0.2))]
    assert {row[0] for row in one["metrics"]}.isdisjoint({"auc", "utility_gap", "budget", "status", "attack_took"})
    assert sweep.sync().new == 0


def test_study_shows_best_scores_and_confirmed_means(sweep: Sweep) -> None:
    times = {0: 1002.0, 1: 1001.0, 2: 1000.0}  # a clock that is set back must not put them in another order
    sweep.write([trial(n, finished_at=at) for n, at in times.items()])
    sweep.write([trial(n, stage="confirmation") for n in (5, 7)])
    sweep.sync()
    study = sweep.shown()["study/patch x scrub"]
    best = [row[1:] for row in study["metrics"] if row[0] == "best_score.020"]
    assert [(step, value) for step, _, value in best] == [(n, pytest.approx(n / 10 + 0.02)) for n in range(3)]
    means = [row[1:] for row in study["metrics"] if row[0] == "confirmed_efficacy.020"]
    assert [(step, value) for step, _, value in means] == [(1, pytest.approx(0.55)), (2, pytest.approx(0.56))]
    assert not [row for row in study["metrics"] if row[0] == "confirmed_efficacy.100"]  # chosen for 2 % only
    assert study["tags"]["trials"] == "5"


def test_failures_are_visible(sweep: Sweep) -> None:
    broken = trial(1, rungs=[], error="Traceback\n" + "x" * 9000 + "\nValueError: the end")
    diverged = trial(2, rungs=[rung | {"status": "diverged"} for rung in content(2)["rungs"]])
    sweep.write([broken, diverged])
    sweep.sync()
    shown = sweep.shown()
    assert shown["trial/t001"]["run"][1] == "FAILED"
    assert shown["trial/t001"]["tags"]["error"].endswith("ValueError: the end")
    assert f"[{len(broken.error or '')} characters]" in shown["trial/t001"]["tags"]["error"]
    assert shown["trial/t002"]["run"][1] == "FINISHED"
    assert shown["trial/t002"]["tags"]["outcome"] == "diverged"
    assert shown["study/patch x scrub"]["tags"]["failed_trials"] == "1"


def test_report_is_sent_again_only_when_it_changed(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sweep)
    sent: list[str] = []
    client = mlflow_mirror.connect(sweep.uri)
    upload = client.log_artifacts
    monkeypatch.setattr(client, "log_artifacts", lambda run, *rest: (sent.append(run), upload(run, *rest)))
    monkeypatch.setattr(sync, "connect", lambda uri: client)
    sweep.sync()
    sweep.sync()
    assert len(sent) == 1
    (sweep.folder / "report" / "index.html").write_text("<p>better")
    sweep.sync()
    assert len(sent) == 2
    root = Path(sweep.uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert (root / sent[0] / "artifacts" / "report" / "index.html").read_text() == "<p>better"


@pytest.mark.parametrize(
    "name", ["a\\b'c\"`%;\n", "../../etc/passwd", "/abs", "..", ".", "a//b", "", "ü 漢 🙂", "x" * 999]
)
def test_odd_names_arrive(tmp_path: Path, uri: str, name: str, request: pytest.FixtureRequest) -> None:
    sweep = Sweep(tmp_path, f"odd {request.node.callspec.indices['name']} '`%", uri)
    odd = content(1, name or "empty", attack=name, method=name, settings=json.dumps({"name": "gd", name: name * 20}))
    odd["rungs"][0]["metrics"] = {name: 1.0}
    sweep.write([from_content(odd)])
    sweep.sync()
    run = sweep.shown()["trial/t001"]
    assert (rows.clean(name), 20, 1_001_000, 1.0) in run["metrics"]
    value = run["params"][rows.clean(f"settings.{name}")]
    assert value == name * 20 or f"[{len(name * 20)} characters]" in value


def test_names_stay_distinct() -> None:
    names = ["a b", "a_b", "a+b", "a*b", "/a", "_a", "a/b", "a//b", "x" * 300, "x" * 301]
    assert len({rows.clean(name) for name in names}) == len(names)
    assert rows.clean("tuning/score.020") == "tuning/score.020"


def test_two_sweeps_of_one_name_stay_apart(tmp_path: Path, uri: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        sweep = Sweep(tmp_path / folder, "twice", uri)
        sweep.write([trial(0)])
        assert sweep.sync().new == 1
