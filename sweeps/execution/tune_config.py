"""The configuration of a Tune trial: which task it is, in words that a user of Tune can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.config.outline import SearchedMethod
from sweeps.config.spec import Sweep
from sweeps.planning.tasks import RunStudy, RunTrial, Task, from_wire, to_wire
from unlearn_core.space import in_words

ADDED = ("name", "settings")  # to what a task consists of


def tune_config(sweep: Sweep, task: Task) -> dict[str, Any]:
    """The task, its name, and of a study the settings of its method: a value where fixed, a range where searched.

    It stays small, because Tune copies it into every snapshot.
    """
    return {"name": task.name, **to_wire(task), "settings": _settings(sweep, task)}


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that a configuration describes."""
    return from_wire({key: value for key, value in config.items() if key not in ADDED})


def _settings(sweep: Sweep, task: Task) -> dict[str, Any]:
    study = task.study if isinstance(task, RunTrial) else task
    if not isinstance(study, RunStudy):
        return {}
    methods = study.methods(sweep)
    if study.method in methods:
        return _settings_of(methods[study.method])
    return {name: _settings_of(method) for name, method in methods.items()}


def _settings_of(method: SearchedMethod) -> dict[str, Any]:
    return {**method.fixed, **{key: in_words(span) for key, span in method.space().items()}}
