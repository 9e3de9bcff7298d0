"""Memory: of a GPU that trials share, and of a worker that walks from scenario to scenario."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sweeps.execution import limits, worker
from sweeps.execution.executors import InlineExecutor
from sweeps.execution.limits import GpuShareTooSmall, limit_memory
from sweeps.execution.run_task import Worker, run_task
from sweeps.execution.worker import work_task, workbench
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.planning.tasks import MeasureEnsemble, MeasureReferences, Outcome, RunStudy, Task, TrainModel
from sweeps.schema.stages import Stage
from sweeps.storage.artifacts import Artifact, ArtifactStore
from sweeps.storage.memory_cache import Recent, memory
from sweeps.storage.record_log import Trial, read_trials
from sweeps.trials.ensemble import oracle_outputs
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import lines, science, tiny
from tests.sweeps.wild import STUDY, _alone, tuned, wild, with_references

__all__ = ["_alone"]  # a fixture

HALF = 0.5


@pytest.fixture(autouse=True)
def _share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logical GPUs: what has less than a whole one runs out of memory, where the method wants it to."""
    monkeypatch.setattr(worker, "limit_memory", lambda place: os.environ.update(SHARE=str(place.gpus)))
    monkeypatch.setenv("SHARE", "1")


def on(out: Path, gpus: float) -> RunEnvironment:
    return RunEnvironment(out, gpus=gpus)


def placed(trial: Trial) -> tuple[Any, Any]:
    return trial.gpus, trial.gpu_memory_retries


# shares of a GPU


def test_a_trial_that_runs_out_of_its_share_is_not_recorded_but_handed_back(tmp_path: Path) -> None:
    folder = with_references(wild(tmp_path, "crowds"), tmp_path)
    result = work_task(folder, on(tmp_path, HALF), STUDY)
    big = STUDY.trial(Stage.TUNING, 1, 0)
    assert result == Outcome(too_large=big)
    assert list(tuned(folder)) == [0]
    assert work_task(folder, on(tmp_path, HALF), replace(big, whole_gpu=True)) == Outcome()
    found = tuned(folder)
    assert (found[1].error, placed(found[1])) == (None, (1.0, 1))
    assert work_task(folder, on(tmp_path, HALF), STUDY) == Outcome()
    assert [placed(trial) for _, trial in sorted(tuned(folder).items())] == [(HALF, 0), (1.0, 1), (HALF, 0)]
    assert len(lines(folder)) == 11


def test_on_a_whole_gpu_it_has_failed_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, freed = with_references(wild(tmp_path, "crowds"), tmp_path), []
    monkeypatch.setattr(limits, "free", freed.append)
    monkeypatch.setattr(worker, "limit_memory", lambda place: os.environ.update(SHARE="0.1"))
    assert work_task(folder, on(tmp_path, 1), STUDY) == Outcome()
    found = tuned(folder)
    assert [trial.error is None for trial in found.values()] == [True, False, True]
    assert found[1].error.strip().endswith("OutOfMemoryError: CUDA out of memory")
    assert placed(found[1]) == (1.0, 0)
    assert len(freed) == 1


def test_on_the_cpu_there_is_nothing_to_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_references(wild(tmp_path, "crowds"), tmp_path)
    monkeypatch.setattr(worker, "limit_memory", lambda place: os.environ.update(SHARE="0.1"))
    assert work_task(folder, on(tmp_path, 0), STUDY) == Outcome()
    assert placed(tuned(folder)[1]) == (0, 0)
    assert "OutOfMemoryError" in tuned(folder)[1].error


