"""Cells on Ray: Tune asks the schedule for them, reused workers walk them. Only files called `ray_*` import ray."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import time
from typing import Any

from sweeps.execution.executors import Queue
from sweeps.execution.gpu_share import Memory, measured, share_of
from sweeps.execution.lost import KEPT, ExecutorLostError
from sweeps.execution.ray_home import kept, private_home
from sweeps.execution.ray_watchdog import LocalRay, Watchdog
from sweeps.execution.worker import work_task
from sweeps.launch import own_modules
from sweeps.planning.tasks import from_wire, to_wire
from sweeps.storage.base import Folder
from sweeps.storage.folders import at
from sweeps.tracking.uri import spare_proxies
from sweeps.trials.machine import usable_cpus
from sweeps.trials.scenario_cache import RunEnvironment
from unlearn_core.checks import InputError
from unlearn_core.host.private import UMASK

ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use this very environment, not a copy built per start
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker as here
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are the log
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep; Tune would call what is left finished
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_worker_niceness": "0",  # workers have the priority that the command was started with, not the lowest
}
PASSED_ON = (*ENVIRONMENT, UMASK)  # to workers on any machine
PROBES = 3  # further tries at measuring memory
PATIENCE = 5.0  # seconds for the head of a cluster to answer
LOST_WORKERS = 10  # how often a cell is started again after a lost process or machine, before its progress is looked at
MOST_CELLS = 2000  # in one fit: Tune keeps all of them in memory and writes all of them into every snapshot
ROUNDS = 50  # but at least so many cells for each place
LEAST_AHEAD = 16  # cells that wait for a place on a cluster


class RayExecutor:
    """Runs cells on a local Ray (`address="local"`) or on the cluster at `address`.

    cpus, gpus: what a cell gets; with a whole GPU for each, `share_gpus` gives them as large a share of one as their
    memory needs, which is tried first. workers: of a local Ray, at most so many cells at a time.
    """

    def __init__(
        self, address: str, *, cpus: float, gpus: float, share_gpus: bool = False, workers: int | None = None
    ) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        spare_proxies()
        if address == "local":
            protect_local_ray()
        self._processors, cpus = local_room(cpus, workers) if address == "local" else (0, cpus)
        self._share = {"cpu": cpus, "gpu": gpus}
        self._measures = share_gpus and gpus == 1
        self._local = address == "local"
        self._room, self._look_again = 1, 0.0
        self._where = "on this machine" if self._local else f"at {address}"
        check_address(address)
        with contextlib.ExitStack() as opened:
            self._start(address, opened)
            self._check_room(address)
            self._opened = opened.pop_all()

    def _start(self, address: str, opened: contextlib.ExitStack) -> None:
        """Start Ray or join it, with those who watch it. Raises InputError or ExecutorLostError."""
        import ray

        self._ray = ray
        local: dict[str, Any] = {}
        if self._local:
            home = opened.enter_context(private_home())
            local = {"include_dashboard": False, "object_store_memory": 128 * 2**20}
            local |= {"_temp_dir": home, "num_cpus": self._processors}
        dismiss = opened.enter_context(kept(f"error: the command or Ray {self._where} was ended from outside; {KEPT}"))
        alive = LocalRay().lives if self._local else self._knows_this_node
        self._dog = Watchdog(alive, f"error: Ray {self._where} is gone; {KEPT}", dismiss)
        opened.enter_context(self._dog.watching())
        environment = {
            "env_vars": {name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "worker_process_setup_hook": own_modules(last=os.getcwd()),  # the folder that Ray puts first
        }
        opened.callback(ray.shutdown)
        opened.callback(self._dog.stop)
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment, **local
            )
        except (ConnectionError, ValueError) as problem:
            raise InputError(f"--address {address!r} leads to no Ray cluster: {problem}") from None
        except Exception as problem:  # Ray has no class of its own for what goes wrong while it starts
            why = "it was ended meanwhile" if self._dog.lost else problem
            raise ExecutorLostError(f"Ray did not start: {why}") from None

    def _check_room(self, address: str) -> None:
        """Without a machine that holds a cell, Tune would wait for one without a word."""
        nodes = self._machines()
        if any(all(node.get(k.upper(), 0) >= share for k, share in self._share.items()) for node in nodes):
            return
        what = " and ".join(f"resources.{name}s={share:g}" for name, share in self._share.items() if share)
        if address == "local":
            raise InputError(f"this machine does not have {what}; lower it")
        print(f"warning: no machine of the cluster has {what} now; waiting for one", file=sys.stderr)

    def run(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None:
        """Everything in the queue, by one fit after the other: what a fit costs grows with the number of its cells."""
        if self._measures and not queue.finished:
            place, self._measures = self._shared(sweep_dir, place), False
        while not queue.finished:
            self._fit(sweep_dir, place, queue)

    def _shared(self, sweep_dir: Folder, place: RunEnvironment) -> RunEnvironment:
        """The place with the share of a GPU that a cell needs: a whole one where no GPU could tell."""
        try:
            memory = self._memory(sweep_dir, place)
        except self._ray.exceptions.RayError as problem:
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[-1]
            print(f"warning: memory could not be measured, a trial gets a whole GPU: {reason}", file=sys.stderr)
            return place
        self._share["gpu"] = share = share_of(memory)
        said = f"a trial takes {memory.needed / 2**30:.1f} of {memory.room / 2**30:.1f} GiB: {share:g} GPUs each"
        print(said, file=sys.stderr)
        return place._replace(gpus=share)

    def _memory(self, sweep_dir: Folder, place: RunEnvironment) -> Memory:
        """Measured by a process that ends with it, on a GPU of its own; again by another one after an error of the
        device."""
        options = {"max_calls": 1, "max_retries": PROBES, "retry_exceptions": True}
        probe = self._ray.remote(num_cpus=self._share["cpu"], num_gpus=1, **options)(measured)
        memory: Memory = self._ray.get(probe.remote(sweep_dir, place))
        return memory

    def _fit(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None:
        from ray import tune

        from sweeps.execution.ray_watch import Watch
        from sweeps.execution.tune_queue import CellSearcher

        def trainable(config: dict[str, Any]) -> None:  # the config stays tiny: it is copied into every snapshot
            outcome = work_task(sweep_dir, place, from_wire(config["task"]))
            # texts: Tune takes an empty mapping out, and tells of every task whose report has no values
            too_large = json.dumps(to_wire(outcome.too_large)) if outcome.too_large else ""
            tune.report({"error": outcome.error or "", "too_large": too_large})

        usual = self._share  # without `self`, which cannot be sent

        def share(config: dict[str, Any]) -> dict[str, float]:
            return usual | ({"gpu": 1.0} if config["task"]["whole_gpu"] else {})

        folder = at(sweep_dir).local_copy / ".tune"
        shutil.rmtree(folder, ignore_errors=True)  # left by a driver that was killed
        most = max(MOST_CELLS, ROUNDS * self._places())  # at the end of a fit places stand empty: seldom, for many
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most)  # the searcher knows how many
        tuner = tune.Tuner(
            tune.with_resources(trainable, share),
            tune_config=tune.TuneConfig(
                search_alg=CellSearcher(queue, self._slots, most=most), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="cells",
                storage_path=str(folder),
                verbose=0,
                callbacks=[Watch(self._dog)],
                failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if self._dog.lost:
                raise ExecutorLostError(f"Ray {self._where} is gone") from None
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _knows_this_node(self) -> bool:
        """Whether the cluster still knows the node that this process is connected to, once it is."""
        if not self._ray.is_initialized():
            return True
        here = self._ray.get_runtime_context().get_node_id()
        return any(node["Alive"] for node in self._ray.nodes() if node["NodeID"] == here)

    def _slots(self) -> tuple[int, int]:
        """How many cells run or wait for a place at once: as many again as there are places, so that none is ever
        empty; and on a cluster that grows some more, which is what it grows for."""
        places = self._places()
        return 2 * places, places + (places if self._local else max(LEAST_AHEAD, places))

    def _places(self) -> int:
        """How many cells the machines have room for now, or had a second ago."""
        if time.monotonic() >= self._look_again:
            asked = {name.upper(): share for name, share in self._share.items() if share}
            rooms = [[int(node.get(k, 0) / share + 1e-9) for k, share in asked.items()] for node in self._machines()]
            room = sum(map(min, rooms))
            self._room, self._look_again = max(1, room), time.monotonic() + 1
        return self._room

    def _machines(self) -> list[dict[str, float]]:
        """What each machine has that is there now."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def close(self) -> None:
        self._opened.close()


def local_room(cpus: float, workers: int | None) -> tuple[int, float]:
    """(processors of a local Ray, processors of a cell): those that this process may use, for `workers` cells at most.

    Ray takes whole processors only: a cell that asks for a part of one gets more if too many would fit.
    """
    if workers is None:
        return usable_cpus(), cpus
    room = min(usable_cpus(), math.ceil(workers * cpus))
    return room, max(cpus, math.floor(1e4 * room / workers) / 1e4)  # finer than that Ray does not count


def protect_local_ray() -> None:
    """Ray listens on all interfaces even where it serves this process alone: without a token, anybody on the network
    could run programs as this user. The token lives in this process and its workers only, never in a file."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def check_address(address: str) -> None:
    """Whether something listens at `host:port`: Ray itself would ask for minutes, then end the process."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as problem:
        raise InputError(f"--address {address!r} leads to no Ray cluster: {problem}") from None
