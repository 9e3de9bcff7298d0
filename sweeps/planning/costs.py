"""What a cell is expected to cost, so that the longest can be begun first. Changes no result."""

from __future__ import annotations

from sweeps.config.spec import Sweep
from sweeps.planning.tasks import Cell, ensemble_trials_in, trials_in
from sweeps.trials.ensemble import MODELS_PER_MEMBER

Kind = tuple[str, str, str]


def kind_of(cell: Cell) -> Kind:
    """Cells of a kind take about as long as each other."""
    return cell.kind, cell.role or ("member" if cell.member >= 0 else ""), cell.method


def climbs_in(sweep: Sweep, cell: Cell) -> int:
    """The most ladders that are climbed in a cell: one per trial, in an ensemble trial one per member and shadow."""
    if cell.kind == "ensemble":
        return 0
    if cell.proposal >= 0:
        return 2 * sweep.ensemble.members if cell.stage == "ensemble" else 1
    return trials_in(sweep, cell) + ensemble_trials_in(sweep, cell) * (2 * sweep.ensemble.members - 1)


class Costs:
    """Expected seconds by kind of cell: counted in trainings at first, corrected by what finished cells took."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._taken: dict[Kind, tuple[float, float]] = {}  # seconds, and trainings that were counted for them

    def counted(self, cell: Cell) -> float:
        """In trainings from scratch, which is what budgets are shares of."""
        if cell.kind == "training":
            return 1.0
        if cell.kind == "reference":
            return sum(self.sweep.budgets)
        if cell.kind == "ensemble":
            return float(MODELS_PER_MEMBER) if cell.member >= 0 else 1.0
        return climbs_in(self.sweep, cell) * max(self.sweep.budgets)

    def knows(self, cell: Cell) -> bool:
        """Whether cells of its kind have taught what they take."""
        return kind_of(cell) in self._taken

    def learn(self, cell: Cell, seconds: float) -> None:
        """A cell took so long; one that was resumed counts as if it had been done from its beginning."""
        taken, counted = self._taken.get(kind_of(cell), (0.0, 0.0))
        self._taken[kind_of(cell)] = taken + seconds, counted + self.counted(cell)

    def expected(self, cell: Cell) -> float:
        """Seconds; as long as nothing is known of any cell, trainings."""
        return self.counted(cell) * self._speed(kind_of(cell))

    def _speed(self, kind: Kind) -> float:
        """Seconds per training: of this kind of cell, else of all."""
        known = [self._taken[kind]] if kind in self._taken else list(self._taken.values())
        taken, counted = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
        return taken / counted if counted else 1.0
