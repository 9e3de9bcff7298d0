"""What the records of a scenario's references do not have yet."""

from __future__ import annotations

from sweeps.config.spec import Sweep
from sweeps.planning.tasks import Cell, stage_of
from sweeps.storage.files import Folder
from sweeps.storage.record_log import read_own
from sweeps.trials.ensemble import REFERENCES
from sweeps.trials.references import reference_methods


def references_missing(sweep_dir: Folder, cell: Cell, sweep: Sweep) -> bool:
    wanted = reference_methods(stage_of(sweep, cell), cell.discovery_rate)
    return not set(wanted) <= {trial.method for trial in read_own(sweep_dir, cell.folder)}


def ensemble_missing(sweep_dir: Folder, cell: Cell) -> bool:
    return not set(REFERENCES) <= {trial.method for trial in read_own(sweep_dir, cell.folder)}
