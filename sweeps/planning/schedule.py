"""The order of work: which cell can be begun now, given what is done. Knows nothing of where and how cells run.

Cells form a graph: poison -> trained models -> references of a scenario -> studies of its attack (and ensembles between
the two). Of those that can be begun, what others wait for comes first, and of that what takes longest. When few studies
are left, they are handed out trial by trial (unless trials take next to no time), so that none is left over alone.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from sweeps.config.spec import Sweep
from sweeps.planning.costs import Costs, Kind, kind_of
from sweeps.planning.missing import ensemble_missing
from sweeps.planning.plan import Missing
from sweeps.planning.proposals import proposal_count
from sweeps.planning.study import load_study
from sweeps.planning.tasks import (
    Case,
    Cell,
    Result,
    await_references,
    case_of,
    ensemble_seeds,
    members,
    methods_of,
    trainings,
    where_attack_took,
)
from sweeps.storage.base import Folder
from sweeps.storage.record_log import read_own

BEGINNING = 0.05  # seconds that it takes to hand a cell to a worker; they are handed out one after the other


class Failed(NamedTuple):
    """A cell that came to nothing. error: a traceback."""

    cell: Cell
    error: str


class Records(Protocol):
    """What the schedule has to know of the results so far."""

    def ensembles(self, case: Case) -> list[Cell]:
        """Ensembles to be measured, once the references of an attack and discovery rate are there. Asked once for each
        of these, before anything else."""
        ...

    def open(self, study: Cell) -> list[Cell]:
        """The trials of a study that can be made now, at once."""
        ...

    def count(self, cell: Cell) -> int:
        """Trials of a cell that are recorded."""
        ...


class Recorded:
    """Of a sweep's folder. refresh: brings a cell, of which it is told the folder, up to date where that is a copy."""

    def __init__(self, sweep: Sweep, sweep_dir: Folder, refresh: Callable[[str], None] = lambda folder: None) -> None:
        self.sweep, self.dir, self.refresh = sweep, sweep_dir, refresh

    def ensembles(self, case: Case) -> list[Cell]:
        attack, rate = case
        for seed in self.sweep.scenario_seeds:
            self.refresh(Cell("reference", attack, rate, seed=seed).folder)
        await_references(self.sweep, self.dir, Cell("study", attack, rate))
        seeds = ensemble_seeds(self.sweep, where_attack_took(self.sweep, self.dir, *case, unknown=False))
        cells = [Cell("ensemble", *case, seed=seed) for seed in seeds]
        return [cell for cell in cells if ensemble_missing(self.dir, cell)]

    def open(self, study: Cell) -> list[Cell]:
        self.refresh(study.folder)
        proposals = proposal_count(self.sweep.search, methods_of(self.sweep, study))
        return load_study(self.sweep, self.dir, study).open(proposals)

    def count(self, cell: Cell) -> int:
        self.refresh(cell.folder)
        return len(read_own(self.dir, cell.folder))


