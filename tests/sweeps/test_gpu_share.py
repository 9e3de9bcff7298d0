"""Shares of GPUs: from what a task needs, and more for a trial that needs more. The GPUs are Ray's, on paper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweeps.commands.run import main
from sweeps.config import plugins
from sweeps.execution import gpu_share
from sweeps.execution.gpu_share import MARGIN, MOST, Memory, measured, share_of, try_out
from sweeps.execution.ray_executor import RayExecutor
from sweeps.execution.worker import workbench
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.storage.base import Folder
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.plugin_state import forget_plugins
from tests.sweeps.tiny import lines, prepare, tiny
from unlearn_core.unlearners.gd import GD

PLUGIN = Path(__file__).with_name("greedy_method.py")
GIB = 2**30


@given(st.integers(1, 200 * GIB), st.integers(1, 200 * GIB))
def test_as_many_as_fit_with_room_to_spare(needed: int, total: int) -> None:
    share = share_of(Memory(needed, total))
    fit = round(1 / share)
    assert 1 <= fit <= MOST
    assert fit * share <= 1
    assert fit == 1 or fit * needed * MARGIN <= total
    assert fit == MOST or (fit + 1) * needed * MARGIN > total


@pytest.mark.parametrize(("needed", "share"), [(1, 0.125), (20, 0.2), (40, 0.5), (60, 1.0), (150, 1.0)])
def test_shares_of_a_large_gpu(needed: int, share: float) -> None:
    assert share_of(Memory(needed * GIB, 150 * GIB)) == share


def test_everything_that_takes_memory_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    predict, updates = gpu_share.predict, GD.updates
    monkeypatch.setattr(gpu_share, "predict", lambda model, rows: seen.append(len(rows)) or predict(model, rows))
    monkeypatch.setattr(GD, "updates", lambda self, task: seen.append(len(task.forget)) or updates(self, task))
    monkeypatch.setattr(gpu_share, "input_gradients", lambda model, rows, targets: seen.append(("scores", len(rows))))
    try_out(ScenarioCache(tiny(), RunEnvironment(tmp_path)))
    assert seen == [20, 80, 20, ("scores", 20)]
    assert not (tmp_path / "store").exists()


def test_what_does_not_fit_takes_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(work: ScenarioCache) -> None:
        raise torch.OutOfMemoryError

    folder = prepare(tiny(), tmp_path)
    workbench.cache_clear()
    assert measured(folder, RunEnvironment(tmp_path)).needed >= gpu_share.CONTEXT
    monkeypatch.setattr(gpu_share, "try_out", full)
    memory = measured(folder, RunEnvironment(tmp_path))
    assert memory.needed == memory.room


@pytest.mark.parametrize("bad", ["0", "1.5", "-1", "nan", "half"])
def test_a_share_lies_between_nothing_and_all(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--gpu-fraction", bad])
    assert f"--gpu-fraction: must be a number above 0 and at most 1, but got '{bad}'" in capsys.readouterr().err


class Guessing(RayExecutor):
    """Believes to have measured that a task needs so much."""

    memory: ClassVar[Memory] = Memory(20, 100)

    def _memory(self, sweep_dir: Folder, place: RunEnvironment) -> Memory:
        return self.memory


def test_where_no_gpu_can_tell_a_trial_gets_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def lost(*_: Any) -> Memory:
        raise ray.exceptions.WorkerCrashedError

    made, place = Guessing.__new__(Guessing), RunEnvironment(tmp_path, gpus=1)
    made._ray, made._share = ray, {"cpu": 1, "gpu": 1}
    assert made._shared(tmp_path, place).gpus == made._share["gpu"] == 0.3333
    made._share["gpu"] = 1
    monkeypatch.setattr(Guessing, "_memory", lost)
    assert made._shared(tmp_path, place) == place
    assert made._share["gpu"] == 1
    assert "warning: memory could not be measured, a trial gets a whole GPU: " in capsys.readouterr().err


@pytest.fixture
def executor() -> Iterator[RayExecutor]:
    """On two machines of a CPU for every task that fits on the GPU they have on paper."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    machine = {"num_cpus": 3, "num_gpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=machine)
    made = Guessing(cluster.address, cpus=1, gpus=1, share_gpus=True)
    yield made
    made.close()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_trial_that_needs_more_is_done_again_on_a_whole_gpu(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_plugins(monkeypatch)
    plugins.load_plugins([str(PLUGIN)])
    sweep = tiny(
        methods=["greedy", "ssd"], plugins=[str(PLUGIN)], search={"sampler": "grid", "grid_points": 2},
        resources={"gpus": 1},
    )  # fmt: skip
    folder = prepare(sweep, tmp_path)
    schedule = Schedule(sweep, missing(sweep, folder), RecordedWork(sweep, folder))
    executor.run(folder, RunEnvironment(tmp_path, gpus=1), schedule)
    assert schedule.failed == []
    assert missing(sweep, folder) == ([], [], [])
    trials = read_trials(folder)
    greedy = [trial for trial in trials if trial.method == "greedy"]
    again = [trial for trial in greedy if trial.gpu_memory_retries]
    assert {trial.gpus for trial in trials if trial not in again} == {0.3333}
    assert {trial.gpus for trial in again} == {1.0}
    assert [trial for trial in greedy if json.loads(trial.settings)["lr"] < 0.05] == again != []
    assert all(trial.error is None for trial in trials)
    assert len(lines(folder)) == len(trials)
