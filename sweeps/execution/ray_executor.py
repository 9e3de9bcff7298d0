"""Tasks on Ray: starts Ray or joins a cluster, and runs one fit of Ray Tune after the other (`tune_fit.py`)."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeps.execution.executors import Queue
from sweeps.execution.gpu_share import Memory, measured, share_of
from sweeps.execution.lost import KEPT, ExecutorLostError
from sweeps.execution.ray_home import kept, private_home
from sweeps.execution.ray_watchdog import LocalRay, Watchdog
from sweeps.launch import own_modules
from sweeps.storage.base import Folder
from sweeps.tracking.uri import spare_proxies
from sweeps.trials.machine import usable_cpus
from sweeps.trials.scenario_cache import RunEnvironment
from unlearn_core.checks import InputError
from unlearn_core.host.private import UMASK

if TYPE_CHECKING:
    from ray.tune import Callback, ResultGrid

    from sweeps.execution.tune_stop import Stop

ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use this very environment, not a copy built per start
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker as here
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are the log
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # only studies have a score
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep; Tune would call what is left finished
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_worker_niceness": "0",  # workers have the priority that the command was started with, not the lowest
}
PASSED_ON = (*ENVIRONMENT, UMASK)  # to workers on any machine
PROBES = 3  # further tries at measuring memory
PATIENCE = 5.0  # seconds for the head of a cluster to answer
MOST_TASKS = 2000  # in one fit: Tune keeps all of them in memory and writes all of them into every snapshot
ROUNDS = 50  # but at least so many tasks for each place
LEAST_AHEAD = 16  # tasks that wait for a place on a cluster


class RayExecutor:
    """Runs tasks on a local Ray or on a cluster.

    Args:
        address: `local`, or the address of the cluster.
        cpus: Processors of a task.
        gpus: GPUs of a task, or the share of one that it gets.
        share_gpus: If a task gets a whole GPU, measure how much memory it needs, and give it that share instead.
        workers: Tasks at a time, at most, on a local Ray.
        callbacks: Callbacks of Ray Tune.
        stop: Ends studies early: a stopper of Tune, or a function or mapping as `ray.tune.RunConfig` accepts.

    Attributes:
        results: the ResultGrid of Tune's last fit; None before.
    """

    def __init__(
        self,
        address: str,
        *,
        cpus: float,
        gpus: float,
        share_gpus: bool = False,
        workers: int | None = None,
        callbacks: Sequence[Callback] = (),
        stop: Stop = None,
    ) -> None:
        self.results: ResultGrid | None = None
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        spare_proxies()
        if address == "local":
            protect_local_ray()
        read_environment_again()
        self._processors, cpus = local_room(cpus, workers) if address == "local" else (0, cpus)
        self._share = {"cpu": cpus, "gpu": gpus}
        self._measures = share_gpus and gpus == 1
        self._local = address == "local"
        self._room, self._look_again = 1, 0.0
        self._where = "on this machine" if self._local else f"at {address}"
        check_address(address)
        from sweeps.execution.tune_stop import as_stopper

        self._callbacks, self._stop = callbacks, as_stopper(stop)
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
        except Exception as problem:  # Ray has no class for what goes wrong while it starts
            why = "it was ended meanwhile" if self._dog.lost else problem
            raise ExecutorLostError(f"Ray did not start: {why}") from None

    def _check_room(self, address: str) -> None:
        """Without a machine that holds a task, Tune would wait for one without a word."""
        nodes = self._machines()
        if any(all(node.get(k.upper(), 0) >= share for k, share in self._share.items()) for node in nodes):
            return
        what = " and ".join(f"resources.{name}s={share:g}" for name, share in self._share.items() if share)
        if address == "local":
            raise InputError(f"this machine does not have {what}; lower it")
        print(f"warning: no machine of the cluster has {what} now; waiting for one", file=sys.stderr)

    def run(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None:
        """Everything in the queue, by one fit after the other: what a fit costs grows with the number of its tasks."""
        if self._measures and not queue.finished:
            place, self._measures = self._shared(sweep_dir, place), False
        while not queue.finished:
            self._fit(sweep_dir, place, queue)

    def _shared(self, sweep_dir: Folder, place: RunEnvironment) -> RunEnvironment:
        """The place with the share of a GPU that a task needs: a whole one where no GPU could tell."""
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
        """Measured by a process that ends with it, on a GPU that it has alone.

        Again by another one after an error of the device.
        """
        options = {"max_calls": 1, "max_retries": PROBES, "retry_exceptions": True}
        probe = self._ray.remote(num_cpus=self._share["cpu"], num_gpus=1, **options)(measured)
        memory: Memory = self._ray.get(probe.remote(sweep_dir, place))
        return memory

    def _fit(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None:
        from sweeps.execution.ray_watch import Watch
        from sweeps.execution.tune_fit import Fit

        callbacks = (Watch(self._dog), *self._callbacks)
        fit = Fit(sweep_dir, place, queue, self._share, self._slots, callbacks, self._stop)
        try:
            # at the end of a fit places stand empty: seldom, for many
            self.results = fit.run(most=max(MOST_TASKS, ROUNDS * self._places()))
        except Exception:
            if self._dog.lost:
                raise ExecutorLostError(f"Ray {self._where} is gone") from None
            raise

    def _knows_this_node(self) -> bool:
        """Whether the cluster still knows the node that this process is connected to, once it is."""
        if not self._ray.is_initialized():
            return True
        here = self._ray.get_runtime_context().get_node_id()
        return any(node["Alive"] for node in self._ray.nodes() if node["NodeID"] == here)

    def _slots(self) -> tuple[int, int]:
        """How many tasks run or wait for a place at once.

        As many again as there are places, so that none is ever empty; and on a cluster that grows some more, which
        is what it grows for.
        """
        places = self._places()
        return 2 * places, places + (places if self._local else max(LEAST_AHEAD, places))

    def _places(self) -> int:
        """How many tasks the machines have room for now, or had a second ago."""
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
    """(processors of a local Ray, processors of a task): those that this process may use, for `workers` tasks at most.

    Ray takes whole processors only: a task that asks for a part of one gets more if too many would fit.
    """
    if workers is None:
        return usable_cpus(), cpus
    room = min(usable_cpus(), math.ceil(workers * cpus))
    return room, max(cpus, math.floor(1e4 * room / workers) / 1e4)  # finer than that Ray does not count


def protect_local_ray() -> None:
    """Ray listens on all interfaces even where it serves this process alone.

    Without a token, anybody on the network could run programs as this user. The token lives in this process and its
    workers only, never in a file.
    """
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def read_environment_again() -> None:
    """Ray reads the environment when it is imported, which a notebook may have done long before."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def check_address(address: str) -> None:
    """Whether something listens at `host:port`: Ray itself would ask for minutes, then end the process."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as problem:
        raise InputError(f"--address {address!r} leads to no Ray cluster: {problem}") from None
