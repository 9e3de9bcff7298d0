"""Which share of a GPU a task needs, from the memory that its work takes when it is tried."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from sweeps.config.choices import Method
from sweeps.execution.limits import CONTEXT
from sweeps.execution.worker import workbench
from sweeps.storage.base import Folder
from sweeps.trials.device_errors import ends_process, is_devices, is_memory
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache, first_rows
from unlearn_core.checks import InputError
from unlearn_core.gradients.input_gradients import input_gradients
from unlearn_core.scenarios.scenario import Scenario, begin
from unlearn_core.training import predict, train_updates
from unlearn_core.training.budget import Meter
from unlearn_core.types import Examples, Task

MARGIN = 1.5  # for what differs between scenarios; a trial that needs more all the same is done again on a whole GPU
MOST = 8  # tasks on a GPU: more only wait for each other
STEPS = 3  # of each kind of work

log = logging.getLogger(__name__)


class Memory(NamedTuple):
    """needed: bytes that one process takes. room: bytes of a GPU that nobody else had taken."""

    needed: int
    room: int


def share_of(memory: Memory) -> float:
    """The share of a GPU that a task is given: one divided by the number of tasks that fit, rounded down."""
    fit = int(memory.room / (memory.needed * MARGIN)) if memory.needed else MOST
    return int(1e4 / min(MOST, max(1, fit))) / 1e4


def measured(sweep_dir: Folder, place: RunEnvironment) -> Memory:
    """What a task of this sweep takes on the GPU of this process, which must be a fresh one.

    All of it where that cannot be found out. An error of the device is raised: another one may do.
    """
    room = torch.cuda.mem_get_info(0)[0] + CONTEXT if place.device == "cuda" else 0  # asking takes a context
    try:
        try_out(workbench(sweep_dir, place))
    except Exception as problem:  # whatever is wrong goes wrong in the tasks, too, and is recorded there
        if ends_process(problem) and not is_memory(problem):
            raise
        log.warning("memory could not be measured, so every task gets a whole GPU: %s", problem)
        return Memory(room, room)
    return Memory(torch.cuda.max_memory_reserved() + CONTEXT, room)


def try_out(work: ScenarioCache) -> None:
    """A few steps of training and of every method, and one measurement, at the sizes that the sweep has."""
    train = work.dataset.train
    scenario = work.scenario(next(iter(work.sweep.attacks)), seed=0)
    forget, retain = first_rows(train, max(1, round(scenario.attack.fraction * len(train))))
    model = scenario.fresh_model("memory")
    _advance(train_updates(model, train, work.sweep.recipe, scenario.streams("memory"), progress=lambda: 0.0), work)
    for method in work.sweep.methods.values():
        _try_method(work, scenario, method, forget, retain)
    for examples in (work.dataset.test, forget):
        predict(model, examples.inputs)
    with contextlib.suppress(InputError):  # tokens whose model has no one table of embeddings: nothing asks for them
        input_gradients(model, forget.inputs, forget.targets)


def _try_method(work: ScenarioCache, scenario: Scenario, method: Method, forget: Examples, retain: Examples) -> None:
    """A method that fails here does so in its trials, where it is recorded."""
    model, streams = scenario.fresh_model("memory"), scenario.streams("memory")
    task = Task(model, retain, forget, work.sweep.recipe, streams, lambda: 0.0)
    try:
        _advance(begin(method.build({}), task), work)
    except Exception as problem:
        if is_devices(problem):
            raise
        log.info("%s failed when its memory was measured: %s", method.name, problem)


def _advance(updates: Iterable[Any], work: ScenarioCache) -> None:
    """The first updates, in the precision of runs."""
    with Meter(work.device, work.sweep.recipe.bf16).context():
        for _ in itertools.islice(updates, STEPS + 1):
            pass
