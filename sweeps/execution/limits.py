"""Guards around trials: what a trial does to its worker costs that trial and no other.

One that does not end is recorded as failed when its time is up, and its process with it is given up: nothing else
stops native code. One over which processes are lost again and again is recorded as failed without another try. One
that runs out of the memory of its share of a GPU is handed out again for a whole one. An error of the device itself
ends the process without a record, because its trial, and every later one, would fail without a fault.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from sweeps.config.spec import Sweep
from sweeps.execution.crash_counter import LOSSES, Attempts, ProcessLostError, lost_text
from sweeps.planning.tasks import RunTrial, Task
from sweeps.schema.stages import Stage
from sweeps.storage.record_log import RecordWriter, Trial
from sweeps.trials.device_errors import ends_process, is_memory
from sweeps.trials.ensemble import oracle_outputs, run_ensemble_trial
from sweeps.trials.scenario_cache import Bench, RunEnvironment, ScenarioCache
from sweeps.trials.trial import Reference, Request, make_record, run_trial, trial_id

LEAST_SECONDS, ORACLES = 600.0, 20.0  # of the limit of a trial: seconds, and trainings of its oracle
GRACE = 120.0  # seconds that recording a trial may take once its time is up
CONTEXT = 700 * 2**20  # bytes that a process takes on a GPU besides its tensors: CUDA, cuDNN and their kernels
STDERR = 2  # written to past Python's own file, whose lock the hanging thread may hold


class GpuShareTooSmall(Exception):  # noqa: N818 - no error: there may be room on a whole GPU
    """There was not enough memory on a share of a GPU for `task`, which may be one trial of what was running."""

    def __init__(self, task: Task) -> None:
        super().__init__(f"{task.name} needs a whole GPU")
        self.task = task


@dataclass(frozen=True)
class Guard:
    """Does the trials of one task and records them."""

    work: ScenarioCache
    task: Task
    writer: RecordWriter
    attempts: Attempts | None = None  # without, lost processes are not counted

    def run(self, trial_task: RunTrial, request: Request, reference: Reference) -> Trial:
        """Do and record one trial.

        Raises:
            GpuShareTooSmall: there was not enough memory on a share of a GPU, so nothing is recorded.
            ProcessLostError: the trial cannot even be recorded as failed.
        """
        lost = self.attempts.begin(trial_id(self.work, request)) if self.attempts else 0
        if lost >= 2 * LOSSES:  # loading its scenario is enough
            raise ProcessLostError(f"{lost_text(lost)} over trial {trial_id(self.work, request)}")
        with share_limit(self.work.place, trial_task):
            bench = self.work.bench(request.attack, request.seed, request.held_out)
            blank = make_record(self.work, bench, request, reference, [])
            if lost >= LOSSES:
                trial = failed(blank, f"{ProcessLostError.__name__}: {lost_text(lost)} during this trial", seconds=None)
            else:
                trial = self._try(bench, request, reference, blank)
        return self._record(trial)

    def _record(self, trial: Trial) -> Trial:
        trial = replace(trial, gpu_memory_retries=int(self.task.whole_gpu))
        self.writer.append(trial)
        return trial

    def _try(self, bench: Bench, request: Request, reference: Reference, blank: Trial) -> Trial:
        run = run_ensemble_trial if request.stage == Stage.ENSEMBLE else run_trial
        limit, start = time_limit(self.work.sweep, bench, request), time.perf_counter()

        def give_up(where: str) -> None:
            text = f"not finished after {limit:.4g} s; raise resources.trial_timeout if the method is only slow"
            self._record(failed(blank, f"{where}TimeoutError: {text}", seconds=time.perf_counter() - start))
            say(f"trial {blank.trial_id} of {self.task.name} is recorded as failed: {text}")

        with deadline(limit, give_up):
            try:
                return run(self.work, request, reference)
            except Exception as problem:
                if shares_gpu(self.work.place) or ends_process(problem) or not is_memory(problem):
                    raise
                error = traceback.format_exc()
        free(self.work)  # here, where no frame of the trial is left that holds its tensors
        return failed(blank, error, seconds=time.perf_counter() - start)


def failed(blank: Trial, error: str, *, seconds: float | None) -> Trial:
    """The record of a trial that came to nothing, from one without rungs. seconds: how long it was, where known."""
    return replace(blank, error=error, finished_at=time.time(), trial_seconds=seconds)


# time


def time_limit(sweep: Sweep, bench: Bench, request: Request) -> float:
    """Seconds that a trial may take.

    A method that is no anytime method starts again for every budget, so the limit by default grows with their sum;
    an ensemble trial climbs one ladder per member and shadow.
    """
    seconds = sweep.resources.trial_timeout
    if seconds is None:
        seconds = LEAST_SECONDS + ORACLES * bench.oracle.cost.seconds * max(1.0, sum(request.budgets))
    ladders = 2 * sweep.ensemble.members if request.stage == Stage.ENSEMBLE else 1
    return min(seconds * ladders, threading.TIMEOUT_MAX - GRACE)


@contextlib.contextmanager
def deadline(seconds: float, give_up: Callable[[str], None]) -> Iterator[None]:
    """Ends this process if the body takes longer than that, after `give_up`, which gets the place where the body hangs.

    Either the body ends or it is given up, whichever comes first: after its end nothing is given up, and a body that
    ends later than that does not return. Native code that keeps other threads from running (by holding the
    interpreter's lock) also ends with its process, a little later and without `give_up`.
    """
    turn, thread = threading.Lock(), threading.get_ident()

    def end() -> None:
        if turn.acquire(blocking=False):
            try:
                give_up(_stack(thread))
            finally:
                os._exit(os.EX_TEMPFAIL)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=STDERR)
    try:
        yield
    finally:
        if not turn.acquire(blocking=False):
            threading.Event().wait()  # for the end of this process
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()


def _stack(thread: int) -> str:
    """Where a thread of this process is, below this file, as a traceback has it."""
    frames = traceback.extract_stack(sys._current_frames()[thread])
    here = max((i for i, frame in enumerate(frames) if frame.filename == __file__), default=-1)
    return "Traceback (most recent call last):\n" + "".join(traceback.format_list(frames[here + 1 :]))


def say(text: str) -> None:
    """For whoever runs a sweep in this process, which ends; a worker's goes to its log."""
    with contextlib.suppress(OSError):
        os.write(STDERR, f"\n{text}; its process ends, run the same command again to go on\n".encode())


# devices


@contextlib.contextmanager
def leaving_broken_devices(task: Task) -> Iterator[None]:
    """End this process after an error of its device, without any clean-up.

    The note of what it was at stays, so that it is counted as lost there, and what is next is done by a fresh
    process.

    Raises:
        GpuShareTooSmall: As it was raised: that is no error of the device.
    """
    try:
        yield
    except GpuShareTooSmall:
        raise
    except Exception as problem:
        if not ends_process(problem):
            raise
        say(f"{task.name} met an error of the device: {type(problem).__name__}: {str(problem).partition(chr(10))[0]}")
        os._exit(os.EX_TEMPFAIL)


# memory


def shares_gpu(place: RunEnvironment) -> bool:
    """Whether a task gets less than a whole GPU."""
    return 0 < place.gpus < 1


@contextlib.contextmanager
def share_limit(place: RunEnvironment, task: Task) -> Iterator[None]:
    """Where a GPU is shared, running out of its memory is GpuShareTooSmall."""
    try:
        yield
    except GpuShareTooSmall:
        raise
    except Exception as problem:
        if not (shares_gpu(place) and is_memory(problem)):
            raise
        raise GpuShareTooSmall(task) from problem


def limit_memory(place: RunEnvironment) -> None:
    """Keep this process to its share of the GPU's memory, so that it cannot take that of the others there.

    The limit is the allocator's, which knows nothing of the context: that is taken off.
    """
    if place.device != "cuda":
        return
    fraction = 1.0
    if shares_gpu(place):
        fraction = max(0.0, place.gpus - CONTEXT / torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.set_per_process_memory_fraction(fraction)


def free(work: ScenarioCache) -> None:
    """Give back the memory of what is only remembered; it is read again when it is needed."""
    work.benches.clear()
    oracle_outputs.cache_clear()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
