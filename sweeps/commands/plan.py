"""What a sweep would do, and what that would cost on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from sweeps.commands.progress import duration
from sweeps.planning.data_card import show_card
from sweeps.planning.missing import Missing
from sweeps.planning.plan import Estimate, check_data, check_scenarios, estimate
from sweeps.storage.base import Folder
from sweeps.trials.affordable import too_dear
from sweeps.trials.scenario_cache import ScenarioCache

TASKS_SHOWN = 200


def print_plan(work: ScenarioCache, left: Missing, *, home: Folder, sweep_dir: Path, at_once: int) -> None:
    """Check what is left of a sweep and print it with its price.

    Args:
        work: The sweep, to be checked and timed.
        left: What it still has to do.
        home: Its folder, as it is printed.
        sweep_dir: Its folder, as it is read.
        at_once: How many tasks would run side by side.

    Raises:
        InputError: if some of it is impossible.
    """
    check_data(work, sweep_dir)
    check_scenarios(work)
    print(f"sweep {work.sweep.name}: {home}")
    show_card(work.dataset, sys.stdout)
    cost = estimate(work, left)
    for method in too_dear(work, cost.training):
        print(f"warning: {method}", file=sys.stderr)
    _print_tasks(work, left)
    _print_cost(cost, len(work.sweep.budgets), at_once)


def _print_tasks(work: ScenarioCache, left: Missing) -> None:
    for task in left.tasks[:TASKS_SHOWN]:
        print(f"  {task.name:<40} up to {task.most_trials(work.sweep)} trials")
    if len(left.tasks) > TASKS_SHOWN:
        print(f"  and {len(left.tasks) - TASKS_SHOWN} more tasks")


def _print_cost(cost: Estimate, budgets: int, at_once: int) -> None:
    print(f"scenarios   {cost.scenarios}")
    print(f"trainings   {cost.trainings} from scratch, still to do")
    print(f"trials      up to {cost.trials}, each measured at up to {budgets} budgets")
    print(f"FLOPs       {cost.flops:.2e}, at most")
    seconds, speed = cost.hours(at_once) * 3600, cost.flops_per_second
    print(f"time here   {duration(seconds)} on {at_once} at a time ({speed:.1e} FLOP/s each)")
