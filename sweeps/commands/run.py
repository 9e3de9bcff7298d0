"""Command line: arguments to a validated sweep, bad input to one clear line and exit code 2."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.commands.errors import answered
from sweeps.commands.listing import print_list
from sweeps.config.overrides import apply
from sweeps.config.presets import check_name, read_preset
from sweeps.config.spec import Sweep
from sweeps.config.strict_yaml import read_mapping
from sweeps.storage.folders import folder_or_url
from sweeps.tracking.uri import shown_command
from unlearn_core.checks import InputError
from unlearn_core.host.private import private_files

DESCRIPTION = """Poison, train, unlearn under compute budgets, and compare with retraining.

Without arguments: the embedded `quick` sweep on this machine. Running the same command again does only what is
missing. On the head of a running Ray cluster it uses the cluster."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="budget_sweep.py", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = p.add_argument_group("what to run")
    what.add_argument("--preset", help="a ready sweep, see --list (default: quick)")
    what.add_argument("--config", type=Path, metavar="FILE", help="a sweep of your own, in YAML like the presets")
    what.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE",
        help="change one setting, e.g. recipe.epochs=20 or attacks.gaussian.epsilon=0.5; may be repeated",
    )  # fmt: skip
    what.add_argument(
        "--plugin", action="append", default=[], metavar="PATH",
        help="a Python file with methods of your own (or an entry point of an installed package); it is executed",
    )  # fmt: skip
    what.add_argument("--name", help="name of the results folder (default: the preset's, with a hash after --set)")
    where = p.add_argument_group("where")
    where.add_argument(
        "--out", type=folder_or_url, default=folder_or_url("results"), metavar="DIR",
        help="results: a folder or s3://BUCKET/PREFIX (default: results)",
    )  # fmt: skip
    where.add_argument(
        "--store", type=folder_or_url, metavar="DIR", help="trained models and poisons (default: OUT/store)"
    )
    where.add_argument("--data-root", type=Path, metavar="DIR", help="folder with the data files")
    where.add_argument("--download", action="store_true", help="allow fetching missing data files into --data-root")
    where.add_argument("--address", help="Ray cluster to join (default: RAY_ADDRESS, else this machine alone)")
    where.add_argument(
        "--gpu-fraction", type=fraction, metavar="SHARE",
        help="share of a GPU for each trial (default: what its memory needs, measured at the start)",
    )  # fmt: skip
    where.add_argument(
        "--workers", type=count, metavar="N",
        help="trials at a time on this machine, at most (default: as many as the processors it may use allow)",
    )  # fmt: skip
    where.add_argument("--inline", action="store_true", help="run in this process, without Ray")
    tracking = p.add_argument_group("tracking")
    tracking.add_argument(
        "--tracking-uri", metavar="URI",
        help="MLflow store; logins belong in the environment (default: MLFLOW_TRACKING_URI, else a file in --out)",
    )  # fmt: skip
    tracking.add_argument("--no-tracking", action="store_true", help="do not mirror the records to MLflow")
    tracking.add_argument("--sync-mlflow", action="store_true", help="only send what MLflow is missing, then stop")
    look = p.add_argument_group("look before you run")
    look.add_argument("--dry-run", action="store_true", help="print the plan with its cost on this machine, then stop")
    look.add_argument("--list", action="store_true", help="presets, data sets, models, attacks, unlearners, metrics")
    p.add_argument("--resume", action="store_true", help="go on with an unfinished sweep (this is always done)")
    return p


def fraction(text: str) -> float:
    """A share of a GPU, above 0 and at most 1."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1, but got {text!r}")
    return share


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, but got {text!r}")
    return int(text)


def read_raw(options: argparse.Namespace, preset: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The settings in the file of --config, named after it, else those that `preset` reads."""
    if options.preset and options.config:
        raise InputError("--preset and --config both say what to run; give one of them")
    return {"name": options.config.stem} | read_mapping(options.config) if options.config else preset()


def read_sweep(options: argparse.Namespace) -> Sweep:
    """The sweep that the options describe. Changed settings give it a name of its own, so results never mix."""
    raw = read_raw(options, lambda: read_preset(options.preset or "quick"))
    if options.plugin:
        raw = raw | {"plugins": [*(raw.get("plugins") or []), *options.plugin]}
    sweep = Sweep.from_dict(apply(raw, options.assignments))
    if options.name is not None:
        return replace(sweep, name=check_name("--name", options.name))
    if options.assignments and _changed(sweep, raw):
        return replace(sweep, name=check_name("name", f"{sweep.name}-{sweep.identity()[:8]}"))
    return sweep


def _changed(sweep: Sweep, raw: dict[str, Any]) -> bool:
    """Whether the sweep differs from what `raw` alone says (which may be nothing complete)."""
    try:
        return sweep.identity() != Sweep.from_dict(raw).identity()
    except InputError:
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 some work failed, 2 bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    return answered(lambda: _run(options, arguments))


@private_files()
def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    if options.list:
        print_list(options.plugin)
        return 0
    sweep = read_sweep(options)
    from sweeps.commands.driver import Driver  # torch and pandas are loaded only once the words make sense

    command = shown_command(["python", "sweeps/budget_sweep.py", *arguments])
    driver = Driver(sweep, options, command)
    if options.sync_mlflow:
        return driver.sync_tracking()
    if options.dry_run:
        driver.print_plan()
        return 0
    return driver.run()
