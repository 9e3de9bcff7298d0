"""Cells on Ray: Tune's grid lists them, reused workers walk them. The only file that imports ray."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sweeps.cell import Cell
from sweeps.executors import Outcome
from sweeps.files import Folder, local_copy
from sweeps.workbench import Place
from sweeps.worker import work_cell
from unlearn_core.checks import InputError

ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use this very environment, not a copy built per start
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker as here
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are the log
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep; Tune would call what is left finished
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
PATIENCE = 5.0  # seconds for the head of a cluster to answer
LOST_WORKERS = 10  # how often a cell is started again after a lost process or machine


class RayExecutor:
    """Runs cells on a local Ray (`address="local"`) or on the cluster at `address`."""

    def __init__(self, address: str, *, cpus: float, gpus: float) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if address == "local":
            protect_local_ray()
        import ray

        local = {"include_dashboard": False, "object_store_memory": 128 * 2**20} if address == "local" else {}
        environment = {"env_vars": {name: os.environ[name] for name in ENVIRONMENT}}
        check_address(address)
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment, **local
            )
        except (ConnectionError, ValueError) as problem:
            raise InputError(f"--address {address!r} leads to no Ray cluster: {problem}") from None
        self._ray = ray
        self._share = {"cpu": cpus, "gpu": gpus}
        self._check_room(address)

    def _check_room(self, address: str) -> None:
        """Without a machine that holds a cell, Tune would wait for one without a word."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(k.upper(), 0) >= share for k, share in self._share.items()) for node in nodes):
            return
        what = " and ".join(f"resources.{name}s={share:g}" for name, share in self._share.items() if share)
        if address == "local":
            self.close()
            raise InputError(f"this machine does not have {what}; lower it")
        print(f"warning: no machine of the cluster has {what} now; waiting for one", file=sys.stderr)

    def map(self, sweep_dir: Folder, place: Place, cells: Sequence[Cell]) -> list[Outcome]:
        """All cells, in list order as workers become free."""
        from ray import tune

        folder = local_copy(sweep_dir) / ".tune"
        by_name = {cell.name: cell for cell in cells}

        def trainable(config: dict[str, Any]) -> None:  # the config stays tiny: it is copied into every snapshot
            error = work_cell(sweep_dir, place, Cell(**config["cell"]))
            tune.report({"error": error or ""})

        shutil.rmtree(folder, ignore_errors=True)  # left by a driver that was killed
        tuner = tune.Tuner(
            tune.with_resources(trainable, self._share),
            param_space={"cell": tune.grid_search([asdict(cell) for cell in cells])},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="cells",
                storage_path=str(folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            ),
        )
        try:
            return [_outcome(result, by_name) for result in tuner.fit()]
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        self._ray.shutdown()


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


def _outcome(result: Any, by_name: Mapping[str, Cell]) -> Outcome:
    cell = by_name[Cell(**result.config["cell"]).name]
    if result.error is not None:
        return Outcome(cell, f"the worker was lost more than {LOST_WORKERS} times: {result.error}")
    return Outcome(cell, (result.metrics or {}).get("error") or None)
