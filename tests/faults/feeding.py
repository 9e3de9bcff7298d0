"""How tests that run sweeps in their own process, or in forks of it, tell the ledger what a fault cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sweeps.storage.base import Folder
from sweeps.storage.record_log import Trial, read_trials
from sweeps.trials import trial
from tests.faults.ledger import LEDGER
from tests.sweeps.tiny import science

Feed = Callable[..., None]


@pytest.fixture
def feed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """A function of fault, folder of the sweep and trials of the undisturbed run. It enters what the fault cost, where
    trials evaluated since the test began, or since it was last called, count as those of this sweep."""
    log, seen = tmp_path_factory.mktemp("evaluated") / "trials", [0]
    log.touch()
    run = trial.run_ladder

    def logged(work: Any, bench: Any, request: trial.Request, evaluate: Any) -> Any:
        with open(log, "ab", buffering=0) as file:  # also by forks of this process
            file.write(f"{trial.trial_id(work, request)}\n".encode())
        return run(work, bench, request, evaluate)

    def enter(fault: str, sweep_dir: Folder, undisturbed: Sequence[Trial], *, tried: int = 1) -> None:
        lines = log.read_text().split()
        evaluated, seen[0] = Counter(lines[seen[0] :]), len(lines)
        found, wanted = science(read_trials(sweep_dir)), science(undisturbed)
        repeated = sum(count - 1 for count in evaluated.values())
        lost = len(wanted.keys() - found.keys())
        LEDGER.add(fault, tried=tried, lost=lost, repeated=repeated, equal=found == wanted)
        assert repeated <= tried

    monkeypatch.setattr(trial, "run_ladder", logged)
    return enter
