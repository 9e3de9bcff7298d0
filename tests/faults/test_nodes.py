"""Machines of a cluster come and go; so does the process by which Ray is on the driver's machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import PASSED_ON, Sweep, Undisturbed, settle
from tests.faults.ledger import LEDGER
from tests.faults.looks import descendants

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]

MEMORY = 100 * 2**20  # bytes of a node's object store


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of one machine that takes no cells; its processes know where the sweep in `tmp_path` gets orders."""
    from ray.cluster_utils import Cluster

    for name, value in (PASSED_ON | {"FAULTS_DIR": str(tmp_path / "sweep" / "orders")}).items():
        monkeypatch.setenv(name, value)
    made = Cluster(head_node_args={"num_cpus": 0, "object_store_memory": MEMORY}, initialize_head=True)
    yield made
    made.shutdown()


def processes_on(node: Any) -> set[int]:
    """The workers of a node, and what else its raylet has started."""
    (raylet,) = node.all_processes["raylet"]
    return set(descendants(raylet.process.pid))


def lose(cluster: Any, node: Any) -> None:
    """As if somebody pulled the plug; workers alone would outlive their raylet for a moment."""
    workers = processes_on(node)
    cluster.remove_node(node, allow_graceful=False)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_node_joins_late_and_another_is_lost(undisturbed: Undisturbed, cluster: Any, tmp_path: Path) -> None:
    first = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    sweep = Sweep(tmp_path / "sweep", "--address", cluster.address, environment=token)
    under_way = undisturbed.begun()[4]
    sweep.order("hang", under_way)  # so that the first node is at work whenever the other one comes and it is lost
    late: list[Any] = []

    def disturb() -> bool:
        if not late and under_way in [trial for _, trial in sweep.starts()]:
            late.append(cluster.add_node(num_cpus=1, object_store_memory=MEMORY))
        if not late or not {pid for pid, _ in sweep.starts()} & processes_on(late[0]):
            return False
        lose(cluster, first)
        (sweep.place / "hang").unlink()
        return True

    sweep.run_while(disturb)
    lost, repeated, equal = settle(sweep, undisturbed, "node lost")
    assert [trial for _, trial in sweep.starts()].count(under_way) == 1 + repeated == 2
    LEDGER.add("node joins late", lost=lost, repeated=0, equal=equal)


def test_a_ray_that_dies_under_its_driver(undisturbed: Undisturbed, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep")
    sweep.order("hang", undisturbed.begun()[-1])  # workers outlive their Ray for a moment, in which they might finish
    process = sweep.start()
    assert sweep.wait(process, lambda: sweep.in_trial() is not None), sweep.said()
    (pid,) = [pid for pid, program in descendants(process.pid).items() if program == "raylet"]
    os.kill(pid, signal.SIGKILL)
    sweep.wait(process)
    assert process.returncode == 1, sweep.said()
    assert "gone" in sweep.said().splitlines()[-1]
    (sweep.place / "hang").unlink()
    sweep.finish()
    settle(sweep, undisturbed, "Ray's own process on the driver's machine killed", slots=2)
