"""The driver of a sweep: check, run what is missing, compact, report, mirror."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.commands.progress import ProgressDisplay, duration
from sweeps.config.spec import Sweep
from sweeps.execution.executors import Executor, InlineExecutor
from sweeps.execution.interruption import run_told, two_stages
from sweeps.execution.worker import STOP
from sweeps.launch import module_command
from sweeps.planning.data_card import DataFacts, check_finished, facts_of, show_card
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.manifest import check_manifest, write_manifest
from sweeps.planning.missing import Missing, missing
from sweeps.planning.plan import check_data, check_scenarios, estimate
from sweeps.planning.schedule import Schedule
from sweeps.storage import record_log
from sweeps.storage.errors import StorageError, writing
from sweeps.storage.folders import at
from sweeps.storage.leases import EXPIRY, Lease
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.table import compact
from sweeps.tracking.uri import default_uri, reachable, shown_command
from sweeps.trials.affordable import too_dear
from sweeps.trials.machine import slots, usable_cpus
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache, pick_device
from unlearn_core.checks import InputError

TASKS_SHOWN = 200  # of a plan
AGAIN = "run the same command again to try them"
STOPPING = "stopping once the trials that run are finished and recorded; press Ctrl-C again to stop at once"
QUIET = 5.0  # seconds of waiting without a word
SYNC_PATIENCE = 300.0  # seconds to wait at the end for the mirror; it can be completed later


class Driver:
    """One run of the command on one sweep."""

    def __init__(self, sweep: Sweep, options: argparse.Namespace, command: str) -> None:
        self.sweep, self.options, self.command = sweep, options, command
        self.out = at(options.out).resolved("--out")
        self.store = at(options.store).resolved("--store") if options.store else self.out / "store"
        self.home = self.out / sweep.name  # what workers write to; `dir` is where everything else is read and made
        self.replica = LocalCopy(self.home)
        self.dir = self.replica.dir
        self.address = options.address or os.environ.get("RAY_ADDRESS") or "local"
        cpus = sweep.resources.cpus
        self.gpus = gpus = sweep.resources.gpus if options.gpu_fraction is None else options.gpu_fraction
        asked = "resources.gpus" if options.gpu_fraction is None else "--gpu-fraction"
        self.local = self.address == "local" or options.inline
        runs_here = self.local and not options.dry_run  # a plan may be made on a machine without the hardware
        if runs_here and cpus > usable_cpus():
            raise InputError(
                f"resources.cpus is {cpus:g}, but this machine has {usable_cpus()} that this command may use; "
                f"lower it: --set resources.cpus={usable_cpus()}"
            )
        if options.workers is not None and not self.local:
            raise InputError("--workers is for this machine alone; on a cluster, resources.cpus says how many fit")
        self.place = RunEnvironment(
            self.out,
            options.data_root.resolve() if options.data_root else None,
            pick_device(gpus, asked) if runs_here else ("cuda" if gpus else "cpu"),
            max(1, int(cpus)),
            options.download,
            self.store,
            gpus,
        )
        self._tracking_uri: str | None = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")

    def run(self) -> int:
        """Everything from checks to report. Returns the exit code."""
        self._prepare_folder()
        with self._only_driver(), writing(self.dir):
            self.replica.pull()
            check_manifest(self.sweep, self.replica)
            left = missing(self.sweep, self.dir)
            data = self._check_work() if any(left) else check_finished(self._workbench(), self.dir)
            write_manifest(self.sweep, self.replica, self.place, self.command, data)
            with self._mirror():
                schedule = self._work(left)
                reported = self._report()
            self._print_ui_command()
        undone = _print_failures(schedule) or (any(left) and self._print_left())  # what was complete still is
        return 1 if undone or reported else 0

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
        """For checks here, on the CPU: the head of a cluster need not have the GPUs that its workers have, and a GPU of
        this machine would keep the memory of this process's context until the end."""
        return ScenarioCache(self.sweep, self.place._replace(device="cpu"))

    def print_plan(self) -> None:
        """What would be done, and what it would cost on this machine."""
        self.replica.pull()
        check_manifest(self.sweep, self.replica)
        work, left = self._workbench(), missing(self.sweep, self.dir)
        check_data(work, self.dir)
        check_scenarios(work)
        print(f"sweep {self.sweep.name}: {self.home}")
        show_card(work.dataset, sys.stdout)
        cost = estimate(work, left)
        for method in too_dear(work, cost.training):
            print(f"warning: {method}", file=sys.stderr)
        at_once = 1 if self.options.inline else slots(self.sweep.resources.cpus, self.options.workers)
        for task in left.tasks[:TASKS_SHOWN]:
            print(f"  {task.name:<40} up to {task.most_trials(self.sweep)} trials")
        if len(left.tasks) > TASKS_SHOWN:
            print(f"  and {len(left.tasks) - TASKS_SHOWN} more tasks")
        print(f"scenarios   {cost.scenarios}")
        print(f"trainings   {cost.trainings} from scratch, still to do")
        print(f"trials      up to {cost.trials}, each measured at up to {len(self.sweep.budgets)} budgets")
        print(f"FLOPs       {cost.flops:.2e}, at most")
        seconds, speed = cost.hours(at_once) * 3600, cost.flops_per_second
        print(f"time here   {duration(seconds)} on {at_once} at a time ({speed:.1e} FLOP/s each)")

    def sync_tracking(self) -> int:
        """Send what the tracking store is missing."""
        self.replica.pull()
        if not (self.dir / "sweep.json").exists():
            raise InputError(f"there is no sweep in {self.home}; run it first, or name another with --out or --name")
        problem = reachable(self.tracking_uri)
        if problem:
            raise InputError(f"--tracking-uri: {problem}")
        with contextlib.suppress(InputError, StorageError), self._only_driver():
            (self.dir / ".running").unlink(missing_ok=True)  # left by a driver that was killed
        command, environment = self._tracking_command(), self._tracking_environment()
        again = "send the rest with --sync-mlflow"
        return run_told(command, "MLflow has not got everything", again=again, environment=environment)

    @property
    def tracking_uri(self) -> str:
        if self._tracking_uri is None:
            self._tracking_uri = default_uri(self.dir.parent)
        return self._tracking_uri

    def _prepare_folder(self) -> None:
        """Create the sweep's folder, and see that it can be written, and the artifact store at least read."""
        problem = at(self.home).unwritable()
        if problem:
            raise InputError(f"--out {self.out} cannot be written: {problem}; choose another folder")
        problem = at(self.store).unwritable()
        if problem and not self.store.exists():
            raise InputError(f"--store {self.store} cannot be written: {problem}; choose another folder")
        if problem:
            print(f"warning: {self.store} can only be read: what it lacks is made again in every run", file=sys.stderr)
        if self.replica.is_apart:
            print(f"{self.home}: report, MLflow and a copy of the records are in {self.dir}", file=sys.stderr)

    @contextlib.contextmanager
    def _only_driver(self) -> Iterator[None]:
        """Two drivers on one sweep would do everything twice: the second is refused."""
        lease = Lease(self.home / ".lock")
        holder = lease.take()
        if holder is not None:
            raise InputError(
                f"another process is running this sweep in {self.home}: {holder}; wait for it or use --name. Without "
                f"a sign of life from its machine its lock is free after {EXPIRY:g} s; to free it now, delete "
                f"{lease.path}"
            )
        try:
            yield
        finally:
            lease.release()

    def _executor(self) -> Executor:
        if self.options.inline:
            return InlineExecutor()
        from sweeps.execution.ray_executor import RayExecutor

        print("starting Ray" if self.address == "local" else f"joining Ray at {self.address}", file=sys.stderr)
        whole = self.options.gpu_fraction is not None
        cpus, workers = self.sweep.resources.cpus, self.options.workers
        return RayExecutor(self.address, cpus=cpus, gpus=self.gpus, share_gpus=not whole, workers=workers)

    def _work(self, left: Missing) -> Schedule:
        """Run what is left; returns the schedule at its end."""
        schedule = Schedule(self.sweep, left, RecordedWork(self.sweep, self.dir, self.replica.pull_cell))
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
        finally:
            executor.close()
        if schedule.stopped:
            compact(self.dir)
            raise KeyboardInterrupt
        return schedule

    def _stop(self, schedule: Schedule) -> None:
        """Begin nothing more, here and in the workers."""
        schedule.stopped = True
        at(self.home / STOP).write(b"")

    def _counter(self) -> Callable[[], tuple[int, int]]:
        """Counts the recorded trials, and the failed ones among them; each call reads only what is new."""
        known: dict[str, record_log.Counted] = {}

        def count() -> tuple[int, int]:
            with contextlib.suppress(StorageError):  # the next look may reach the object store again
                self.replica.pull(patient=True)
            return record_log.count_trials(self.dir, known), record_log.count_failed(known)

        return count

    @contextlib.contextmanager
    def _mirror(self) -> Iterator[None]:
        """MLflow follows the records from a process of its own; nothing it does can stop the sweep."""
        if self.options.no_tracking:
            yield
            return
        problem = reachable(self.tracking_uri)
        if problem:
            print(f"warning: MLflow: {problem}; the sweep goes on, send it later with --sync-mlflow", file=sys.stderr)
            yield
            return
        running = self.dir / ".running"
        running.write_text(str(os.getpid()))
        log = open(self.dir / "tracking.log", "w")  # noqa: SIM115 - the process keeps it
        command = [*self._tracking_command(), "--follow"]
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=self._tracking_environment(), start_new_session=True
        )  # Ctrl-C is not for it
        try:
            yield
        finally:
            running.unlink(missing_ok=True)  # it sends the rest and ends, waited for or not
            log.close()
        _await_mirror(process, log.name)

    def _tracking_command(self) -> list[str]:
        return module_command("sweeps.tracking.sync", str(self.dir))

    def _tracking_environment(self) -> dict[str, str]:
        """The URI may hold a password, and everybody on the machine can read command lines."""
        return os.environ | {"MLFLOW_TRACKING_URI": self.tracking_uri}

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
        """Tables, verdict and report, by the analysis package in a process of its own."""
        sys.stdout.flush()
        return run_told(module_command("analysis.report", str(self.dir)), "the report was not made")

    def _print_ui_command(self) -> None:
        log = self.dir / "tracking.log"
        if self.options.no_tracking or not log.exists():
            return
        page = log.read_text().rpartition(" shown at ")[2].strip()
        if "\n" in page or not page.startswith("http"):  # it did not get to the end
            return
        print(f"\nbrowse the trials: {page}")
        if not self.tracking_uri.startswith("http"):
            mlflow = str(Path(sys.executable).with_name("mlflow"))
            options = ["--host", "127.0.0.1", "--port", "5000"]
            server = shown_command([mlflow, "server", "--backend-store-uri", self.tracking_uri, *options])
            # without its job service the server starts in a third of the time; it imports nothing from this folder
            print(f"  after starting  PYTHONSAFEPATH=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {server}")


def _await_mirror(process: subprocess.Popen[bytes], log: str) -> None:
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=QUIET)
        if process.poll() is None:
            print(f"MLflow is sent the rest, which is waited for, at most {SYNC_PATIENCE:g} s", file=sys.stderr)
        code = process.wait(timeout=SYNC_PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        code = -1
    lines = Path(log).read_text(errors="replace").splitlines()
    for line in lines:
        if line.startswith("warning: "):  # of files that were set aside
            print(line, file=sys.stderr)
    if code:
        reason = next((line.removeprefix("tracking: ") for line in reversed(lines) if line.strip()), "without a word")
        print(
            f"warning: MLflow has not got everything: {reason} ({log}); send the rest with --sync-mlflow",
            file=sys.stderr,
        )


def _print_failures(schedule: Schedule) -> int:
    """One line per failed task; returns how many there are."""
    for task, error in schedule.failed:
        print(f"failed: {task.name}: {error.strip().splitlines()[-1]}", file=sys.stderr)
    if schedule.failed and schedule.left_out:
        print(f"{schedule.left_out} more tasks need these and were left out; {AGAIN}", file=sys.stderr)
    return len(schedule.failed)
