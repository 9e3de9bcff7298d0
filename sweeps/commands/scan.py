"""One setting varied, all others as in a base sweep: `python -P -m sweeps.commands.scan --study dimension`.

Each value is a separate sweep, so a scan is resumed, tracked and spread over a cluster as sweeps are, and the values
share the artifact store: what does not depend on the setting is trained once. `OUT/NAME/scan.json` lists them for
`python -P -m analysis.scan OUT/NAME`, which draws what corrupted model, oracle and methods have at each value.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.commands import run as run_verb
from sweeps.commands.errors import answered
from sweeps.commands.listing import print_list
from sweeps.commands.options import RunOptions
from sweeps.commands.reading import read_raw
from sweeps.config.labels import check_name
from sweeps.config.overrides import apply
from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from sweeps.launch import module_command
from sweeps.schema.digest import digest
from sweeps.storage.folders import on_this_machine
from sweeps.tracking.uri import shown_command
from unlearn_core.checks import InputError, one_of
from unlearn_core.host.output import run as run_command
from unlearn_core.host.parser import Parser

BASE = "gaussian-study"
NO_METHODS = ("methods=[]",)  # corrupted model and oracle only


class NamedScan(NamedTuple):
    """A scan that has a name. axis: what the figure calls the setting. changes: to its base, as for `--set`."""

    key: str
    values: tuple[str, ...]
    axis: str
    changes: tuple[str, ...] = ()


STUDIES = {
    "dimension": NamedScan("rows.side", ("26", "28", "30", "32"), "side of the images, pixels"),
    "forget-size": NamedScan("attacks.gaussian.fraction", ("0.015", "0.02", "0.025"), "share of poisoned rows"),
    "augmentation": NamedScan("recipe.augmentation", ("none", "flip", "crop", "flip_crop"), "augmentation", NO_METHODS),
    "clipping": NamedScan("attacks.gaussian.clip", ("false", "true"), "poisons clipped to valid pixels", NO_METHODS),
    "noise": NamedScan(
        "attacks.gaussian.epsilon", ("0.1", "0.2236", "0.3162", "0.5657", "1.0"), "deviation of the noise", NO_METHODS
    ),
}
"""The studies of Gaussian poisons. Noise variances 0.01, 0.05, 0.1, 0.32 and 1; the paper (arXiv:2406.17216) has 0.32,
images of 26 to 32 pixels, and 1.5, 2 and 2.5 % of the rows."""


class Scan(NamedTuple):
    """name: folder of the summary. points: (value as it was given, sweep), in folders that other scans may share."""

    name: str
    key: str
    axis: str
    points: list[tuple[str, Sweep]]


DOOR = "python -P -m sweeps.commands.scan"


def parser(prog: str = DOOR) -> Parser:
    """The options of the verb."""
    p = run_verb.parser(prog)
    p.description = "Vary one setting, all others as in a base sweep."
    p.epilog = f"example:\n  {prog} --study dimension --cpu --data-root DATA"
    vary = p.add_argument_group("what to vary")
    vary.add_argument("--study", help="a ready scan: " + ", ".join(STUDIES))
    vary.add_argument("--cpu", action="store_true", help=f"its base is {BASE}-cpu, for two cores, not {BASE}")
    vary.add_argument("--vary", metavar="KEY", help="any other setting, by the path that --set takes")
    vary.add_argument("--values", nargs="+", metavar="VALUE", help="values of the setting (default: the study's)")
    return p


def read_scan(options: argparse.Namespace) -> Scan:
    """The scan that the options describe; raises InputError for anything unknown or incomplete."""
    study = _study(options)
    _check_places(options)
    base = options.preset or (BASE + ("-cpu" if options.cpu else "") if options.study else "quick")
    raw = read_raw(options, lambda: read_preset(base))
    raw = raw | {"plugins": [*(raw.get("plugins") or []), *options.plugin]}
    stem = check_name("--name", options.name or _stem(options, study, options.config.stem if options.config else base))
    points = [_point(raw, stem, study, [*study.changes, *options.assignments], value) for value in study.values]
    twice = [sweep.name for _, sweep in points if sum(sweep.name == other.name for _, other in points) > 1]
    if twice:
        raise InputError(f"--values give {twice[0]!r} twice; list each value once")
    return Scan(_name(options, study, stem), study.key, study.axis, points)


def _check_places(options: argparse.Namespace) -> None:
    """Whether the results are where the analysis can read them."""
    on_this_machine(options.out, "--out of a scan")


def _study(options: argparse.Namespace) -> NamedScan:
    """What is varied: of the study, or of --vary and --values."""
    if bool(options.study) == bool(options.vary):
        raise InputError(f"give either --study ({', '.join(STUDIES)}) or --vary KEY --values VALUE ...")
    if options.cpu and (options.vary or options.preset or options.config):
        raise InputError("--cpu chooses the base of a --study; leave it out with --vary, --preset or --config")
    if options.study:
        one_of("--study", options.study, tuple(STUDIES))
        found = STUDIES[options.study]
        return found._replace(values=tuple(options.values or found.values))
    if not options.values:
        raise InputError("--vary needs --values VALUE ..., what the setting shall be")
    return NamedScan(options.vary, tuple(options.values), options.vary)


def _stem(options: argparse.Namespace, study: NamedScan, base: str) -> str:
    """What the names of the values begin with. Changed settings give another name, so results never mix."""
    if options.study and not options.preset and not options.config:
        name = options.study + ("-cpu" if options.cpu else "")
    else:
        name = f"{base}-{study.key.rpartition('.')[2]}"
    return f"{name}-{digest(options.assignments)[:8]}" if options.assignments else name


def _name(options: argparse.Namespace, study: NamedScan, stem: str) -> str:
    """Chosen values give a separate summary; a value has one folder, whichever scans show it."""
    chosen = options.vary or study.values != STUDIES[options.study].values
    return f"{stem}-{digest(study.values)[:8]}" if chosen and not options.name else stem


def _point(raw: dict[str, Any], name: str, study: NamedScan, changes: Sequence[str], value: str) -> tuple[str, Sweep]:
    label = f"{name}--" + (re.sub(r"[^A-Za-z0-9_.-]+", "-", value).strip("-") or "empty")
    changed = apply({"name": label} | raw, [*changes, f"{study.key}={value}"])
    return value, replace(Sweep.from_dict(changed), name=check_name("--values", label))


def write_scan(folder: Path, scan: Scan, command: str) -> None:
    """`scan.json`: what the analysis has to put side by side."""
    points = [{"value": value, "sweep": sweep.name} for value, sweep in scan.points]
    content = {"name": scan.name, "key": scan.key, "axis": scan.axis, "command": command, "points": points}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scan.json").write_text(json.dumps(content, indent=1))


def run(options: argparse.Namespace, command: str) -> int:
    """Every point, then the analysis; returns the exit code."""
    if options.list:
        print_list(options.plugin)
        return 0
    scan = read_scan(options)
    from sweeps.commands.scan_point import ScanPoint  # torch and pandas are loaded only once the words make sense

    run_options = RunOptions.from_namespace(options)
    points = [ScanPoint(sweep, run_options, command) for _, sweep in scan.points]
    if options.sync_mlflow:
        return max([point.mirror.sync() for point in points])
    for point in points:
        point.print_plan() if options.dry_run else point.check()
    if options.dry_run:
        return 0
    folder = options.out.resolve() / scan.name
    write_scan(folder, scan, command)
    failed = max([point.run().code for point in points])
    sys.stdout.flush()
    return subprocess.run(module_command("analysis.scan", str(folder))).returncode or failed


def main(argv: Sequence[str] | None = None, prog: str = DOOR) -> int:
    """Run the command; returns the exit code: 0 done, 1 some work failed, 2 bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = parser(prog).parse_args(words)
    return answered(lambda: run(options, shown_command([*prog.split(), *words])))


if __name__ == "__main__":
    sys.exit(run_command(main))
