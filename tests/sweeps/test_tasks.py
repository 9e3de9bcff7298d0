"""What every kind of task has in common."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace

import pytest

from sweeps.config.shares import SINGLE
from sweeps.execution.run_task import runner
from sweeps.planning.tasks import (
    KINDS,
    CraftPoison,
    MeasureEnsemble,
    MeasureReferences,
    RunStudy,
    RunTrial,
    Task,
    TrainMember,
    TrainModel,
    folder_of,
    from_wire,
    to_wire,
)
from sweeps.schema.stages import Stage

RATES = (1.0, 0.5, 0.1234567, SINGLE)
SEEDS = (0, 12)
SOME: list[Task] = [
    *(CraftPoison("a", seed) for seed in SEEDS),
    *(TrainModel("a", seed, role) for seed in SEEDS for role in ("corrupted", "oracle", "retrain")),
    *(TrainModel("a", seed, "retrain_discovered", rate) for seed in SEEDS for rate in RATES[1:]),
    *(kind("a", rate, seed) for kind in (MeasureReferences, MeasureEnsemble) for rate in RATES for seed in SEEDS),
    *(TrainMember("a", seed, member) for seed in SEEDS for member in SEEDS),
    *(RunStudy("a", rate, method) for rate in RATES for method in ("gd", "neggrad_plus", "best")),
    *(RunStudy("a", 0.5, "gd").trial(stage, n, seed) for stage in list(Stage)[1:] for n in SEEDS for seed in SEEDS),
]
"""Of every kind some that differ in one field."""
KIND_NAMES = {type(task): task for task in SOME}


def both(task: Task) -> tuple[Task, Task]:
    return task, replace(task, whole_gpu=True)


def test_every_kind_is_here() -> None:
    assert set(KIND_NAMES) == set(KINDS.values()) == set(Task.__subclasses__())
    assert [kind.kind for kind in KINDS.values()] == list(KINDS)


@pytest.mark.parametrize("task", KIND_NAMES.values(), ids=lambda task: task.kind)
def test_a_task_survives_the_wire(task: Task) -> None:
    for sent in both(task):
        got = from_wire(json.loads(json.dumps(to_wire(sent))))
        assert type(got) is type(sent)
        for field in fields(sent):
            value, before = getattr(got, field.name), getattr(sent, field.name)
            assert (type(value), value) == (type(before), before), field.name


def test_names_are_unique_and_safe_as_folders() -> None:
    names = [each.name for task in SOME for each in both(task)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) for name in names)


@pytest.mark.parametrize("task", SOME, ids=lambda task: task.name)
def test_a_name_leads_to_the_folder_of_the_records(task: Task) -> None:
    assert {folder_of(each.name) for each in both(task)} == {task.folder}


def test_only_trials_share_a_folder() -> None:
    folders = [task.folder for task in SOME if not isinstance(task, RunTrial)]
    assert len(set(folders)) == len(folders)
    assert {task.folder for task in SOME if isinstance(task, RunTrial)} == {RunStudy("a", 0.5, "gd").folder}


def test_a_whole_gpu_makes_no_other_task() -> None:
    for task in SOME:
        alone = replace(task, whole_gpu=True)
        assert (alone, hash(alone), alone.folder) == (task, hash(task), task.folder)
        assert alone.name != task.name


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_every_kind_can_run(kind: type[Task]) -> None:
    assert runner.dispatch(kind) is not runner.dispatch(Task)
