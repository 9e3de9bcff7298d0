"""Trials that hang: recorded as failed, each once, and the rest goes on."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from sweeps.execution import limits
from sweeps.execution.crash_counter import LOSSES
from sweeps.execution.limits import deadline, time_limit
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Request
from tests.sweeps.tiny import lines, tiny
from tests.sweeps.wild import Rest, _alone, begin_worker, end_of, rest, tuned, undisturbed, wild, with_references
from unlearn_core.checks import InputError

__all__ = ["_alone", "undisturbed"]  # fixtures

LIMIT = {"trial_timeout": 3}
HANGS = ["loops", "computes", *(pytest.param(way, marks=pytest.mark.slow) for way in ("sleeps", "waits in C"))]


@pytest.mark.slow
@pytest.mark.parametrize("way", HANGS)
def test_a_trial_that_hangs_is_recorded_as_failed_and_ends_its_process(
    tmp_path: Path, way: str, undisturbed: Rest
) -> None:
    folder, said = with_references(wild(tmp_path, way, resources=LIMIT), tmp_path), tmp_path / "said"
    start = time.monotonic()
    assert end_of(begin_worker(folder, said)) == os.EX_TEMPFAIL
    assert time.monotonic() - start < 60
    trial = tuned(folder)[1]
    last = trial.error.splitlines()[-1]
    assert last == "TimeoutError: not finished after 3 s; raise resources.trial_timeout if the method is only slow"
    assert "wild.py" in trial.error, "where it hung"
    assert "limits.py" not in trial.error
    assert (trial.rungs, trial.trial_seconds) == ((), pytest.approx(3, abs=3))
    message = said.read_text().strip()
    assert message.startswith(f"trial {trial.trial_id} of badnets--wild is recorded as failed: not finished after 3 s;")
    assert message.endswith("its process ends, run the same command again to go on")
    assert len(message.splitlines()) == 1
    assert end_of(begin_worker(folder, said)) == 0
    assert [trial.error is None for trial in tuned(folder).values()] == [True, False, True]
    assert rest(folder) == undisturbed
    assert len(lines(folder)) == 11


@pytest.mark.slow
def test_native_code_that_stops_all_threads_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE", 0.5)
    sweep = wild(tmp_path, "waits in C with the lock", resources=LIMIT)
    folder, said = with_references(sweep, tmp_path), tmp_path / "said"
    assert [end_of(begin_worker(folder, said)) for _ in range(LOSSES + 1)] == [1, 1, 1, 0]
    assert "wild.py" in said.read_text(), "where it hung"
    assert "ProcessLostError: the worker process was lost 3 times" in tuned(folder)[1].error
    assert len(lines(folder)) == 11


@pytest.mark.slow
def test_a_trial_that_ends_at_the_very_moment_is_recorded_once(tmp_path: Path) -> None:
    record, generator = tmp_path / "record", random.Random(0)
    sleeps, seconds = [0.02 + generator.uniform(-1, 1) * 1e-3 for _ in range(80)], 0.02

    def write(text: str) -> None:
        time.sleep(0.001)  # as the disk would
        with open(record, "a") as file:
            file.write(text + "\n")

    def do(begin: int) -> None:
        for number, sleep in enumerate(sleeps[begin:], start=begin):
            with deadline(seconds, lambda _, number=number: write(f"{number} late")):
                time.sleep(sleep)
            write(f"{number} done")

    record.touch()
    while (done := len(record.read_text().splitlines())) < len(sleeps):
        process = os.fork()
        if not process:
            do(done)
            os._exit(0)
        assert end_of(process) in (0, os.EX_TEMPFAIL)
    found = [line.split() for line in record.read_text().splitlines()]
    assert [int(number) for number, _ in found] == list(range(len(sleeps)))
    assert 10 < sum(how == "late" for _, how in found) < len(sleeps) - 10


def test_an_error_in_a_trial_takes_its_deadline_away() -> None:
    with pytest.raises(ZeroDivisionError), deadline(0.05, lambda _: os.write(1, b"given up")):
        raise ZeroDivisionError
    time.sleep(0.2)  # else this process has ended


def test_a_record_that_cannot_be_written_does_not_keep_the_process(tmp_path: Path) -> None:
    process = os.fork()
    if not process:
        with deadline(0.01, lambda _: 1 / 0):  # type: ignore[arg-type, return-value]
            time.sleep(1e6)
    assert end_of(process) == os.EX_TEMPFAIL


def request(stage: str, budgets: tuple[float, ...]) -> Request:
    return Request(
        attack="badnets", seed=1, discovery_rate=1, stage=stage, method="gd", settings=None, budgets=budgets, study="s"
    )


def test_the_limit_by_default_is_far_above_what_trials_need(tmp_path: Path) -> None:
    sweep = tiny(ensemble={"members": 8})
    bench = ScenarioCache(sweep, RunEnvironment(tmp_path)).bench("badnets", 1, "test")
    oracle = bench.oracle.cost.seconds
    assert time_limit(sweep, bench, request("tuning", (0.1, 0.3))) == pytest.approx(600 + 20 * oracle)
    assert time_limit(sweep, bench, request("tuning", (0.5, 1.0))) == pytest.approx(600 + 30 * oracle)
    assert time_limit(sweep, bench, request("ensemble", (0.1,))) == pytest.approx(16 * (600 + 20 * oracle))
    given = tiny(ensemble={"members": 8}, resources={"trial_timeout": 60})
    assert time_limit(given, bench, request("tuning", (0.5, 1.0))) == 60
    assert time_limit(given, bench, request("ensemble", (0.1,))) == 16 * 60


@pytest.mark.parametrize("value", [0, -5, 0.5, 1e9, "soon", True, float("nan")])
def test_limits_that_make_no_sense_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="trial_timeout"):
        tiny(resources={"trial_timeout": value})


def test_the_limit_changes_no_identity() -> None:
    assert tiny(resources={"trial_timeout": 60}).identity() == tiny().identity()
