"""A sweep as a job: its driver runs on a cluster's head, submitted, stopped and submitted again from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from sweeps.storage.leases import Lease
from sweeps.storage.record_log import count_trials, read_trials
from tests.sweeps.job_head import PACKAGES, PATIENCE, Head, copy_sources, head  # noqa: F401 - a fixture
from tests.sweeps.tiny import lines, science, start, write_config

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]

SLOTS = 2
WHOLE = 7 + 2 * 41  # records: references, 40 proposals per study, at least one confirmation of each
SENT = {*PACKAGES, "tiny.yaml", "slow_gd.py"}
SLOW = '''
import time

import sweeps
from unlearn_core.registry import UNLEARNERS
from unlearn_core.unlearners.gd import GD


@UNLEARNERS.register("slow_gd")
class SlowGD(GD):
    """Fine-tunes, takes its time, and notes which copy of the sources it was begun from."""

    def updates(self, task):
        with open({log!r}, "a") as log:
            log.write(sweeps.__file__ + "\\n")
        time.sleep(0.5)
        return super().updates(task)
'''


class Job(NamedTuple):
    """A sweep to be submitted from the folder `sources` (a copy of the project with a configuration and a plug-in)."""

    head: Head
    sources: Path
    out: Path
    log: Path

    @property
    def dir(self) -> Path:
        return self.out / "tiny"

    @property
    def words(self) -> list[str]:
        """Its command, with paths relative to `sources` except for the results."""
        words = "--config tiny.yaml --plugin slow_gd.py --no-tracking --out".split()
        return [sys.executable, "sweeps/budget_sweep.py", *words, str(self.out)]

    def submit(self, name: str, *options: str) -> str:
        """What `ray job submit` prints; without further options, all that the sweep prints until it ends."""
        place = ["--working-dir", str(self.sources), "--submission-id", name]
        return self.head.said("job", "submit", *place, *options, "--", *self.words)

    def evaluations(self) -> list[str]:
        """A line for each time that an evaluation with the plug-in was begun."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def job(head: Head, tmp_path: Path) -> Job:  # noqa: F811
    sources = tmp_path / "sources"
    copy_sources(sources)
    write_config(sources, methods=["slow_gd", "ssd"], search={"trials": 40, "startup": 1})
    made = Job(head, sources, tmp_path / "out", tmp_path / "evaluations")
    (sources / "slow_gd.py").write_text(SLOW.format(log=str(made.log)))
    return made


def await_records(job: Job, name: str, count: int) -> None:
    known: dict[Path, tuple[int, int]] = {}
    began = asked = time.monotonic()
    while count_trials(job.dir, known) < count:
        time.sleep(0.05)
        if time.monotonic() - asked > 20:  # asking takes seconds of processor time
            assert "currently running" in job.head.said("job", "status", name), job.head.said("job", "logs", name)
            assert time.monotonic() - began < PATIENCE, job.head.said("job", "logs", name)
            asked = time.monotonic()


def undisturbed(job: Job, folder: Path) -> dict[str, object]:
    """The records of the same sweep, run from its sources in one go and without a cluster."""
    arguments = [*job.words[2:-1], folder, "--inline"]
    process = start(*arguments, cwd=job.sources)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return science(read_trials(folder / "tiny"))


def check_that_it_is_at_rest(job: Job) -> list[str]:
    """Nobody has the lock, and workers do not go on without their driver; returns the recorded lines."""
    lease = Lease(job.dir / ".lock")
    assert lease.take() is None, "the stopped driver still has its lock"
    lease.release()
    for _ in range(10):
        there = lines(job.dir), job.evaluations()
        time.sleep(3)
        if (lines(job.dir), job.evaluations()) == there:
            return there[0]
    raise AssertionError("workers go on")


def test_a_stopped_job_submitted_again_loses_nothing_and_does_nothing_twice(job: Job, tmp_path: Path) -> None:
    job.submit("first", "--no-wait")
    await_records(job, "first", 12)
    assert "is currently running" in job.head.said("job", "status", "first")
    assert "was stopped" in job.head.said("job", "stop", "first")
    there = check_that_it_is_at_rest(job)
    assert "stopping once the trials that run are finished" in job.head.said("job", "logs", "first")
    assert len(there) < WHOLE, "it was stopped too late to show anything"

    said = job.submit("second")
    assert "Job 'second' succeeded" in said
    assert f"report: {job.dir}/report/index.html" in said
    after, trials, evaluations = lines(job.dir), read_trials(job.dir), job.evaluations()
    assert set(there) < set(after)
    assert len(after) == len(trials)
    slow = sum(trial.method == "slow_gd" for trial in trials)
    assert slow <= len(evaluations) <= slow + SLOTS
    assert "all trials are done already" in job.submit("third")
    assert (lines(job.dir), job.evaluations()) == (after, evaluations)
    assert science(trials) == undisturbed(job, tmp_path / "undisturbed")

    uploaded = str(job.head.home / "ray")
    assert all(source.startswith(uploaded) for source in evaluations), "workers took other sources than were uploaded"
    assert {path.name for path in job.sources.iterdir()} - {"__pycache__"} == SENT, (
        "something was left in the submitter's folder"
    )


def test_jobs_are_for_holders_of_the_token_only(job: Job) -> None:
    words = ("job", "submit", "--no-wait", "--", "touch", str(job.out))
    for changes in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        refused = job.head.ray(*words, **changes)
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stderr
    time.sleep(2)
    assert not job.out.exists()
