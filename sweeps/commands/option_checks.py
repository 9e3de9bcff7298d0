"""Whether the options of a run are of the right kind: a notebook can give anything."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.execution.stop_bounds import check_stop
from sweeps.storage.folders import is_folder
from unlearn_core.checks import InputError, in_range, shown

if TYPE_CHECKING:
    from sweeps.commands.options import RunOptions


def check_places(options: RunOptions) -> None:
    """Raise InputError unless folders are folders and addresses are text."""
    out, store = options.out, options.store
    _check("out", out, is_folder(out), "a folder or s3:// URL")
    _check("store", store, store is None or is_folder(store), "a folder, s3:// URL or None")
    _check("data_root", options.data_root, isinstance(options.data_root, (Path, type(None))), "a folder or None")
    for name in ("address", "tracking_uri"):
        value = getattr(options, name)
        _check(name, value, isinstance(value, (str, type(None))), "text or None")


def check_switches(options: RunOptions) -> None:
    """Raise InputError unless every switch is a truth value: text such as "no" would count as true."""
    for name in ("download", "inline", "tracking"):
        value = getattr(options, name)
        _check(name, value, isinstance(value, bool), "True or False")


def check_amounts(options: RunOptions) -> None:
    """Raise InputError unless `workers` and `gpu_fraction` are numbers in their ranges, or None."""
    share, workers = options.gpu_fraction, options.workers
    if share is not None:
        _check("gpu_fraction", share, _is_number(share) and 0 < share <= 1, "above 0 and at most 1")
    if workers is not None:
        _check("workers", workers, _is_number(workers) and isinstance(workers, Integral), "a whole number")
        in_range("workers", workers, 1, 10**6)


def check_tune(options: RunOptions) -> None:
    """Raise InputError unless Tune understands callbacks and stop. Imports Ray only if there are callbacks."""
    if options.callbacks != ():
        _check_callbacks(options.callbacks)
    if options.stop is not None:
        check_stop(options.stop)


def _check_callbacks(callbacks: Any) -> None:
    wanted = "a list of ray.tune.Callback objects"
    _check("callbacks", callbacks, isinstance(callbacks, (list, tuple)), wanted)
    if callbacks:
        from sweeps.execution.tune_stop import is_callback

        _check("callbacks", callbacks, all(map(is_callback, callbacks)), wanted)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check(field: str, value: object, fits: bool, wanted: str) -> None:
    if not fits:
        raise InputError(f"{field} must be {wanted}, but got {shown(value)}")
