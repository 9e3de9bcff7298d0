"""What a tracking server shows of the records: names, parameters, metrics and tags, as plain values.

Everything here is a pure function of the records, times included: sending the same records twice sends the same rows,
and that is what lets `sweeps.tracking.mlflow_mirror` repeat itself without leaving duplicates.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sweeps.schema.records import RUNG_COLUMNS, TRIAL_COLUMNS, Trial, Value
from sweeps.schema.stages import Stage

NAME_LIMIT, PARAM_LIMIT, TAG_LIMIT = 250, 6000, 5000  # characters that every MLflow 3 store accepts

PARAMS = [name for name, column in TRIAL_COLUMNS.items() if column.tracked == "parameter"]
TRIAL_METRICS = [name for name, column in TRIAL_COLUMNS.items() if column.tracked == "metric"]
RUNG_METRICS = [name for name in RUNG_COLUMNS if name != "budget" and not name.startswith("retrain_at_budget_")]
"""The budget is the step, and retraining at that budget is a separate trial."""
GROUP_COLUMNS = ("attack", "method", "dataset", "model", "code_version")
"""What a study's run shows of all its trials."""
STEP_METRICS = ("score", "efficacy", "utility_gap")
"""What a study's run shows of its confirmed settings."""


class Summary(Protocol):
    """What is asked of a trial, or of the little that is kept of it, to know what a server has of it."""

    @property
    def trial_id(self) -> str: ...
    @property
    def study(self) -> str: ...
    @property
    def attack(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def dataset(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def code_version(self) -> str | None: ...
    @property
    def finished_at(self) -> float | None: ...
    @property
    def update_seconds(self) -> float: ...
    @property
    def has_result(self) -> bool: ...


class MetricPoint(NamedTuple):
    """One metric value."""

    name: str
    value: float
    time_ms: int  # since 1970; from the record, never from the clock
    step: int  # budget in per mille in a trial's run, number of the proposal in a study's run


def clean(name: str) -> str:
    """A name MLflow accepts: other characters become `_x<hex>_`, and names that are paths to elsewhere lose slashes."""
    name = re.sub(r"[^\w.\- :/]", lambda match: f"_x{ord(match[0]):x}_", name) or "_"
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        name = "_" + name.replace("/", "_x2f_")
    if len(name) <= NAME_LIMIT:
        return name
    return f"{name[: NAME_LIMIT - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def clip(text: str, limit: int) -> str:
    """`text`, or its two ends around a note of its full length, together at most `limit` characters."""
    if len(text) <= limit:
        return text
    note = f" ... [{len(text)} characters] ... "
    head = (limit - len(note)) // 2
    return text[:head] + note + text[len(text) - (limit - len(note) - head) :]


def per_mille(budget: float) -> int:
    """A budget as the step of a metric."""
    return round(1000 * budget)


def times_ms(trial: Summary) -> tuple[int, int]:
    """Start and end of a trial's updates, in milliseconds since 1970."""
    end = trial.finished_at or 0
    return max(0, round(1000 * (end - trial.update_seconds))), round(1000 * end)


def run_name(trial: Trial) -> str:
    """What a trial's run is called."""
    number = f" #{trial.proposal}" if trial.proposal is not None else ""
    return f"{trial.method} {trial.stage}{number} seed {trial.seed}"


def mark(trials: Sequence[Summary]) -> str:
    """Which trials these are, in this order, in a few characters: `<count>:<digest>`."""
    return f"{len(trials)}:{hashlib.sha256(' '.join(trial.trial_id for trial in trials).encode()).hexdigest()[:16]}"


def marked(text: str, trials: Sequence[Summary]) -> int:
    """How many of `trials` the mark `text` covers: all that it counts if they come first here, otherwise none."""
    return count(text) if mark(trials[: count(text)]) == text else 0


def count(text: str) -> int:
    """The number of trials in a mark."""
    return int(text.partition(":")[0] or 0)


def params(trial: Trial) -> dict[str, str]:
    """The trial's parameters: what it was, and every setting of the attack and the method by name."""
    values = {name: _text(getattr(trial, name)) for name in PARAMS if getattr(trial, name) not in (None, "")}
    values |= _settings("attack_settings", trial.attack_settings) | _settings("settings", trial.settings)
    return {clean(name): clip(value, PARAM_LIMIT) for name, value in values.items()}


def tags(trial: Trial) -> dict[str, str]:
    """The tags of a trial's run; empty values are left out."""
    values = {
        "trial": trial.trial_id,
        "scenario": trial.scenario_id,
        "seed": trial.seed,
        "commit": trial.code_version,
        "mlflow.source.git.commit": trial.code_version,
        "stage": trial.stage,
        "outcome": trial.rungs[-1].status if trial.rungs else "failed",
        "attack_took": trial.attack_took,
        "error": trial.error,
    }
    return {name: clip(_text(value), TAG_LIMIT) for name, value in values.items() if value not in (None, "")}


def run_status(trial: Summary) -> str:
    """FAILED only where there is no result; a diverged method is a result."""
    return "FINISHED" if trial.has_result else "FAILED"


def points(trial: Trial) -> list[MetricPoint]:
    """All numbers of a trial: scenario values at step 0, rungs at their budgets. What is not finite is left out."""
    time_ms = times_ms(trial)[1]
    found = _points({name: getattr(trial, name) for name in TRIAL_METRICS}, time_ms, 0)
    for rung in trial.rungs:
        values = {name: getattr(rung, name) for name in RUNG_METRICS}
        found += _points({**values, **rung.metrics}, time_ms, per_mille(rung.budget))
    return found


def best_points(trials: Sequence[Trial], since: int, *, closing: bool = False) -> list[MetricPoint]:
    """Best score so far at every budget over the tuning trials, one point per improvement from trial `since` on.

    With `closing` the current values follow once more at the last step, which makes them the latest ones even where
    a record that arrived late changed the past.
    """
    best: dict[str, MetricPoint] = {}
    found, step = [], 0
    for index, trial in enumerate(trials):
        if trial.stage != Stage.TUNING:
            continue
        step = max(step, trial.proposal or 0)  # never falls: the latest value of a metric is the last one
        for rung in trial.rungs:
            name = f"best_score.{per_mille(rung.budget):03d}"
            for point in _points({name: rung.score}, times_ms(trial)[1], step):
                if name not in best or point.value > best[name].value:
                    best[name] = point
                    found += [point] * (index >= since)
    last = times_ms(trials[-1])[1] if trials else 0
    return found + [point._replace(time_ms=last, step=step) for point in best.values() if closing]


def confirmed_points(trials: Sequence[Trial], since: int) -> list[MetricPoint]:
    """Running means over the confirmation trials chosen for a budget, at that budget; the step counts them."""
    sums: dict[str, tuple[float, int]] = {}
    found = []
    for index, trial in enumerate(trials):
        if trial.stage != Stage.CONFIRMATION:
            continue
        chosen = {per_mille(budget) for budget in json.loads(trial.chosen_for or "[]")}
        for rung in trial.rungs:
            budget = per_mille(rung.budget)
            values = {f"confirmed_{name}.{budget:03d}": getattr(rung, name) for name in STEP_METRICS}
            for point in _points(values if budget in chosen else {}, times_ms(trial)[1], 0):
                total, number = sums.get(point.name, (0.0, 0))
                sums[point.name] = total, number = total + point.value, number + 1
                found += [point._replace(value=total / number, step=number)] * (index >= since)
    return found


def group_tags(trials: Sequence[Summary]) -> dict[str, str]:
    """Tags of a study's or a sweep's run. They are tags because they change while it grows; parameters cannot."""
    names = dict(zip(("attack", "method", "dataset", "model", "commit"), GROUP_COLUMNS, strict=True))
    values = {tag: ", ".join(sorted({_text(getattr(trial, name)) for trial in trials})) for tag, name in names.items()}
    values["trials"] = str(len(trials))
    values["failed_trials"] = str(sum(run_status(trial) == "FAILED" for trial in trials))
    return {name: clip(value, TAG_LIMIT) for name, value in values.items()}


def _points(values: Mapping[str, Value], time_ms: int, step: int) -> list[MetricPoint]:
    return [
        MetricPoint(clean(name), float(value), time_ms, step)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _settings(column: str, text: str | None) -> dict[str, str]:
    settings = json.loads(text or "{}")
    return {f"{column}.{name}": _text(value) for name, value in settings.items()}
