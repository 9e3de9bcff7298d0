"""How well the schedule fills a cluster: `python -m benchmarks.schedule results/quick --attacks 8 --trials 32`.

The schedule that a sweep runs by hands its tasks to simulated workers; each task takes as long as it took in a finished
sweep. A larger sweep is made of copies of that one's attacks and of more proposals, whose trials are drawn from those
of the same attack and method. Printed per number of GPUs: the ideal makespan (the longer of all work shared evenly and
the longest chain of tasks that need each other), and its share of the makespan of the schedule as it is, without
longest first (tasks come in the order in which they can be begun), and with every study left to one worker.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from analysis.figures import style
from analysis.figures.save import save
from benchmarks.schedule_costs import COPY, Measured, Simulated
from sweeps.config.spec import Sweep
from sweeps.execution.ray_executor import LEAST_AHEAD, MOST_TASKS, ROUNDS
from sweeps.planning import schedule
from sweeps.planning.missing import Missing
from sweeps.planning.proposals import known_to
from sweeps.planning.schedule import Schedule
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.planning.tasks import Outcome, Task, Threat
from sweeps.schema.stages import Stage
from sweeps.storage.manifest import read_manifest
from sweeps.storage.record_log import read_trials
from unlearn_core.checks import InputError

SLOTS = (8, 16, 32, 64, 128, 256, 512)
DRIVER = 0.05  # seconds that it takes to start a task on Ray
WAYS = ("as it is", "without longest first", "studies never split")


class InOrder(Schedule):
    """Without longest first."""

    def __init__(self, sweep: Sweep, left: Missing, records: Simulated, *, whole_studies: bool = False) -> None:
        self._came: dict[Task, int] = {}
        super().__init__(sweep, left, records, whole_studies=whole_studies)

    def _push(self, task: Task) -> None:
        self._came[task] = len(self._came)
        super()._push(task)

    def _pop(self) -> Task | None:
        queues = [tasks for tasks in self._ready.values() if tasks]
        return min(queues, key=lambda tasks: self._came[tasks[0]]).popleft() if queues else None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """places: tasks that run at once. ahead: further tasks that are handed out early. driver: seconds that the driver
    takes to start a task, one after the other. fit: tasks after which it waits for the end of all before it goes on."""

    places: int
    ahead: int = 0
    driver: float = 0.0
    fit: int = sys.maxsize


class Clock:
    """Simulated seconds, where the schedule reads the time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def simulate(
    cluster: Cluster, sweep: Sweep, measured: Measured, kind: type[Schedule] = Schedule, *, whole_studies: bool = False
) -> float:
    """Seconds from the first task to the end of the last."""
    clock, records = Clock(), Simulated(sweep, measured)
    waiting: deque[Task] = deque()
    running: list[tuple[float, int, Task]] = []
    with mock.patch.object(schedule.time, "monotonic", clock):
        queue = kind(
            sweep, Missing(reference_tasks(sweep), [], study_tasks(sweep)), records, whole_studies=whole_studies
        )
        most, slots, count, begun = cluster.places + cluster.ahead, 2 * cluster.places, 0, 0.0
        left = cluster.fit
        while True:
            while left and len(waiting) + len(running) < most and (task := queue.next(slots)) is not None:
                waiting.append(task)
                left -= 1
            while waiting and len(running) < cluster.places:
                task, count, begun = waiting.popleft(), count + 1, max(begun, clock.now) + cluster.driver
                heapq.heappush(running, (begun + records.begin(task), count, task))
            if not running and queue.finished:
                return clock.now
            if not running:
                left = cluster.fit
                continue
            clock.now, _, task = heapq.heappop(running)
            records.end(task)
            queue.done(task, Outcome())


class Ideal(NamedTuple):
    """work: seconds of all tasks together. chain: of the longest chain of tasks that need each other."""

    work: float
    chain: float

    def makespan(self, places: int) -> float:
        return max(self.work / places, self.chain)


def ideal(sweep: Sweep, measured: Measured) -> Ideal:
    """What no schedule can beat. Reckoned from what needs what, not by running a schedule."""
    seconds: dict[Task, float] = {}
    ready: dict[Threat, float] = {}
    for references in reference_tasks(sweep):
        models = references.needs(sweep)
        poisons = [poison for model in models for poison in model.needs(sweep)]
        seconds |= {task: measured.seconds(task) for task in (*poisons, *models, references)}
        end = max(map(seconds.__getitem__, poisons)) + max(map(seconds.__getitem__, models)) + seconds[references]
        ready[references.threat] = max(end, ready.get(references.threat, 0.0))
    studies = {task: _study(sweep, measured, task) for task in study_tasks(sweep)}
    work = sum(seconds.values()) + sum(study.work for study in studies.values())
    return Ideal(work, max(ready[task.threat] + study.chain for task, study in studies.items()))


