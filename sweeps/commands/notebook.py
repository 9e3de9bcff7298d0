"""A sweep from Python, such as from a notebook."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sweeps.commands.driver import Driver
from sweeps.commands.options import RunOptions
from sweeps.config.spec import Sweep
from unlearn_core.checks import InputError, shown
from unlearn_core.host.private import private_files


@dataclass(frozen=True)
class SweepResult:
    """What became of a sweep.

    Args:
        folder: Its folder on this machine, with records, table and report.
        failed: Work that came to nothing: poisons, trainings or studies, not single trials.
        missing: Work that is not complete although nothing failed.
        reported: Whether the report was made.
        grid: The studies as Ray Tune returns them, a `ray.tune.ResultGrid` of its last fit; None without Ray.
    """

    folder: Path
    failed: int
    missing: int
    reported: bool
    grid: Any = field(default=None, repr=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether everything is done and reported."""
        return self.reported and not self.failed and not self.missing

    @property
    def report(self) -> Path:
        """The page with tables and figures."""
        return self.folder / "report" / "index.html"


def run_sweep(sweep: Sweep, **options: Any) -> SweepResult:
    """Run what is missing of a sweep, and report; prints what the command prints.

    Args:
        sweep: What to run, such as `Sweep.preset("quick", {"search.trials": 2})`.
        options: Where and how, as `RunOptions` lists them, such as `out="results", inline=True`.

    Returns:
        Where everything is, and what is not done.

    Raises:
        InputError: before anything expensive, if sweep, options, data and machine do not fit together.
        StorageError: if the storage fails while it runs; what was recorded before is kept.
        KeyboardInterrupt: if it is interrupted; the same call goes on.
    """
    if not isinstance(sweep, Sweep):
        fix = "make one with Sweep.preset('quick') or Sweep.from_dict({...})"
        raise InputError(f"sweep must be a Sweep, but got {shown(sweep)}; {fix}")
    try:
        return _run(sweep, RunOptions.of(**options))
    except InputError as problem:
        raise InputError(_with_arguments(str(problem))) from None


@private_files()
def _run(sweep: Sweep, options: RunOptions) -> SweepResult:
    driver = Driver(sweep, options, "sweeps.run_sweep, from Python")
    ended = driver.run()
    return SweepResult(driver.dir, ended.failed, ended.missing, ended.report == 0, driver.grid)


def _with_arguments(message: str) -> str:
    """The message with options as `run_sweep` spells them: `gpu_fraction`, not `--gpu-fraction`."""
    for option in fields(RunOptions):
        message = re.sub(rf"--{option.name.replace('_', '-')}\b", option.name, message)
    return message
