"""Names that results on disk are found by: no change of the code may change them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.config.presets import preset_names, read_preset
from sweeps.config.spec import Sweep
from sweeps.planning.task_list import ensemble_tasks, reference_tasks, study_tasks
from sweeps.planning.tasks import Task
from sweeps.schema.stages import Stage

FROZEN = json.loads((Path(__file__).parent / "frozen" / "cells.json").read_text())


def walked(sweep: Sweep, nowhere: Path) -> list[Task]:
    """All tasks of a sweep whose attacks all take, in the order of work."""
    tasks: list[Task] = []
    for reference in reference_tasks(sweep):
        models = reference.needs(sweep)
        tasks += [*models[0].needs(sweep), *models, reference]
    ensembles = ensemble_tasks(sweep, nowhere)
    members = [member for ensemble in ensembles for member in ensemble.needs(sweep)]
    return list(dict.fromkeys([*tasks, *study_tasks(sweep), *members, *ensembles]))


def single_trials(sweep: Sweep) -> Iterator[Task]:
    """The trials that studies may be split into, on a share of a GPU and on a whole one."""
    stages = [(Stage.TUNING, seed) for seed in sweep.seeds.tuning]
    stages += [(Stage.CONFIRMATION, seed) for seed in sweep.seeds.confirmation]
    for study in study_tasks(sweep):
        for proposal in range(study.proposals(sweep)):
            for stage, seed in stages:
                trial = study.trial(stage, proposal, seed)
                yield from (trial, replace(trial, whole_gpu=True))


def digest(tasks: list[Task]) -> str:
    return hashlib.sha256("\n".join(f"{task.name} {task.folder}" for task in tasks).encode()).hexdigest()[:16]


def names_of(preset: str, nowhere: Path) -> dict[str, object]:
    sweep = Sweep.from_dict(read_preset(preset))
    tasks, trials = walked(sweep, nowhere), list(single_trials(sweep))
    counts: dict[str, object] = {"cells": len(tasks), "trials": len(trials)}
    return counts | {"digest of cells": digest(tasks), "digest of trials": digest(trials)}


@pytest.mark.parametrize("preset", preset_names())
def test_names_and_folders_of_all_cells(preset: str, tmp_path: Path) -> None:
    assert names_of(preset, tmp_path) == FROZEN["all"][preset]


@pytest.mark.parametrize("preset", FROZEN["in full"])
def test_names_in_full_where_a_digest_would_not_show_what_changed(preset: str, tmp_path: Path) -> None:
    tasks = walked(Sweep.from_dict(read_preset(preset)), tmp_path)
    assert [task.name for task in tasks] == FROZEN["in full"][preset]
