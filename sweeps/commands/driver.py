"""The driver of a sweep: check, run what is missing, compact, report, mirror."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from sweeps.commands.folders import only_driver, prepare
from sweeps.commands.mirroring import Mirroring
from sweeps.commands.options import RunOptions
from sweeps.commands.plan import print_plan
from sweeps.commands.progress import ProgressDisplay
from sweeps.config.spec import Sweep
from sweeps.execution.executors import Executor, InlineExecutor
from sweeps.execution.interruption import run_or_explain, two_stages
from sweeps.launch import module_command
from sweeps.planning.data_card import DataFacts, check_finished, facts_of, show_card
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.manifest import check_manifest, write_manifest
from sweeps.planning.missing import Missing, missing
from sweeps.planning.plan import check_data, check_scenarios
from sweeps.planning.schedule import Schedule
from sweeps.storage import record_log
from sweeps.storage.errors import StorageError, writing
from sweeps.storage.folders import at
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.signs import STOP
from sweeps.storage.table import compact
from sweeps.trials.machine import slots, usable_cpus
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache, pick_device
from unlearn_core.checks import InputError

AGAIN = "run the same command again to try them"
STOPPING = "stopping once the trials that run are finished and recorded; press Ctrl-C again to stop at once"


class Ended(NamedTuple):
    """How a run ended: what failed, what is missing although nothing failed, and the exit code of the report."""

    failed: int
    missing: int
    report: int

    @property
    def code(self) -> int:
        """The exit code of the command: 0 if everything is done and reported, else 1."""
        return int(any(self))


class Driver:
    """One run of the command on one sweep."""

    def __init__(self, sweep: Sweep, options: RunOptions, command: str = "") -> None:
        self.sweep, self.options, self.command = sweep, options, command
        self.out = at(options.out).resolved("--out")
        self.store = at(options.store).resolved("--store") if options.store else self.out / "store"
        self.home = self.out / sweep.name  # what workers write to; `dir` is where everything else is read and made
        self.replica = LocalCopy(self.home)
        self.dir = self.replica.dir
        self.gpus = sweep.resources.gpus if options.gpu_fraction is None else options.gpu_fraction
        self.mirror = Mirroring(self.replica, options)
        self.grid: Any = None  # what Ray Tune returned
        self._interrupted = False

    @cached_property
    def place(self) -> RunEnvironment:
        """Where workers run. Raises InputError if this machine is to run them and lacks what they need."""
        if not self.options.on_this_machine:
            return self._environment("cuda" if self.gpus else "cpu")
        cpus, option = self.sweep.resources.cpus, self.options.gpu_fraction is not None
        if cpus > usable_cpus():
            raise InputError(
                f"resources.cpus is {cpus:g}, but this machine has {usable_cpus()} that this command may use; "
                f"lower it: --set resources.cpus={usable_cpus()}"
            )
        return self._environment(pick_device(self.gpus, "--gpu-fraction" if option else "resources.gpus"))

    def run(self) -> Ended:
        """Everything from checks to report."""
        place = self.place
        prepare(self.replica, self.out, self.store)
        with only_driver(self.home), writing(self.dir):
            self.replica.pull()
            check_manifest(self.sweep, self.replica)
            left = missing(self.sweep, self.dir)
            data = self._check_work() if any(left) else check_finished(self._workbench(), self.dir)
            write_manifest(self.sweep, self.replica, place, self.command, data)
            with self.mirror.following():
                schedule = self._work(left)
                reported = self._report()
            self.mirror.print_page()
        failed = _print_failures(schedule)
        undone = any(left) and not failed  # what was complete still is
        return Ended(failed, self._print_left() if undone else 0, reported)

    def print_plan(self) -> None:
        """What would be done, and what it would cost on this machine."""
        self.replica.pull()
        check_manifest(self.sweep, self.replica)
        at_once = 1 if self.options.inline else slots(self.sweep.resources.cpus, self.options.workers)
        left = missing(self.sweep, self.dir)
        print_plan(self._workbench(), left, home=self.home, sweep_dir=self.dir, at_once=at_once)

    def _environment(self, device: str) -> RunEnvironment:
        root = self.options.data_root
        threads = max(1, int(self.sweep.resources.cpus))
        return RunEnvironment(
            self.out, root.resolve() if root else None, device, threads, self.options.download, self.store, self.gpus
        )

    def _print_left(self) -> int:
        """Says so if something is missing although nothing failed; returns how many tasks that are."""
        left = missing(self.sweep, self.dir)
        if left.tasks:
            print(f"{len(left.tasks)} tasks are not complete, such as {left.tasks[0].name}; {AGAIN}", file=sys.stderr)
        return len(left.tasks)

    def _check_work(self) -> DataFacts:
        """Whether all of it can be done. Its data is let go of again, as workers have their own."""
        work = self._workbench()
        check_data(work, self.dir)
        check_scenarios(work)
        show_card(work.dataset, sys.stderr)
        return facts_of(work.dataset)

    def _workbench(self) -> ScenarioCache:
        """For checks here, on the CPU.

        The head of a cluster need not have the GPUs that its workers have, and a GPU of this machine would keep the
        memory of this process's context until the end.
        """
        return ScenarioCache(self.sweep, self._environment("cpu"))

    def _executor(self) -> Executor:
        if self.options.inline:
            return InlineExecutor()
        from sweeps.execution.ray_executor import RayExecutor

        address = self.options.cluster
        print("starting Ray" if address == "local" else f"joining Ray at {address}", file=sys.stderr)
        whole = self.options.gpu_fraction is not None
        return RayExecutor(
            address,
            cpus=self.sweep.resources.cpus,
            gpus=self.gpus,
            share_gpus=not whole,
            workers=self.options.workers,
            callbacks=self.options.callbacks,
            stop=self.options.stop,
        )

    def _work(self, left: Missing) -> Schedule:
        """Run what is left; returns the schedule at its end."""
        schedule = Schedule(self.sweep, left, RecordedWork(self.sweep, self.dir, self.replica.pull_folder))
        if schedule.finished:
            print(f"{self.sweep.name}: all trials are done already", file=sys.stderr)
            return schedule
        at(self.home / STOP).remove()
        executor = self._executor()
        total = sum(task.most_trials(self.sweep) for task in left.tasks)
        try:
            with two_stages(lambda: self._stop(schedule), STOPPING), ProgressDisplay("trials", total, self._counter()):
                executor.run(self.home, self.place, schedule)
                self.replica.pull()
            self.grid = executor.results
        finally:
            executor.close()
        if self._interrupted:
            compact(self.dir)
            raise KeyboardInterrupt
        return schedule

    def _stop(self, schedule: Schedule) -> None:
        """Begin nothing more, here and in the workers."""
        self._interrupted = schedule.stopped = True
        at(self.home / STOP).write(b"")

    def _counter(self) -> Callable[[], tuple[int, int]]:
        """Counts the recorded trials, and the failed ones among them; each call reads only what is new."""
        known: dict[str, record_log.Counted] = {}

        def count() -> tuple[int, int]:
            with contextlib.suppress(StorageError):  # the next look may reach the object store again
                self.replica.pull(patient=True)
            return record_log.count_trials(self.dir, known), record_log.count_failed(known)

        return count

    def _report(self) -> int:
        """Compact the records and analyse them. Returns an exit code."""
        table = compact(self.dir)
        if table is None:
            return 1
        if table.failed:
            failed = f"{table.failed} of {table.trials} trials failed"
            print(f"{failed}; their tracebacks are in the records", file=sys.stderr)
        code = self._analyse()
        self.replica.push("records.parquet", "report")
        return code

    def _analyse(self) -> int:
        """Tables, verdict and report, by the analysis package in a separate process."""
        sys.stdout.flush()
        return run_or_explain(module_command("analysis.report", str(self.dir)), "the report was not made")


def _print_failures(schedule: Schedule) -> int:
    """One line per failed task; returns how many there are."""
    for task, error in schedule.failed:
        print(f"failed: {task.name}: {error.strip().splitlines()[-1]}", file=sys.stderr)
    if schedule.failed and schedule.left_out:
        print(f"{schedule.left_out} more tasks need these and were left out; {AGAIN}", file=sys.stderr)
    return len(schedule.failed)
