"""The order of work: which task can begin now, given what is done. Knows nothing of where and how tasks run.

Tasks form a graph: poison -> trained models -> references of a scenario -> studies of its threat (and ensembles between
the two). Of the tasks that can begin, those that others wait for come first, and of these the longest. When few studies
are left, they are handed out trial by trial (unless trials take next to no time), so that none is left over alone.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sweeps.config.spec import Sweep
from sweeps.planning.costs import Costs
from sweeps.planning.done_work import DoneWork
from sweeps.planning.missing import Missing
from sweeps.planning.tasks import MeasureReferences, Outcome, RunStudy, RunTrial, Task, Threat
from sweeps.schema.stages import Stage

BEGINNING = 0.05  # seconds that it takes to hand a task to a worker; tasks are handed out one after the other


class Failed(NamedTuple):
    """A task that failed as a whole. error: a traceback."""

    task: Task
    error: str


class Schedule:
    """Hands out the tasks that are left of a sweep, each once those it needs are done.

    Args:
        sweep: The sweep.
        left: Its tasks that are not complete.
        done_work: The results so far.
        whole_studies: Never hand out a study trial by trial.
    """

    def __init__(self, sweep: Sweep, left: Missing, done_work: DoneWork, *, whole_studies: bool = False) -> None:
        self.sweep, self.done_work, self.whole_studies = sweep, done_work, whole_studies
        self.costs = Costs(sweep)
        self.failed: list[Failed] = []
        self.stopped = False  # nothing more is handed out
        self._ready: dict[tuple[str, ...], deque[Task]] = {}
        self._needs: dict[Task, set[Task]] = {}  # what each task waits for; empty once it can begin
        self._after: dict[Task, list[Task]] = defaultdict(list)
        self._done: set[Task] = set()
        self._studies: dict[Threat, list[RunStudy]] = defaultdict(list)  # of threats without all their references
        self._references = Counter(task.threat for task in left.references)  # those that are missing
        self._unbegun: set[RunStudy] = set()
        self._split: dict[RunStudy, deque[RunTrial]] = {}  # studies handed out trial by trial: those that can begin
        self._running: dict[Task, float] = {}  # since when
        self._whole_gpu: deque[Task] = deque()  # what ran out of memory on a share of a GPU
        self._given_up: set[RunStudy] = set()
        self._lost: dict[Task, int] = {}  # records of tasks whose worker was lost
        self._fill(left)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing can begin."""
        return not self._running and (self.stopped or not (self._whole_gpu or self._can_begin()))

    @property
    def left_out(self) -> int:
        """How many tasks wait for others; in the end, for those that failed."""
        return sum(map(bool, self._needs.values())) + sum(map(len, self._studies.values()))

    def next(self, slots: int) -> Task | None:
        """The next task to run, or None if there is none now.

        Tasks that others wait for come first, and of these the longest. Those that need a whole GPU come last, as they
        have to wait for all tasks that share one.

        Args:
            slots: How many tasks run or wait for a place, two to a place.
        """
        if self.stopped:
            return None
        while (task := self._pop()) is not None:
            if not isinstance(task, RunStudy):
                return self._begin(task)
            split = self._to_be_split(task, slots)
            self._unbegun.discard(task)
            if not split:
                return self._begin(task)
            self._split[task] = deque(self.done_work.open(task))
        trials = max(self._split.values(), key=len, default=None)
        if trials:
            return self._begin(trials.popleft())
        return self._begin(self._whole_gpu.popleft()) if self._whole_gpu else None

    def done(self, task: Task, outcome: Outcome) -> None:
        """A task that was handed out has ended."""
        seconds = time.monotonic() - self._running.pop(task)
        if self.stopped and not outcome.error:  # it may have ended without being done
            return
        if outcome.too_large:
            self._whole_gpu.append(replace(outcome.too_large, whole_gpu=True))
        elif outcome.error:
            self._fail(task, outcome.error)
        else:
            self.costs.learn(task, seconds)
            self._go_on(task)

    def lost(self, task: Task, error: str) -> None:
        """The worker of a task was lost again and again.

        The task gets another chance if it recorded something since the last time; a single trial cannot.
        """
        del self._running[task]
        before, count = self._lost.get(task, -1), self.done_work.count(task)
        self._lost[task] = count
        if count > before and not isinstance(task, RunTrial):
            self._push(task)
        else:
            self._fail(task, error)

    def leave(self, task: Task) -> None:
        """A task was ended early, as the user wished. The next run does what is left of it, and of its study."""
        del self._running[task]
        self._give_up(task)

    def _fill(self, left: Missing) -> None:
        for study in left.studies:
            self._studies[study.threat].append(study)
            self._unbegun.add(study)
        for references in left.references:
            self._add(references)
        threats = [*(task.threat for task in left.ensembles), *(task.threat for task in left.studies)]
        for threat in dict.fromkeys(threats):
            if not self._references[threat]:
                self._open(threat)

    def _open(self, threat: Threat) -> None:
        """All references of a threat are there."""
        ensembles = self.done_work.ensembles(threat)
        for ensemble in ensembles:
            self._add(ensemble)
        members = [member for ensemble in ensembles for member in ensemble.needs(self.sweep)]
        for study in self._studies.pop(threat, ()):
            self._add(study, members)

    def _add(self, task: Task, more_needs: Sequence[Task] = ()) -> None:
        if task in self._needs:
            return
        needs = [*task.needs(self.sweep), *more_needs]
        for need in needs:
            self._add(need)
        self._needs[task] = {need for need in needs if need not in self._done}
        for need in self._needs[task]:
            self._after[need].append(task)
        if not self._needs[task]:
            self._push(task)

    def _push(self, task: Task) -> None:
        if isinstance(task, RunStudy):
            self._unbegun.add(task)
        self._ready.setdefault(task.alike, deque()).append(task)

    def _pop(self) -> Task | None:
        heads = [tasks[0] for tasks in self._ready.values() if tasks]
        if not heads:
            return None
        first = max(heads, key=lambda task: (task.level, self.costs.expected(task)))
        return self._ready[first.alike].popleft()

    def _to_be_split(self, study: RunStudy, slots: int) -> bool:
        """Not where trials are so short that one after the other begins later than one worker would finish them all."""
        if self.whole_studies or study not in self._unbegun or len(self._unbegun) >= slots:
            return False
        trial = study.trial(Stage.TUNING, proposal=0, seed=0)
        places = slots / 2  # the others wait for one
        return not self.costs.knows(study) or self.costs.expected(trial) >= BEGINNING * places

    def _can_begin(self) -> bool:
        return any(self._ready.values()) or any(self._split.values())

    def _begin(self, task: Task) -> Task:
        self._running[task] = time.monotonic()
        return task

    def _go_on(self, task: Task) -> None:
        """What waited for a task can begin, if it waits for nothing else."""
        if isinstance(task, RunTrial):
            self._next_trials(task.study)
            return
        self._done.add(task)
        for waiting in self._after.pop(task, ()):
            self._needs[waiting].discard(task)
            if not self._needs[waiting]:
                self._push(waiting)
        if isinstance(task, MeasureReferences):
            self._references[task.threat] -= 1
            if not self._references[task.threat]:
                self._open(task.threat)

    def _next_trials(self, study: RunStudy) -> None:
        """A trial of the study is done. If one worker had the whole study, one worker gets the rest."""
        if study in self._given_up:
            return
        if study not in self._split:
            self._push(study)
            return
        under_way = {*self._running, *self._whole_gpu}
        self._split[study] = deque(trial for trial in self.done_work.open(study) if trial not in under_way)

    def _fail(self, task: Task, error: str) -> None:
        self.failed.append(Failed(task, error))
        self._give_up(task)

    def _give_up(self, task: Task) -> None:
        """What waits for the task stays undone, and so do further trials of a study."""
        study = task.study if isinstance(task, RunTrial) else task
        if isinstance(study, RunStudy):
            self._given_up.add(study)
            self._split.pop(study, None)
