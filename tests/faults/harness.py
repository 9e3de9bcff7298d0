"""A small real sweep, run by the real command in processes of its own, disturbed, finished and compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from sweeps.storage.holders import Holder
from sweeps.storage.leases import holder_of
from sweeps.storage.record_log import Trial, read_trials
from tests.faults.ledger import LEDGER
from tests.faults.looks import first_holder
from tests.sweeps.tiny import RAW, ROOT, TIMES, lines

PATIENCE = 900.0  # seconds for anything that is waited for, on a busy machine
NAME = "faults"
TOO_BUSY = "or the GCS has become overloaded."  # what Ray says where its own processes take over 30 s to start
SETTINGS: dict[str, Any] = RAW | {
    "name": NAME,
    "plugins": [str(Path(__file__).with_name("counted.py"))],
    "recipe": {"epochs": 40, "batch_size": 50, "lr": 0.05},
    "methods": ["counted_gd", "counted_ngd"],
    "search": {"trials": 10, "startup": 3},
}
WITH_REPORT = "import sys; from sweeps.commands.run import main; sys.exit(main(sys.argv[1:]))"
COMMAND = "import sys; from tests.faults.harness import run_without_report as run; sys.exit(run())"
PASSED_ON = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}  # or a busy machine stops Ray
NOT_PASSED_ON = ("RAY_", "PYTHONDONTWRITEBYTECODE")  # the command is started so often that compiling it again matters


def run_without_report() -> int:
    """The command, but for the tables and figures at its end, which take longer than this sweep and write no record."""
    from sweeps.commands.driver import Driver
    from sweeps.commands.run import main

    Driver._analyse = lambda self: 0  # type: ignore[method-assign]
    return main(sys.argv[1:])


class Sweep:
    """The sweep in a folder of its own, and the command that runs it.

    options: further arguments of the command; without `--tracking-uri` nothing is mirrored. silence: the longest time
    that a command which was waited for said nothing, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        *options: Any,
        environment: dict[str, str] | None = None,
        report: bool = False,
        **changes: Any,
    ) -> None:
        self.code, self.silence = WITH_REPORT if report else COMMAND, 0.0
        self.out, self.place = folder, folder / "orders"
        self.place.mkdir(parents=True)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(SETTINGS | changes))
        tracking = [] if "--tracking-uri" in options else ["--no-tracking"]
        self.arguments = [str(a) for a in ("--config", config, "--out", folder, *tracking, *options)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)}
        self.environment = clean | PASSED_ON | {"FAULTS_DIR": str(self.place)} | (environment or {})

    @property
    def mark(self) -> str:
        """In the environment of all processes of this sweep."""
        return f"FAULTS_DIR={self.place}"

    @property
    def dir(self) -> Path:
        return self.out / NAME

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """The command in a process of its own; what it says is kept for `said`. more: further arguments."""
        with open(self.out / "said", "ab") as said:
            return subprocess.Popen(
                [sys.executable, "-c", self.code, *self.arguments, *more],
                stdout=said, stderr=said, cwd=ROOT, env=self.environment, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return (self.out / "said").read_text()

    def wait(self, process: subprocess.Popen[bytes], condition: Callable[[], bool] = lambda: False) -> bool:
        """Until `condition` holds (True) or the command has ended (False)."""
        end, said, since = time.monotonic() + PATIENCE, 0, time.monotonic()
        try:
            while process.poll() is None:
                if condition():
                    return True
                now, size = time.monotonic(), (self.out / "said").stat().st_size
                said, since = size, since if size == said else now
                self.silence = max(self.silence, now - since)
                if now > end:
                    raise TimeoutError(self.said())
                time.sleep(0.002)
        except BaseException:
            process.kill()
            raise
        return False

    def run_until(self, condition: Callable[[], bool], number: int = signal.SIGKILL) -> int:
        """Start the command, send it a signal once `condition` holds, and wait for its end; its exit code."""
        process = self.start()
        assert self.wait(process, condition), self.said()
        process.send_signal(number)
        return process.wait(PATIENCE)

    def run_while(self, disturb: Callable[[], bool]) -> None:
        """Start the command, call `disturb` until it says that it has done what it should, and wait for a good end."""
        process = self.start()
        assert self.wait(process, disturb), self.said()
        self.wait(process)
        assert process.returncode == 0, self.said()

    def finish(self, *more: str) -> None:
        """The same command completes."""
        process = self.start(*more)
        self.wait(process)
        if TOO_BUSY in self.said().splitlines()[-1]:
            process = self.start(*more)
            self.wait(process)
        assert process.returncode == 0, self.said()

    def order(self, name: str, *trials: str) -> None:
        """What shall go wrong, see `counted.py`."""
        (self.place / name).write_text("".join(f"{trial}\n" for trial in trials))

    def starts(self) -> list[tuple[int, str]]:
        """(process, trial) of every trial that was begun, in order."""
        file = self.place / "starts"
        words = [line.partition(" ") for line in file.read_text().splitlines()] if file.exists() else []
        return [(int(pid), trial) for pid, _, trial in words]

    def records(self) -> int:
        return len(lines(self.dir))

    def driver(self) -> Holder | None:
        """The process that runs this sweep now."""
        return holder_of(self.dir / ".lock")

    def in_training(self) -> int | None:
        """A process that trains a reference model now."""
        return first_holder((self.out / "store" / "model").glob(".*.lease"))

    def in_trial(self) -> int | None:
        """A process that is at a study now, once some trials have begun."""
        return first_holder((self.dir / ".working").glob("*--counted_*")) if len(self.starts()) > 8 else None

    def table(self) -> pd.DataFrame:
        """`records.parquet` without what two runs of the same sweep may differ in."""
        whole = pd.read_parquet(self.dir / "records.parquet")
        return whole.drop(columns=[name for name in whole if name in TIMES])

    def trials(self) -> list[Trial]:
        return read_trials(self.dir)


class Undisturbed:
    """A run that nothing happened to."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        sweep.finish()

    @cached_property
    def seeds(self) -> set[int]:
        """Of trials; what begins with another seed is the check before a sweep."""
        return {trial.unlearning_seed for trial in self.sweep.trials()}

    @cached_property
    def references(self) -> set[str]:
        """Ids of the trials that no method makes."""
        return {trial.trial_id for trial in self.sweep.trials() if trial.stage == "reference"}

    def begun(self) -> list[str]:
        """The trials in the order in which they began."""
        return [trial for _, trial in self.sweep.starts() if seed_of(trial) in self.seeds]

    def recorded(self, begun: str) -> Trial:
        """The record of a trial that began."""
        (found,) = [trial for trial in self.sweep.trials() if same(begun, trial)]
        return found


class Comparison(NamedTuple):
    """What the disturbance of a sweep cost."""

    lost: int  # trials of the undisturbed run that this one has not got
    repeated: int  # trials begun more than once, and references recorded more than once
    equal: bool  # whether every scientific column of records.parquet is that of the undisturbed run


def compare(sweep: Sweep, undisturbed: Undisturbed, *, but: Collection[str] = ()) -> Comparison:
    """`but`: ids of trials that are meant to differ."""
    here, there = (s.table()[lambda t: ~t.trial_id.isin(list(but))] for s in (sweep, undisturbed.sweep))
    lost = set(there["trial_id"]) - set(here["trial_id"])
    begun = Counter(trial for _, trial in sweep.starts() if seed_of(trial) in undisturbed.seeds)
    recorded = Counter(map(recorded_id, lines(sweep.dir)))
    references = [recorded[trial] for trial in undisturbed.references]
    repeated = sum(max(0, count - 1) for count in (*begun.values(), *references))
    here, there = here.reset_index(drop=True), there.reset_index(drop=True)
    same = sorted(here) == sorted(there) and here[list(there)].equals(there)
    return Comparison(len(lost), repeated, same)  # columns stand in the order in which trials bring them


def settle(
    sweep: Sweep, undisturbed: Undisturbed, fault: str, *, tried: int = 1, slots: int = 1, **others: Any
) -> Comparison:
    """Write down what the fault cost, which must be nothing but what was under way in each slot."""
    seeds = others.pop("seeds", ())
    cost = compare(sweep, undisturbed, **others)
    LEDGER.add(fault, tried=tried, lost=cost.lost, repeated=cost.repeated, equal=cost.equal, seeds=seeds)
    assert cost.equal, sweep.said()
    assert cost.lost == 0
    assert cost.repeated <= tried * slots
    return cost


def seed_of(trial: str) -> int:
    return int(trial.partition(" ")[0])


def same(begun: str, trial: Trial) -> bool:
    """Whether a record is that of the trial that began so."""
    settings = json.loads(trial.settings)
    return bool(settings.pop("name", None)) and begun == f"{trial.unlearning_seed} {json.dumps(settings)}"


def recorded_id(line: str) -> str | None:
    """Id of the trial in a recorded line; None if the line was not written to its end."""
    try:
        return str(json.loads(line)["trial_id"])
    except ValueError:
        return None
