"""How a sweep is run: everything that a user can choose besides what is run. No option changes a result."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.commands.option_checks import check_amounts, check_places, check_switches, check_tune
from sweeps.storage.base import Folder
from sweeps.storage.folders import folder_or_url
from unlearn_core.checks import InputError, close_names


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a sweep runs, where it keeps its files, and what it is mirrored to.

    Args:
        out: Folder or s3:// URL of the results.
        store: Folder or URL of trained models and poisons; `out`/store by default.
        data_root: Folder with the data files.
        download: Whether missing data files may be fetched into `data_root`.
        address: Ray cluster to join; by default RAY_ADDRESS, else a Ray on this machine alone.
        gpu_fraction: Share of a GPU for each trial, in (0, 1]; by default what its memory needs.
        workers: Trials at a time on this machine, at most; by default as its processors allow.
        inline: Run in this process, without Ray.
        tracking_uri: MLflow store; by default MLFLOW_TRACKING_URI, else a file in `out`.
        tracking: Whether records are mirrored to MLflow.
        callbacks: Callbacks of Ray Tune, which see every proposal of every study.
        stop: Ends studies early: what `ray.tune.RunConfig(stop=...)` accepts. The next run does what is left.
    """

    out: Folder = Path("results")
    store: Folder | None = None
    data_root: Path | None = None
    download: bool = False
    address: str | None = None
    gpu_fraction: float | None = None
    workers: int | None = None
    inline: bool = False
    tracking_uri: str | None = None
    tracking: bool = True
    callbacks: Sequence[Any] = ()
    stop: Any = None

    def __post_init__(self) -> None:
        check_places(self)
        check_switches(self)
        check_amounts(self)
        if self.inline and (self.callbacks or self.stop is not None):
            raise InputError("callbacks and stop are for Ray Tune, which inline runs do without; leave out inline")
        if self.workers is not None and not self.on_this_machine:
            raise InputError("--workers is for this machine alone; on a cluster, resources.cpus says how many fit")
        check_tune(self)

    @classmethod
    def of(cls, **words: Any) -> RunOptions:
        """The same from words, as a notebook gives them: folders may be text. Raises InputError for unknown ones."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in words:
            if name not in known:
                raise InputError(f"option {name!r} is unknown; {close_names(name, known)}")
        texts = {name: folder_or_url(os.fspath(words[name])) for name in ("out", "store") if _is_path(words.get(name))}
        root = {"data_root": Path(words["data_root"])} if _is_path(words.get("data_root")) else {}
        return cls(**(words | texts | root))

    @classmethod
    def from_namespace(cls, given: argparse.Namespace) -> RunOptions:
        """What the words of a command say; those that a command does not have keep their defaults."""
        fields = {field.name for field in dataclasses.fields(cls)}
        words = {name: value for name, value in vars(given).items() if name in fields}
        return cls(**words)

    @property
    def cluster(self) -> str:
        """The address of Ray, or `local`."""
        return self.address or os.environ.get("RAY_ADDRESS") or "local"

    @property
    def on_this_machine(self) -> bool:
        """Whether no other machine takes part."""
        return self.inline or self.cluster == "local"

    @property
    def mlflow_uri(self) -> str | None:
        """The MLflow store that the user names; None leaves it to a file in the output folder."""
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))
