"""What a worker process does with one cell. Knows nothing of Ray: the same function runs in-process."""

from __future__ import annotations

import contextlib
import importlib
import threading
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sweeps.config.spec import Sweep
from sweeps.execution.crash_counter import noted
from sweeps.execution.limits import GpuShareTooSmall, crowding, free, leaving_broken_devices, limit_memory
from sweeps.execution.run_task import run_cell
from sweeps.planning.manifest import read_manifest
from sweeps.planning.tasks import Cell, Result
from sweeps.storage.files import Folder, check_room, child
from sweeps.storage.leases import Lease
from sweeps.trials.ensemble import oracle_outputs
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from unlearn_core.checks import InputError
from unlearn_core.host.private import private_files

STOP = ".stop"  # a file in the sweep's folder
WORKING = ".working"  # a folder in it, with a lease for every cell that a worker is at


def _import_search() -> None:
    """Optuna keeps the frames of those who import it first, and all that is in them: those of a thread hold nothing."""
    importing = threading.Thread(target=importlib.import_module, args=("sweeps.planning.optuna_search",))
    importing.start()
    importing.join()


@lru_cache(maxsize=1)
def workbench(sweep_dir: Folder, place: RunEnvironment) -> ScenarioCache:
    """One per process: data, models and artifacts survive from cell to cell. Raises InputError where the sweep would be
    another one than that of its folder: its records must not mix."""
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
def at_work(sweep_dir: Folder, cell: Cell) -> Iterator[None]:
    """Shows others that a worker is at this cell."""
    lease = Lease(working(sweep_dir, cell))
    if isinstance(lease.path, Path):
        lease.path.parent.mkdir(exist_ok=True)
    lease.take()  # whoever else may have it: two workers on one cell harm nothing
    try:
        yield
    finally:
        lease.release()


def working(sweep_dir: Folder, cell: Cell) -> Folder:
    """The lease of whoever works at this cell."""
    return child(sweep_dir / WORKING, cell.name)


def is_stopping(sweep_dir: Folder) -> bool:
    """Whether the driver asked its workers to begin nothing more."""
    return (sweep_dir / STOP).exists()


@private_files()
def work_cell(sweep_dir: Folder, place: RunEnvironment, cell: Cell) -> Result:
    """Do what is missing in `cell`.

    An error of the science is an outcome, not a crash: only a lost process or machine is tried again, a few times. An
    error of the device ends this process.
    """
    place = place._replace(gpus=max(1.0, place.gpus)) if cell.alone else place
    result = _worked(sweep_dir, place, cell)
    if result.crowded:
        with contextlib.suppress(RuntimeError):  # there may have been no room for it
            free(workbench(sweep_dir, place))  # here, where no frame is left that holds tensors
    return result


def _worked(sweep_dir: Folder, place: RunEnvironment, cell: Cell) -> Result:
    try:
        check_room(sweep_dir)
        shown, device = at_work(sweep_dir, cell), leaving_broken_devices(cell)
        with shown, noted(sweep_dir, cell) as attempts, device, crowding(place, cell):  # reading data may crowd already
            run_cell(workbench(sweep_dir, place), sweep_dir, cell, lambda: is_stopping(sweep_dir), attempts)
    except GpuShareTooSmall as found:
        return Result(crowded=found.unit)
    except Exception:
        return Result(traceback.format_exc())
    return Result()
