"""Errors of a device: no record, a fresh process, and failed for good only when processes are lost at it again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.execution import gpu_share, worker
from sweeps.execution.crash_counter import LOSSES
from sweeps.execution.executors import InlineExecutor
from sweeps.execution.gpu_share import measured, try_out
from sweeps.execution.limits import CONTEXT
from sweeps.execution.worker import work_task
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.planning.tasks import MeasureEnsemble, MeasureReferences, Outcome, RunStudy, TrainMember, TrainModel
from sweeps.schema.stages import Stage
from sweeps.trials.device_errors import ends_process, is_devices, is_memory
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import lines, tiny
from tests.sweeps.wild import (
    Rest,
    _alone,
    begin_worker,
    end_of,
    rest,
    tuned,
    undisturbed,
    wild,
    with_references,
)
from unlearn_core.unlearners.gd import GD

__all__ = ["_alone", "undisturbed"]  # fixtures

BROKEN = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
AT_START = torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
MEMORY = [
    AT_START,
    CUBLAS,
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB, other allocations: 160 KB, max allowed: 18 GB)"),
    RuntimeError("Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
]
FAILURES = [
    BROKEN,
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("No CUDA GPUs are available"),
]
OWN = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu"),
    ValueError("CUDA error: out of memory, says a plug-in of its own accord"),
    MemoryError(),
]


@pytest.mark.parametrize("problem", MEMORY, ids=str)
def test_errors_of_memory_by_their_words(problem: Exception) -> None:
    assert is_memory(problem) and ends_process(problem) and is_devices(problem)


@pytest.mark.parametrize("problem", FAILURES, ids=str)
def test_errors_that_break_a_context(problem: Exception) -> None:
    assert (is_memory(problem), ends_process(problem), is_devices(problem)) == (False, True, True)


@pytest.mark.parametrize("problem", OWN, ids=repr)
def test_a_methods_own_errors_are_none_of_the_device(problem: Exception) -> None:
    assert not is_devices(problem)


def test_after_torchs_own_error_of_memory_the_process_goes_on() -> None:
    problem = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert (is_memory(problem), ends_process(problem), is_devices(problem)) == (True, False, True)


def test_an_error_in_the_handling_of_one_of_the_device_is_one() -> None:
    def handled(inner: Exception) -> Exception:
        try:
            try:
                raise inner
            except RuntimeError:
                raise KeyError("clean-up")  # noqa: B904 - as a plug-in may
        except KeyError as problem:
            return problem

    assert ends_process(handled(BROKEN))
    assert not is_devices(handled(OWN[0]))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["breaks its device", "hides it", "runs out in cuBLAS"])
def test_nothing_is_recorded_and_a_trial_that_loses_processes_again_has_failed(
    tmp_path: Path, undisturbed: Rest, way: str
) -> None:
    folder, said = with_references(wild(tmp_path, way), tmp_path), tmp_path / "said"
    for _ in range(LOSSES):
        assert end_of(begin_worker(folder, said)) == os.EX_TEMPFAIL
        assert list(tuned(folder)) == [0]
    assert end_of(begin_worker(folder, said)) == 0
    found = tuned(folder)
    assert [trial.error is None for trial in found.values()] == [True, False, True]
    assert found[1].error.startswith("ProcessLostError: the worker process was lost 3 times")
    assert rest(folder) == undisturbed
    assert len(lines(folder)) == 11
    assert said.read_text().count("badnets--wild met an error of the device: ") == LOSSES


def test_a_device_that_fails_once_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = with_references(tiny(methods=["gd"]), tmp_path), tmp_path / "said"
    study = RunStudy("badnets", 1.0, "gd")
    with monkeypatch.context() as patch:
        patch.setattr(GD, "updates", _once(tmp_path / "broken", GD.updates))
        assert end_of(begin_worker(folder, said, study)) == os.EX_TEMPFAIL
    assert end_of(begin_worker(folder, said, study)) == 0
    assert {trial.error for trial in tuned(folder).values()} == {None}


def _once(mark: Path, updates: Any) -> Any:
    """The method, whose device fails at the second trial."""
    begun: list[int] = []

    def failing(self: GD, task: Any) -> Any:
        begun.append(1)
        if len(begun) == 2:
            raise BROKEN
        return updates(self, task)

    return failing


@pytest.mark.slow
@pytest.mark.parametrize("problem", [BROKEN, CUBLAS], ids=["broken", "memory"])
@pytest.mark.parametrize("kind", ["training", "reference", "ensemble", "member", "evaluation"])
def test_what_is_no_trial_of_a_method_ends_its_process_too(
    kind: str, problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, said = tiny(methods=["gd"], ensemble={"members": 8}), tmp_path / "said"
    folder = with_references(sweep, tmp_path)
    before = lines(folder)
    tasks = {
        "training": TrainModel("badnets", 7, "oracle"),
        "reference": MeasureReferences("badnets", 1.0, 7),
        "ensemble": MeasureEnsemble("badnets", 1.0, 1),
        "member": TrainMember("badnets", 1, 0),
        "evaluation": RunStudy("badnets", 1.0, "gd"),
    }
    where = (
        "unlearn_core.scenarios.evaluation.Evaluator.__call__"
        if kind == "evaluation"
        else "unlearn_core.scenarios.scenario.Scenario.train"
    )
    monkeypatch.setattr(where, lambda *_: (_ for _ in ()).throw(problem))
    assert end_of(begin_worker(folder, said, tasks[kind])) == os.EX_TEMPFAIL
    assert lines(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("problem", MEMORY, ids=str)
def test_on_a_share_of_a_gpu_errors_of_memory_are_crowding(
    problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GD, "updates", lambda *_: (_ for _ in ()).throw(problem))
    folder = with_references(tiny(methods=["gd"]), tmp_path)
    study = RunStudy("badnets", 1.0, "gd")
    result = work_task(folder, RunEnvironment(tmp_path, gpus=0.5), study)
    assert result.too_large == study.trial(Stage.TUNING, 0, 0)
    assert tuned(folder) == {}


def test_no_room_for_the_data_on_a_share_is_crowding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_references(tiny(methods=["gd"]), tmp_path)
    study = RunStudy("badnets", 1.0, "gd")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "limit_memory", lambda place: (_ for _ in ()).throw(AT_START))
        worker.workbench.cache_clear()
        result = work_task(folder, RunEnvironment(tmp_path, gpus=0.5), study)
    assert result == Outcome(too_large=study)


def test_an_inline_sweep_ends_with_its_process_and_goes_on(tmp_path: Path, undisturbed: Rest) -> None:
    sweep = wild(tmp_path, "breaks its device")
    folder, codes = with_references(sweep, tmp_path), []
    for _ in range(LOSSES + 1):
        process = os.fork()
        if not process:
            InlineExecutor().run(
                folder, RunEnvironment(tmp_path), Schedule(sweep, missing(sweep, folder), RecordedWork(sweep, folder))
            )
            os._exit(0)
        codes.append(end_of(process))
    assert codes == [os.EX_TEMPFAIL] * LOSSES + [0]
    assert rest(folder) == undisturbed


def test_a_broken_device_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, work = (
        with_references(tiny(methods=["gd"]), tmp_path),
        ScenarioCache(tiny(methods=["gd"]), RunEnvironment(tmp_path)),
    )
    for problem, raised in ((BROKEN, True), (OWN[0], False)):
        monkeypatch.setattr(GD, "updates", lambda *_, problem=problem: (_ for _ in ()).throw(problem))
        if raised:
            for measure in (lambda: try_out(work), lambda: measured(folder, RunEnvironment(tmp_path))):
                with pytest.raises(torch.AcceleratorError):
                    measure()
        else:
            try_out(work)
    monkeypatch.setattr(GD, "updates", lambda *_: (_ for _ in ()).throw(CUBLAS))
    found = measured(folder, RunEnvironment(tmp_path))
    assert found.needed == found.room, "all of it"


def test_memory_is_measured_in_the_precision_of_runs_and_from_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[bool] = []

    class Recording:
        def __init__(self, device: torch.device, bf16: bool) -> None:
            entered.append(bf16)

        def context(self) -> Any:
            return contextlib.nullcontext()

    monkeypatch.setattr(gpu_share, "Meter", Recording)
    monkeypatch.setattr(gpu_share, "_try_method", lambda *_: None)
    try_out(ScenarioCache(tiny(), RunEnvironment(tmp_path)))
    assert entered == [True]
    monkeypatch.setattr(gpu_share, "workbench", lambda *_: None)
    monkeypatch.setattr(gpu_share, "try_out", lambda _: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 10 * 2**30)
    found = measured(tmp_path, RunEnvironment(tmp_path, device="cuda", gpus=1))
    assert found == (10 * 2**30 + CONTEXT, 30 * 2**30 + CONTEXT)
