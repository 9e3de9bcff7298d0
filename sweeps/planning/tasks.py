"""Every kind of task, and the form in which tasks travel between processes. How they run is in `run_task.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sweeps.planning.scenario_tasks import CraftPoison, MeasureEnsemble, MeasureReferences, TrainMember, TrainModel
from sweeps.planning.study_tasks import BEST, RunStudy, RunTrial, ensemble_seeds
from sweeps.planning.task import Outcome, Task, Threat, folder_of
from sweeps.schema.stages import Stage

__all__ = [
    "BEST",
    "KINDS",
    "CraftPoison",
    "MeasureEnsemble",
    "MeasureReferences",
    "Outcome",
    "RunStudy",
    "RunTrial",
    "Task",
    "Threat",
    "TrainMember",
    "TrainModel",
    "ensemble_seeds",
    "folder_of",
    "from_wire",
    "to_wire",
]

KINDS: dict[str, type[Task]] = {
    each.kind: each
    for each in (CraftPoison, TrainModel, MeasureReferences, TrainMember, MeasureEnsemble, RunStudy, RunTrial)
}


def to_wire(task: Task) -> dict[str, Any]:
    """The task as plain values, for other processes."""
    return {"kind": task.kind} | asdict(task)


def from_wire(wire: Mapping[str, Any]) -> Task:
    """The task that `to_wire` made plain values of."""
    fields = dict(wire)
    if "stage" in fields:
        fields["stage"] = Stage(fields["stage"])
    return KINDS[fields.pop("kind")](**fields)
