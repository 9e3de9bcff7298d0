"""What the records say of the references that studies need."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from sweeps.config.outline import Outline
from sweeps.planning.tasks import MeasureReferences, Threat
from sweeps.storage.base import Folder
from sweeps.storage.errors import StorageError
from sweeps.storage.record_log import Trial, read_own

IN_SIGHT = 90.0  # seconds: folders on NFS are looked at again after at most 60


def reference_trials(sweep: Outline, sweep_dir: Folder, threat: Threat) -> dict[int, list[Trial]]:
    """Reference trials of a threat's scenarios, by seed."""
    seeds = (*sweep.seeds.tuning, *sweep.seeds.confirmation)
    return {seed: read_own(sweep_dir, MeasureReferences(*threat, seed).folder) for seed in seeds}


def await_references(sweep: Outline, sweep_dir: Folder, threat: Threat) -> dict[int, list[Trial]]:
    """The same for a study that can begin.

    The references are recorded, but where machines share a folder it can take a while until one machine sees what
    another wrote.

    Raises:
        StorageError: the references do not come into sight.
    """
    end = time.monotonic() + IN_SIGHT
    while unseen := _unseen(sweep, found := reference_trials(sweep, sweep_dir, threat)):
        if time.monotonic() > end:
            raise StorageError(f"{sweep_dir} does not show the references of {threat.attack} with seeds {unseen}")
        time.sleep(1)
    return found


def _unseen(sweep: Outline, found: Mapping[int, Sequence[Trial]]) -> list[int]:
    """The seeds without references, of those that get any."""
    return [seed for seed in sweep.scenario_seeds if not found[seed]]


def where_attack_succeeded(sweep: Outline, sweep_dir: Folder, threat: Threat, *, unknown: bool) -> dict[int, bool]:
    """Whether the attack succeeded in each scenario, by seed; `unknown` where there are no references yet."""
    references = reference_trials(sweep, sweep_dir, threat)
    return {seed: bool(trials[0].attack_took) if trials else unknown for seed, trials in references.items()}
