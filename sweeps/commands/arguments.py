"""The options of the verbs."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from sweeps.storage.folders import folder_or_url


def add_plugins(to: argparse._ActionsContainer) -> None:
    """Add `--plugin`."""
    to.add_argument(
        "--plugin", action="append", default=[], metavar="PATH",
        help="a Python file with methods of your own (or an entry point of an installed package); it is executed",
    )  # fmt: skip


def add_settings(p: argparse.ArgumentParser) -> None:
    """What to run."""
    what = p.add_argument_group("what to run")
    what.add_argument("--preset", help="a ready sweep, see `unlearn list presets` (default: quick)")
    what.add_argument("--config", type=Path, metavar="FILE", help="a sweep of your own, in YAML like the presets")
    what.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE",
        help="change one setting, e.g. recipe.epochs=20 or attacks.gaussian.epsilon=0.5; may be repeated",
    )  # fmt: skip
    add_plugins(what)
    what.add_argument("--name", help="name of the results folder (default: the preset's, with a hash after --set)")


def add_places(p: argparse.ArgumentParser) -> None:
    """Where files are and where work is done."""
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


def add_tracking_uri(to: argparse._ActionsContainer) -> None:
    """Add `--tracking-uri`."""
    to.add_argument(
        "--tracking-uri", metavar="URI",
        help="MLflow store; logins belong in the environment (default: MLFLOW_TRACKING_URI, else a file beside the "
        "sweep)",
    )  # fmt: skip


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
