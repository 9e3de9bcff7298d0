"""A method of which one proposal of three does to its worker what trials should not, and workers that meet it."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.config import plugins
from sweeps.config.spec import Sweep
from sweeps.execution.run_task import Worker, run_task
from sweeps.execution.worker import work_task, workbench
from sweeps.planning.task_list import reference_tasks
from sweeps.planning.tasks import RunStudy, Task
from sweeps.storage.record_log import Trial, read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.plugin_state import forget_plugins
from tests.sweeps.tiny import science, tiny

Rest = dict[tuple[object, ...], object]
STUDY = RunStudy("badnets", 1.0, "wild")
PLUGIN = '''
import ctypes, os, signal, time
from dataclasses import dataclass
from typing import ClassVar

import torch

from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float


def loop():
    while True:
        pass


def crowd():
    if float(os.environ["SHARE"]) < 1:
        raise torch.OutOfMemoryError("CUDA out of memory")


CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def hide():
    try:
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
    except RuntimeError as problem:
        raise ValueError("bad settings") from problem


def fail(kind, text):
    raise kind(text)


WAYS = {
    "behaves": lambda: None,
    "sleeps": lambda: time.sleep(1e6),
    "loops": loop,
    "computes": lambda: torch.linalg.svd(torch.rand(6000, 6000, dtype=torch.float64)),
    "waits in C": lambda: ctypes.CDLL(None).pause(),
    "waits in C with the lock": lambda: ctypes.PyDLL(None).pause(),
    "crashes": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "crowds": crowd,
    "breaks its device": lambda: fail(torch.AcceleratorError, "CUDA error: an illegal memory access was encountered"),
    "hides it": hide,
    "runs out in cuBLAS": lambda: fail(RuntimeError, CUBLAS),
}


@UNLEARNERS.register("wild")
@dataclass(frozen=True, kw_only=True)
class Wild:
    """Fine-tunes; but for one value of `level`."""

    needs: ClassVar[tuple[str, ...]] = UNLEARNERS.get("gd").needs
    anytime: ClassVar[bool] = True
    way: str = "sleeps"
    level: float = 0.0

    def updates(self, task):
        if self.level == 0.5:
            WAYS[self.way]()
        yield from UNLEARNERS.get("gd")().updates(task)

    @classmethod
    def search_space(cls):
        return {"level": Float(0.0, 1.0)}
'''


workers: set[int] = set()  # that were begun and not waited for


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without plug-ins of others, and with an end to all workers."""
    forget_plugins(monkeypatch)
    yield
    for process in list(workers):
        os.kill(process, signal.SIGKILL)
        end_of(process)


def wild(folder: Path, way: str, **changes: Any) -> Sweep:
    """The tiny sweep with that method: three proposals, the second of which does it."""
    chosen = settings(folder, way)
    plugins.load_plugins(chosen["plugins"])
    return tiny(**chosen, **changes)


def settings(folder: Path, way: str) -> dict[str, Any]:
    """What is different from the tiny sweep; the plug-in is in `folder`."""
    plugin = folder / "wild.py"
    plugin.write_text(PLUGIN)
    methods = [{"name": "wild", "fixed": {"way": way}}]
    return {"methods": methods, "plugins": [str(plugin)], "search": {"sampler": "grid", "grid_points": 3}}


def with_references(sweep: Sweep, out: Path) -> Path:
    """The folder of a sweep, as the driver leaves it to the workers of its studies."""
    folder = out / sweep.name
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict()}))
    workbench.cache_clear()
    for task in reference_tasks(sweep):
        assert work_task(folder, RunEnvironment(out), task).error is None
    return folder


def begin_worker(folder: Path, said: Path, task: Task = STUDY) -> int:
    """A worker process at `task`; what it says on stderr, and a failure of the task, goes to the file `said`. Returns
    its number."""
    process = os.fork()
    if process:
        workers.add(process)
        return process
    code = 1
    faulthandler.disable()  # the test runner's, which would tell of every crash
    try:
        with open(said, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 2)
            error = work_task(folder, RunEnvironment(folder.parent), task).error
            file.write((error or "").encode())
            code = 0 if error is None else 1
    finally:
        os._exit(code)


def end_of(process: int) -> int:
    """Exit code of a worker, or minus the signal that ended it."""
    status = os.waitpid(process, 0)[1]
    workers.discard(process)
    return os.waitstatus_to_exitcode(status)


def tuned(folder: Path) -> dict[int, Trial]:
    """The study's tuning trials by proposal."""
    return {trial.proposal: trial for trial in read_trials(folder) if trial.stage == "tuning"}


def rest(folder: Path) -> Rest:
    """What must be as in an undisturbed run: the rungs of all trials but that one."""
    kept = [trial for trial in read_trials(folder) if trial.error is None]
    by_id = science(kept)
    return {
        (t.stage, t.method, t.seed, t.proposal, t.chosen_for, t.attack_took): by_id[t.trial_id]["rungs"] for t in kept
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Rest:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        forget_plugins(patch)
        sweep = wild(out, "behaves")
        folder = with_references(sweep, out)
        run_task(STUDY, Worker(ScenarioCache(sweep, RunEnvironment(out)), folder))
    found = rest(folder)
    assert len(found) == 7 + 3 + 1  # references, proposals, the choice
    return {key: rungs for key, rungs in found.items() if key[3] != 1}