class Schedule:
    """Hands out what is `left` of a sweep, each cell once those it needs are done.

    whole_studies: never hand out a study trial by trial.
    """

    def __init__(self, sweep: Sweep, left: Missing, records: Records, *, whole_studies: bool = False) -> None:
        self.sweep, self.records, self.whole_studies = sweep, records, whole_studies
        self.costs = Costs(sweep)
        self.failed: list[Failed] = []
        self.stopped = False  # nothing more is handed out
        self._ready: dict[Kind, deque[Cell]] = {}
        self._needs: dict[Cell, set[Cell]] = {}  # what each cell waits for; empty once it could be begun
        self._after: dict[Cell, list[Cell]] = defaultdict(list)
        self._done: set[Cell] = set()
        self._studies: dict[Case, list[Cell]] = defaultdict(list)  # of attacks whose references are not there yet
        self._references = Counter(map(case_of, left.references))  # that are not there yet
        self._unbegun: set[Cell] = set()  # studies
        self._split: dict[Cell, deque[Cell]] = {}  # studies handed out trial by trial, and what can be begun of each
        self._running: dict[Cell, float] = {}  # since when
        self._alone: deque[Cell] = deque()
        self._given_up: set[Cell] = set()
        self._lost: dict[Cell, int] = {}  # records of cells whose worker was lost
        self._fill(left)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing can be begun."""
        return not self._running and (self.stopped or not (self._alone or self._can_begin()))

    @property
    def left_out(self) -> int:
        """How many cells wait for others; in the end, for those that failed."""
        return sum(map(bool, self._needs.values())) + sum(map(len, self._studies.values()))

    def next(self, slots: int) -> Cell | None:
        """The next cell to run, or None if there is none now. slots: how many run or wait for a place, two to a place.

        What others wait for comes first, and of that what takes longest; what needs a whole GPU comes last, as it has
        to wait for all that share one.
        """
        if self.stopped:
            return None
        while (cell := self._pop()) is not None:
            split = self._to_be_split(cell, slots)
            self._unbegun.discard(cell)
            if not split:
                return self._begin(cell)
            self._split[cell] = deque(self.records.open(cell))
        trials = max(self._split.values(), key=len, default=None)
        if trials:
            return self._begin(trials.popleft())
        return self._begin(self._alone.popleft()) if self._alone else None

    def done(self, cell: Cell, result: Result) -> None:
        """A cell that was handed out has ended."""
        seconds = time.monotonic() - self._running.pop(cell)
        if self.stopped and not result.error:  # it may have ended without being done
            return
        if result.crowded:
            self._alone.append(replace(result.crowded, alone=True))
        elif result.error:
            self._fail(cell, result.error)
        else:
            self.costs.learn(cell, seconds)
            self._go_on(cell)

    def lost(self, cell: Cell, error: str) -> None:
        """The worker of a cell was lost again and again: the cell is given another chance while it gets ahead, which a
        single trial cannot."""
        del self._running[cell]
        before, count = self._lost.get(cell, -1), self.records.count(cell)
        self._lost[cell] = count
        if count > before and cell.proposal < 0:
            self._push(cell)
        else:
            self._fail(cell, error)

    def _fill(self, left: Missing) -> None:
        for cell in left.studies:
            if cell.kind == "study":
                self._studies[case_of(cell)].append(cell)
                self._unbegun.add(cell)
        for cell in left.references:
            poison, models = trainings(self.sweep, cell)
            self._add(poison)
            for model in models:
                self._add(model, poison)
            self._add(cell, *models)
        for case in dict.fromkeys(map(case_of, left.studies)):
            if not self._references[case]:
                self._open(case)

    def _open(self, case: Case) -> None:
        """The references of an attack are there."""
        ensembles = self.records.ensembles(case)
        training = members(self.sweep, ensembles)
        for cell in training:
            self._add(cell)
        for cell in (*ensembles, *self._studies.pop(case, ())):
            self._add(cell, *training)

    def _add(self, cell: Cell, *needs: Cell) -> None:
        if cell in self._needs:
            return
        self._needs[cell] = {need for need in needs if need not in self._done}
        for need in self._needs[cell]:
            self._after[need].append(cell)
        if not self._needs[cell]:
            self._push(cell)

    def _push(self, cell: Cell) -> None:
        if cell.kind == "study":
            self._unbegun.add(cell)
        self._ready.setdefault(kind_of(cell), deque()).append(cell)

    def _pop(self) -> Cell | None:
        heads = [cells[0] for cells in self._ready.values() if cells]
        if not heads:
            return None
        first = max(heads, key=lambda cell: (level(cell), self.costs.expected(cell)))
        return self._ready[kind_of(first)].popleft()

    def _to_be_split(self, cell: Cell, slots: int) -> bool:
        """Not where trials are so short that one after the other is begun later than one worker would do them all."""
        if self.whole_studies or cell not in self._unbegun or len(self._unbegun) >= slots:
            return False
        trial = replace(cell, proposal=0, stage="tuning")
        places = slots / 2  # the others wait for one
        return not self.costs.knows(cell) or self.costs.expected(trial) >= BEGINNING * places

    def _can_begin(self) -> bool:
        return any(self._ready.values()) or any(self._split.values())

    def _begin(self, cell: Cell) -> Cell:
        self._running[cell] = time.monotonic()
        return cell

    def _go_on(self, cell: Cell) -> None:
        """What waited for a cell can be begun, if it waits for nothing else."""
        if cell.proposal >= 0:
            self._next_trials(cell.whole)
            return
        cell = cell.whole
        self._done.add(cell)
        for waiting in self._after.pop(cell, ()):
            self._needs[waiting].discard(cell)
            if not self._needs[waiting]:
                self._push(waiting)
        if cell.kind == "reference":
            self._references[case_of(cell)] -= 1
            if not self._references[case_of(cell)]:
                self._open(case_of(cell))

    def _next_trials(self, study: Cell) -> None:
        """A trial of the study is done. If the rest was left to one worker, it is so again."""
        if study in self._given_up:
            return
        if study not in self._split:
            self._push(study)
            return
        under_way = {replace(cell, alone=False) for cell in (*self._running, *self._alone)}
        self._split[study] = deque(cell for cell in self.records.open(study) if cell not in under_way)

    def _fail(self, cell: Cell, error: str) -> None:
        """What waits for the cell stays undone, and so do further trials of the study that it is of."""
        self.failed.append(Failed(cell, error))
        self._given_up.add(cell.whole)
        self._split.pop(cell.whole, None)


def level(cell: Cell) -> int:
    """How much waits for a cell: the higher comes first."""
    if cell.kind == "training":
        return 4 if cell.role == "poison" else 3
    if cell.kind == "reference":
        return 2
    return 1 if cell.member >= 0 else 0