def _study(sweep: Sweep, measured: Measured, task: Task) -> Ideal:
    """A proposal waits for the scores that it is made from, confirmation for all of them."""
    records = Simulated(sweep, measured)
    trials = records.walk(task)
    tuning: dict[int, float] = {}
    confirmation = 0.0
    for trial in trials:
        taken = measured.seconds(trial)
        if trial.stage == Stage.TUNING:
            tuning[trial.proposal] = max(taken, tuning.get(trial.proposal, 0.0))
        else:
            confirmation = max(taken, confirmation)
    ends: list[float] = []
    for number in range(len(tuning)):
        ends.append(max(ends[: known_to(sweep.search, number)], default=0.0) + tuning[number])
    return Ideal(sum(map(measured.seconds, trials)), max(ends, default=0.0) + confirmation)


def enlarged(sweep: Sweep, attacks: int, trials: int | None) -> Sweep:
    """The same sweep with every attack `attacks` times, and `trials` proposals per study."""
    copies = {f"{label}{COPY}{n}": named for n in range(attacks) for label, named in sweep.attacks.items()}
    search = dataclasses.replace(sweep.search, trials=trials or sweep.search.trials)
    return dataclasses.replace(sweep, attacks=copies if attacks > 1 else sweep.attacks, search=search)


def table(sweep: Sweep, measured: Measured, slots: Sequence[int], driver: float) -> list[dict[str, float]]:
    """One row per number of places: ideal makespan in seconds, and the share of it that each way reaches."""
    best, rows = ideal(sweep, measured), []
    for places in slots:
        fit = max(MOST_TASKS, ROUNDS * places)
        cluster, least = Cluster(places, ahead=max(LEAST_AHEAD, places), driver=driver, fit=fit), best.makespan(places)
        rows.append(
            {
                "places": places,
                "ideal": least,
                WAYS[0]: least / simulate(cluster, sweep, measured),
                WAYS[1]: least / simulate(cluster, sweep, measured, InOrder),
                WAYS[2]: least / simulate(cluster, sweep, measured, whole_studies=True),
            }
        )
    return rows


def draw(rows: Sequence[Mapping[str, float]], stem: Path) -> Path:
    """Share of the ideal against the number of GPUs, as `stem`.png and `stem`.pdf; returns the image."""
    style.use()
    figure, ax = plt.subplots(figsize=(4.6, 3.0))
    places = [row["places"] for row in rows]
    for look, name in zip(style.looks(WAYS).values(), WAYS, strict=False):
        ax.plot(places, [row[name] for row in rows], color=look.colour, marker=look.marker, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(places, [f"{p:g}" for p in places])
    ax.set_ylim(0, 1.04)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("GPUs")
    ax.set_ylabel("ideal makespan / makespan")
    ax.legend(frameon=False)
    return save(figure, stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sweep", type=Path, metavar="DIR", help="a finished sweep")
    parser.add_argument("--attacks", type=int, default=1, metavar="N", help="copies of each attack")
    parser.add_argument("--trials", type=int, metavar="N", help="proposals per study (default: as measured)")
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS, help="GPUs, with one task on each")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="as if all took X times as long")
    parser.add_argument("--driver", type=float, default=DRIVER, metavar="S", help="seconds to start a task")
    parser.add_argument("--figure", type=Path, metavar="STEM", help="draw STEM.png and STEM.pdf")
    options = parser.parse_args()
    measured = Measured(read_trials(options.sweep), options.scale)
    sweep = enlarged(Sweep.from_dict(read_manifest(options.sweep)["spec"]), options.attacks, options.trials)
    if sweep.ensemble.members:
        raise InputError("ensemble.members must be 0: the seconds of an ensemble's models are recorded nowhere")
    best, count = ideal(sweep, measured), len(study_tasks(sweep))
    print(f"{count} studies; work {best.work:,.0f} s, longest chain {best.chain:,.0f} s\n")
    rows = table(sweep, measured, options.slots, options.driver)
    print("| GPUs | ideal, s | " + " | ".join(WAYS) + " |\n|---|---|---|---|---|")
    for row in rows:
        shares = " | ".join(f"{row[name]:.0%}" for name in WAYS)
        print(f"| {row['places']:g} | {row['ideal']:,.0f} | {shares} |")
    if options.figure:
        print(f"\nwrote {draw(rows, options.figure)}")


if __name__ == "__main__":
    main()