@pytest.mark.slow
def test_an_ensemble_trial_is_handed_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tiny(methods=["gd"], ensemble={"members": 8}, search={"trials": 1})
    folder = with_references(sweep, tmp_path)
    for task in [MeasureEnsemble("badnets", 1.0, 1)]:
        assert work_task(folder, on(tmp_path, HALF), task) == Outcome()

    def crowd(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("sweeps.trials.ensemble.Retrainings.climb", crowd)
    study = RunStudy("badnets", 1.0, "gd")
    result = work_task(folder, on(tmp_path, HALF), study)
    assert result.too_large == study.trial(Stage.ENSEMBLE, 0, 1)
    assert [trial for trial in read_trials(folder) if trial.error] == []


@pytest.mark.parametrize("task", [TrainModel("badnets", 1, "oracle"), MeasureReferences("badnets", 1.0, 1)], ids=str)
def test_what_is_no_trial_is_handed_back_whole(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = ScenarioCache(tiny(), on(tmp_path, HALF))

    def crowd(*_: Any) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr("sweeps.trials.scenario_cache.ScenarioCache._trained", crowd)
        with pytest.raises(GpuShareTooSmall) as found:
            run_task(task, Worker(work, tmp_path / "tiny"))
    assert found.value.task == task
    folder = with_references(tiny(seeds={"tuning": [0], "confirmation": [2]}), tmp_path)
    assert work_task(folder, on(tmp_path, HALF), replace(task, whole_gpu=True)) == Outcome()
    assert {placed(t) for t in read_trials(folder) if t.seed == 1} == (
        {(1.0, 1)} if isinstance(task, MeasureReferences) else set()
    )


def test_a_sweep_with_a_crowded_trial_comes_to_the_same(tmp_path: Path) -> None:
    sweep = wild(tmp_path, "crowds")
    for name, share in (("whole", 1), ("half", HALF)):
        (tmp_path / name).mkdir()
        folder = with_references(sweep, tmp_path / name)
        schedule = Schedule(sweep, missing(sweep, folder), RecordedWork(sweep, folder))
        InlineExecutor().run(folder, on(tmp_path / name, share), schedule)
        assert [outcome for outcome in schedule.failed if outcome.error] == []
        assert len(lines(folder)) == 11
    whole, half = (science(read_trials(tmp_path / name / "tiny")) for name in ("whole", "half"))
    assert without_place(half) == without_place(whole)
    assert [placed(t) for _, t in sorted(tuned(tmp_path / "half" / "tiny").items())] == [(HALF, 0), (1, 1), (HALF, 0)]


def without_place(trials: dict[str, Any]) -> dict[str, Any]:
    columns = ("gpus", "gpu_memory_retries")
    return {key: {name: v for name, v in trial.items() if name not in columns} for key, trial in trials.items()}


@pytest.mark.parametrize("gpus, fraction", [(0.25, 0.2), (1, 1.0), (2, 1.0)])
def test_a_process_keeps_to_its_share_of_the_memory(
    gpus: float, fraction: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", asked.append)
    card = type("Card", (), {"total_memory": 20 * limits.CONTEXT})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    limit_memory(RunEnvironment(tmp_path, device="cuda", gpus=gpus))
    assert asked == [fraction]
    limit_memory(RunEnvironment(tmp_path))
    assert asked == [fraction]


@pytest.mark.gpu
def test_a_real_gpu_that_is_shared(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    place = RunEnvironment(tmp_path, device="cuda", gpus=0.05)
    total = torch.cuda.get_device_properties(0).total_memory
    limit_memory(place)
    try:
        torch.empty(int(0.02 * total), dtype=torch.uint8, device="cuda")
        with pytest.raises(GpuShareTooSmall), limits.share_limit(place, STUDY):
            torch.empty(int(0.1 * total), dtype=torch.uint8, device="cuda")
        limit_memory(place._replace(gpus=1))
        torch.empty(int(0.1 * total), dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.empty_cache()


# what a worker remembers


def live_bytes() -> int:
    """Of all tensors of this process, shared memory once."""
    gc.collect()
    found: dict[tuple[str, int], int] = {}
    for item in gc.get_objects():
        if type(item) in (Tensor, nn.Parameter):
            found |= memory(item)
    return sum(found.values())


@pytest.mark.slow
def test_thirty_scenarios_in_one_process_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    attacks = [{"name": "badnets", "label": f"a{n}", "fraction": 0.1 + n / 100, "size": 2} for n in range(15)]
    recipe = {"epochs": 2, "batch_size": 50, "lr": 0.05}
    sweep = tiny(attacks=attacks, methods=["gd"], search={"trials": 1}, recipe=recipe)
    before, sizes, folder = live_bytes(), [], with_references(sweep, tmp_path)
    for number, task in enumerate(missing(sweep, folder).studies):
        assert work_task(folder, RunEnvironment(tmp_path), task) == Outcome()
        if number % 3 == 2:
            sizes.append(live_bytes() - before)
    assert len({t.scenario_id for t in read_trials(folder)}) == 30
    assert 0 < max(sizes[1:]) < 1.25 * sizes[0], sizes


def test_memory_counts_each_storage_once_wherever_it_is() -> None:
    tensor, array = torch.zeros(100), np.zeros(50)
    assert sum(memory([tensor, tensor[10:], {"a": (tensor.view(10, 10),)}]).values()) == 400
    assert sum(memory({"a": array, "b": array[5:], "c": "text", "d": None}).values()) == 400
    assert sum(memory(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))).values()) == 4 * (12 + 4 + 4 * 4) + 8
    assert sum(memory(RunEnvironment(Path())).values()) == 0


def test_memory_of_a_scenario_is_that_of_its_tensors(tmp_path: Path) -> None:
    work = ScenarioCache(tiny(), RunEnvironment(tmp_path))
    work.dataset  # noqa: B018 - is loaded
    before = live_bytes()
    bench = work.bench("badnets", 1, "test")
    own = {k: v for k, v in memory(bench).items() if k not in memory(work.dataset) and k[0] != "numpy"}
    assert sum(own.values()) == pytest.approx(live_bytes() - before, rel=0.1)


def test_the_last_values_are_remembered_as_far_as_there_is_room() -> None:
    recent: Recent[Tensor] = Recent(number=3, room=1000)
    for name in "abc":
        recent.put(name, torch.zeros(50))
    assert recent.get("a") is not None
    recent.put("d", torch.zeros(50))
    assert [name for name in "abcd" if recent.get(name) is not None] == ["a", "c", "d"], "the one used longest ago went"
    recent.put("e", torch.zeros(200))
    assert [name for name in "acde" if recent.get(name) is not None] == ["d", "e"]
    recent.put("f", torch.zeros(10_000))
    assert (len(recent), recent.get("e")) == (1, None), "the last one stays, however large"
    shared = torch.zeros(10_000)
    recent.put("g", shared[:5], beside=shared)
    recent.clear()
    recent.put("g", shared[:5], beside=shared)
    recent.put("h", torch.zeros(200), beside=shared)
    assert len(recent) == 2


def test_what_a_read_only_store_lacks_is_remembered_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    store = ArtifactStore(tmp_path / "store")
    store._unsaved.room = 10_000
    monkeypatch.setattr("sweeps.storage.artifacts.write", _refused)

    def get(number: int) -> None:
        store.get("model", {"n": number}, lambda: made.append(number) or Artifact({"w": torch.zeros(1000)}, {}))  # type: ignore[func-returns-value]

    for number in (0, 1, 1, 0, 2, 0, 1):
        get(number)
    assert made == [0, 1, 2, 1]


def _refused(*_: Any) -> None:
    from sweeps.storage.artifacts import READ_ONLY, StorageError

    raise StorageError("read-only", READ_ONLY[0])


def test_nothing_holds_on_to_the_workbench_before(tmp_path: Path) -> None:
    recipe = {"epochs": 1, "batch_size": 50, "lr": 0.05}
    for name in "ab":
        (tmp_path / name).mkdir()
        folder = with_references(tiny(ensemble={"members": 8}, recipe=recipe), tmp_path / name)
        oracle_outputs(workbench(folder, RunEnvironment(tmp_path / name)), "badnets", 1)
    gc.collect()
    made = [item.place.out for item in gc.get_objects() if type(item) is ScenarioCache]
    assert [out.name for out in made if out.parent == tmp_path] == ["b"]


def test_giving_memory_back_keeps_the_results(tmp_path: Path) -> None:
    sweep = tiny(methods=["gd"], search={"trials": 1})
    folder = with_references(sweep, tmp_path)
    work = workbench(folder, RunEnvironment(tmp_path))
    assert len(work.benches) > 0
    limits.free(work)
    assert len(work.benches) == 0
    assert run_task(RunStudy("badnets", 1.0, "gd"), Worker(work, folder)) == 2
