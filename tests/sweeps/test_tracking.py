"""Nothing twice, nothing missing, whatever is interrupted; and never in the way."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.tracking import mlflow_mirror, sync
from tests.sweeps.mirrored import SMALL, Flaky, Sweep, content, fill, trial
from tests.sweeps.mirrored import empty_sweep as empty_sweep  # the fixture `sweep`
from tests.sweeps.mirrored import uri_of_one_store as uri_of_one_store  # the fixture `uri`
from unlearn_core.checks import InputError


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory, uri: str) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = Sweep(folder, folder.name, uri)
    fill(sweep)
    sweep.sync()
    return sweep.comparable()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_write_can_fail(
    tmp_path: Path, uri: str, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    at, done, reasons = 0, False, set()
    while not done:
        sweep = Sweep(tmp_path, f"fault-{after}-{at}", uri)
        fill(sweep)
        with monkeypatch.context() as patch:
            patch.setattr(sync, "connect", lambda uri, at=at: Flaky(mlflow_mirror.connect(uri), at, after=after))
            try:
                sweep.sync()
                done = True
            except sync.TrackingError as error:
                reasons.add(str(error))
        sweep.sync()
        assert sweep.comparable() == undisturbed, f"write {at}"
        at += 1
    assert at > 20
    assert reasons == {f"FaultError: {'after' if after else 'before'}"}


def test_a_second_run_of_a_key_is_removed(sweep: Sweep) -> None:
    sweep.write(SMALL)
    report = sweep.sync()
    client = mlflow_mirror.connect(sweep.uri)
    for key, run in sweep.shown().items():  # as when the answer to a creation is lost and the request repeated
        tags = {"sweep.key": key, "sweep.id": run["tags"]["sweep.id"]}
        client.create_run(report.experiment_id, run_name="twin", tags=tags)
    assert sweep.sync().new == 0
    assert all(run["run"][0] != "twin" for run in sweep.shown().values())


@pytest.mark.slow
def test_several_syncs_equal_one(tmp_path: Path, uri: str) -> None:
    trials = [trial(n, f"study {n % 2}", stage="confirmation" if n > 5 else "tuning") for n in range(8)]
    shown = []
    for pieces in (1, 4):
        sweep = Sweep(tmp_path, f"pieces-{pieces}", uri)
        (sweep.folder / ".running").touch()
        for piece in range(pieces):
            if piece == pieces - 1:
                (sweep.folder / ".running").unlink()
            few = trials[piece * 8 // pieces : (piece + 1) * 8 // pieces]
            sweep.write(few, part=f"{9 - piece}")
            assert sweep.sync().new == len(few)
        shown.append(sweep.comparable())
    assert shown[0] == shown[1]
    assert sum(key.startswith("trial/") for key in shown[0]) == 8


def test_a_record_that_comes_late_is_neither_lost_nor_doubled(sweep: Sweep) -> None:
    sweep.write([trial(n) for n in (0, 1, 3)])
    sweep.sync()
    first, *rest = content(2)["rungs"]
    late = trial(2, rungs=[first | {"score": 7.0}, *rest])
    sweep.write([late], part="0", start=0)
    assert sweep.sync().new == 1
    assert sum(key.startswith("trial/") for key in sweep.shown()) == 4
    client = mlflow_mirror.connect(sweep.uri)
    found = client.get_experiment_by_name(sweep.name)
    run = client.search_runs([found.experiment_id], "tags.`sweep.key` = 'study/patch x scrub'")[0]
    assert run.data.metrics["best_score.020"] == 7.0  # the latest value, although a later record had less


def test_one_writer_at_a_time(sweep: Sweep) -> None:
    with sync._locked(sweep.folder), pytest.raises(sync.TrackingError, match="another process"):
        sweep.sync()


def test_command_line(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sync.os, "nice", lambda _: 0)  # it would last for the whole test run
    sweep.write(SMALL)
    assert sync.main([str(sweep.folder), "--tracking-uri", sweep.uri]) == 0
    assert "4 new of 4 trials" in capsys.readouterr().out
    assert sync.main([str(tmp_path), "--tracking-uri", sweep.uri]) == 1
    assert sync.main([str(sweep.folder), "--tracking-uri", "sqlite:////no/such/folder/x.db"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "no sweep.json" in errors[0] and "no folder" in errors[1]


def test_follow_survives_failures_and_ends_with_the_sweep(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    (sweep.folder / ".running").touch()
    attempts: list[int] = []

    def connect(uri: str) -> Any:  # while it follows, trials arrive; the first attempt breaks in the middle
        attempts.append(len(attempts))
        sweep.write([trial(len(attempts))])
        if len(attempts) == 3:
            (sweep.folder / ".running").unlink()
        return Flaky(mlflow_mirror.connect(uri), 4 if len(attempts) < 3 else 999, after=True)

    monkeypatch.setattr(sync, "connect", connect)
    report = sync.follow(sweep.folder, sweep.uri, every=0.01)
    assert report.total == len(attempts) == 4
    shown = sweep.shown()
    assert {run["run"][1] for run in shown.values()} == {"FINISHED"}
    assert sum(key.startswith("trial/") for key in shown) == 4


def test_a_dead_server_is_reported_at_once(sweep: Sweep) -> None:
    sweep.write(SMALL)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        sweep.uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(sync.TrackingError, match="does not answer: "):
            sweep.sync()
    assert time.monotonic() - began < 30  # repeated requests would take minutes


def test_missing_sweep_is_an_input_error(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="holds no sweep"):
        sync.sync(tmp_path, uri)


def test_importing_and_checking_does_not_load_mlflow() -> None:
    code = "import sys, sweeps.tracking.sync as t; t.reachable('sqlite:///x.db'); sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
