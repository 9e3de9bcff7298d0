"""What a worker process does with one task. Knows nothing of Ray: the same function runs in-process."""

from __future__ import annotations

import contextlib
import importlib
import threading
import traceback
from collections.abc import Iterator
from functools import lru_cache

from sweeps.config.spec import Sweep
from sweeps.execution.crash_counter import noted
from sweeps.execution.limits import GpuShareTooSmall, free, leaving_broken_devices, limit_memory, share_limit
from sweeps.execution.run_task import Worker, run_task
from sweeps.execution.study_report import Report
from sweeps.planning.tasks import Outcome, Task
from sweeps.storage.base import Folder
from sweeps.storage.folders import at, child
from sweeps.storage.leases import Lease
from sweeps.storage.manifest import read_manifest
from sweeps.storage.signs import STOP, WORKING
from sweeps.trials.ensemble import oracle_outputs
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from unlearn_core.checks import InputError
from unlearn_core.host.private import private_files


def _import_search() -> None:
    """Optuna keeps the frames of those who import it first, and all that is in them: those of a thread hold nothing."""
    importing = threading.Thread(target=importlib.import_module, args=("sweeps.planning.optuna_search",))
    importing.start()
    importing.join()


@lru_cache(maxsize=1)
def workbench(sweep_dir: Folder, place: RunEnvironment) -> ScenarioCache:
    """One per process: data, models and artifacts survive from task to task.

    Raises:
        InputError: Where the sweep would be another one than that of its folder: its records must not mix.
    """
    _import_search()
    limit_memory(place)
    oracle_outputs.cache_clear()  # holds on to the workbench before
    manifest = read_manifest(sweep_dir)
    sweep = Sweep.from_dict(manifest["spec"])
    if manifest.get("identity") not in (None, sweep.identity()):
        raise InputError(f"{sweep_dir} was begun with other pretrained weights or code than this machine has now")
    work = ScenarioCache(sweep, place)
    if manifest.get("data") not in (None, work.dataset.digest):
        raise InputError(f"{sweep_dir} was begun on other data than {work.dataset.name!r} is on this machine now")
    return work


@contextlib.contextmanager
def at_work(sweep_dir: Folder, task: Task) -> Iterator[None]:
    """Shows others that a worker is at this task."""
    lease = Lease(working(sweep_dir, task))
    at(lease.path.parent).make_folder()
    lease.take()  # whoever else may have it: two workers on one task harm nothing
    try:
        yield
    finally:
        lease.release()


def working(sweep_dir: Folder, task: Task) -> Folder:
    """The lease of whoever works at this task."""
    return child(sweep_dir / WORKING, task.name)


def is_stopping(sweep_dir: Folder) -> bool:
    """Whether the driver asked its workers to begin nothing more."""
    return (sweep_dir / STOP).exists()


@private_files()
def work_task(sweep_dir: Folder, place: RunEnvironment, task: Task, report: Report | None = None) -> Outcome:
    """Do what is missing of a task.

    An error of the science is an outcome, not a crash: only a lost process or machine is tried again, a few times. An
    error of the device ends this process.
    """
    place = place._replace(gpus=max(1.0, place.gpus)) if task.whole_gpu else place
    outcome = _worked(sweep_dir, place, task, report)
    if outcome.too_large:
        with contextlib.suppress(RuntimeError):  # there may have been no room for it
            free(workbench(sweep_dir, place))  # here, where no frame is left that holds tensors
    return outcome


def _worked(sweep_dir: Folder, place: RunEnvironment, task: Task, report: Report | None) -> Outcome:
    try:
        at(sweep_dir).check_room()
        shown, device = at_work(sweep_dir, task), leaving_broken_devices(task)
        with shown, noted(sweep_dir, task) as attempts, device, share_limit(place, task):  # data alone may be too large
            cache = workbench(sweep_dir, place)
            run_task(task, Worker(cache, sweep_dir, lambda: is_stopping(sweep_dir), attempts, report))
    except GpuShareTooSmall as found:
        return Outcome(too_large=found.task)
    except Exception:
        return Outcome(traceback.format_exc())
    return Outcome()
