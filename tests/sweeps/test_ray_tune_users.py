"""What a user of Ray Tune sees of a sweep: trials with names, configurations and reports; callbacks and stoppers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from sweeps.execution.ray_executor import RayExecutor
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.schema.records import Trial
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import lines, prepare, science
from unlearn_core.checks import InputError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
FINAL = {"finished": True, "error": "", "too_large": ""}


class Run(NamedTuple):
    """One run of the sweep.

    Attributes:
        grid: what Tune returns.
        seen: the reports that a callback saw, by name of the Tune trial.
        trials: the records afterwards, by study.
        lines: recorded lines afterwards.
        schedule: the schedule at its end.
    """

    grid: Any
    seen: dict[str, list[dict[str, Any]]]
    trials: dict[str, dict[str, Any]]
    lines: list[str]
    schedule: Schedule


class Runs(NamedTuple):
    """The sweep, ended early by a stopper, and once more to its end.

    Attributes:
        first: the study that the stopper ended alone, at its first proposal.
        ended: the run in which everything ended at the first proposal of the second study.
        finished: the run after that.
    """

    first: str
    ended: Run
    finished: Run


@pytest.fixture(scope="module")
def runs(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    from ray.tune import Callback, Stopper
    from ray.tune.logger import JsonLoggerCallback

    class Sees(Callback):
        def __init__(self) -> None:
            self.seen: dict[str, list[dict[str, Any]]] = {}

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            self.seen.setdefault(str(trial), []).append(dict(result))

    class Ends(Stopper):
        def __init__(self) -> None:
            self.studies: list[str] = []
            self.active = True

        def __call__(self, study: str, result: dict[str, Any]) -> bool:
            self.studies.append(study)
            return self.active and study == self.studies[0]

        def stop_all(self) -> bool:
            return self.active and len(set(self.studies)) > 1

    sees, ends = Sees(), Ends()
    executor = RayExecutor("local", cpus=1, gpus=0, workers=1, callbacks=[sees, JsonLoggerCallback()], stop=ends)
    folder = prepare(done.sweep, tmp_path_factory.mktemp("users"))

    def run() -> Run:
        sees.seen = {}
        (folder / ".stop").unlink(missing_ok=True)  # as the driver does
        work = RecordedWork(done.sweep, folder)
        schedule = Schedule(done.sweep, missing(done.sweep, folder), work, whole_studies=True)
        executor.run(folder, RunEnvironment(folder.parent), schedule)
        return Run(executor.results, sees.seen, science(read_trials(folder)), lines(folder), schedule)

    try:
        ended = run()
        ends.active = False
        yield Runs(ends.studies[0], ended, run())
    finally:
        executor.close()


def test_every_proposal_of_a_study_is_reported(runs: Runs, done: Done) -> None:
    for method in ("gd", "ssd"):
        name = f"badnets--{method}"
        seen = [result for run in runs[1:] for result in run.seen.get(name, ()) if not result["finished"]]
        assert [result["proposal"] for result in seen] == [0, 1, 2]
        tuned = {t.proposal: t for t in done.trials if t.study == name and t.stage == "tuning"}
        for result in seen:
            trial = tuned[result["proposal"]]
            assert result["efficacy"] == pytest.approx({str(r.budget): r.efficacy for r in trial.rungs})
            assert result["utility_gap"] == pytest.approx({str(r.budget): r.utility_gap for r in trial.rungs})
            assert (result["study"], result["method"]) == (name, method)
            assert result["settings"].items() <= settings(trial).items()
        scores = [result["score"] for result in seen]
        assert [result["best_score"] for result in seen] == [max(scores[: n + 1]) for n in range(3)]


def settings(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trial.settings)
    return found


def test_trials_of_tune_have_the_names_and_configurations_of_tasks(runs: Runs) -> None:
    configs = {result.config["name"]: result.config for run in runs[1:] for result in run.grid}
    assert {"badnets--poison--seed0", "badnets--references--seed1", "badnets--gd", "badnets--ssd"} <= set(configs)
    assert {name for run in runs[1:] for name in run.seen} <= set(configs)
    study = configs["badnets--gd"]
    assert (study["kind"], study["attack"], study["method"]) == ("run_study", "badnets", "gd")
    assert study["discovery_rate"] == 1.0
    assert study["settings"]["lr"].endswith(", log")
    assert configs["badnets--references--seed1"]["seed"] == 1


def test_the_grid_knows_the_best_study(runs: Runs) -> None:
    studies = {run.config["name"]: run.metrics for run in runs.finished.grid if "score" in run.metrics}
    best = runs.finished.grid.get_best_result()
    assert best.metrics["best_score"] == max(metrics["best_score"] for metrics in studies.values())
    assert best.metrics.items() >= FINAL.items()
    table = runs.finished.grid.get_dataframe()
    assert {"best_score", "efficacy/0.1", "utility_gap/0.3", "trials", "config/method"} <= set(table.columns)
    assert list(best.metrics_dataframe["proposal"])[-1] == best.metrics["proposal"]  # as the user's logger wrote it


def test_a_stopper_ends_a_study_before_its_next_proposal(runs: Runs) -> None:
    trials = [trial for trial in runs.ended.trials.values() if trial["study"] == runs.first]
    assert [(trial["stage"], trial["proposal"]) for trial in trials] == [("tuning", 0)]


def test_a_stopper_that_ends_everything_lets_what_runs_finish(runs: Runs) -> None:
    assert runs.ended.schedule.stopped and runs.ended.schedule.failed == []
    others = [trial for trial in runs.ended.trials.values() if trial["stage"] == "tuning"]
    assert {trial["study"] for trial in others} == {"badnets--gd", "badnets--ssd"}
    assert all(trial["error"] is None for trial in others)


def test_the_next_run_does_what_was_left_and_no_record_is_lost_or_made_again(runs: Runs, done: Done) -> None:
    assert not runs.finished.schedule.stopped and runs.finished.schedule.failed == []
    assert set(runs.ended.lines) < set(runs.finished.lines)
    assert runs.finished.trials == science(done.trials)
    assert len(runs.finished.lines) == len(done.trials)


@pytest.mark.parametrize(("stop", "problem"), [({"scor": 1}, "stop names 'scor'"), (3, "but got 3")])
def test_a_stop_that_tune_would_not_understand_is_refused(stop: Any, problem: str) -> None:
    from sweeps.execution.tune_stop import as_stopper

    with pytest.raises(InputError, match=problem):
        as_stopper(stop)


def test_a_mapping_bounds_what_is_reported() -> None:
    from sweeps.execution.tune_stop import StudyStopper, as_stopper

    stopper = StudyStopper(as_stopper({"efficacy/0.1": 0.9}), end=lambda: None)
    below, above = (
        {"score": 0.0, "efficacy": {"0.1": value}, "finished": False, "study": "s"} for value in (0.8, 0.95)
    )
    assert (stopper("t", below), stopper("t", above)) == (False, True)
    assert not stopper("t", {"finished": True, "error": "", "too_large": ""})  # a trained model
    assert not stopper("t", above | {"finished": True})
    assert not stopper("t", below | {"efficacy": {"0.1": math.nan}})


def test_a_stopper_counts_proposals_of_a_study_over_all_its_parts() -> None:
    from ray.tune.stopper import MaximumIterationStopper

    from sweeps.execution.tune_stop import StudyStopper

    stopper = StudyStopper(MaximumIterationStopper(2), end=lambda: None)
    parts = [("t1", "s"), ("t2", "other"), ("t3", "s")]
    said = [stopper(trial, {"study": study, "score": 0.1, "finished": False}) for trial, study in parts]
    assert said == [False, False, True]
