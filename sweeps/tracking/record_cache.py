"""The records of a sweep as a mirror needs them: of each trial a few values in memory, all of it only to be sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.storage.record_log import Parts, Trial, cell_parts, read_parts
from sweeps.tracking.rows import GROUP_COLUMNS, seconds_spent

KEPT = ("trial_id", "study", "finished_at", *GROUP_COLUMNS)


class RecordCache:
    """The records in a sweep's folder, of which only what changed is read again."""

    def __init__(self, sweep_dir: Path) -> None:
        self._sweep, self._folder = sweep_dir, sweep_dir / "records"
        self._cells: dict[str, tuple[Parts, list[Trial]]] = {}

    def outlines(self) -> list[Trial]:
        """All finished trials, each once, in the order in which each study grew: identity, times and outcome."""
        known = self._cells
        self._cells = {
            cell: known[cell] if cell in known and known[cell][0] == parts else (parts, self._outlined(cell, parts))
            for cell, parts in cell_parts(self._sweep).items()
        }
        found: dict[str, Trial] = {}
        for _, trials in self._cells.values():
            for trial in trials:
                found.setdefault(trial["trial_id"], trial)
        return list(found.values())

    def whole(self, outlines: Sequence[Trial]) -> list[Trial]:
        """These trials with everything that was recorded, in the same order."""
        wanted = {outline["trial_id"]: outline["cell"] for outline in outlines}
        found: dict[str, Trial] = {}
        for cell in dict.fromkeys(wanted.values()):
            for trial in read_parts(self._folder, self._cells[cell][0]):
                if wanted.get(trial["trial_id"]) == cell:
                    found[trial["trial_id"]] = trial
        return [found[name] for name in wanted]

    def _outlined(self, cell: str, parts: Parts) -> list[Trial]:
        return [outline(trial) | {"cell": cell} for trial in read_parts(self._folder, parts)]


def outline(trial: Trial) -> Trial:
    """A trial without its numbers and settings; times, mark, group tags and status are as those of the whole."""
    rungs = [{"seconds": seconds_spent(trial)}] if trial.get("rungs") else []
    return {name: trial.get(name) for name in KEPT} | {"rungs": rungs, "error": trial.get("error") and "yes"}
