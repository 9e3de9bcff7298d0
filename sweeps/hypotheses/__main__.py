"""The command `python -P -m sweeps.hypotheses` (no arguments: handwritten digits, no files needed)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.commands.errors import answered
from sweeps.commands.reading import read_raw
from sweeps.config.labels import check_name
from sweeps.config.overrides import apply
from sweeps.execution.interruption import run_or_explain
from sweeps.hypotheses.spec import Hypotheses, preset_names, read_preset
from sweeps.launch import module_command
from sweeps.storage.folders import folder_or_url, on_this_machine
from unlearn_core.checks import InputError
from unlearn_core.host.output import run as run_command
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files

if TYPE_CHECKING:
    from sweeps.trials.scenario_cache import RunEnvironment

DESCRIPTION = """Test the reference paper's two hypotheses with exact minimisers on frozen features.

H1: removing poisons moves the minimiser further than removing clean rows. H2: gradient steps on clean rows are nearly
orthogonal to where the model has to go. Running the same command again does only what is missing."""


DOOR = "python -P -m sweeps.hypotheses"


def parser(prog: str = DOOR) -> Parser:
    """The options of the command."""
    p = Parser(prog, DESCRIPTION, f"{prog} --preset digits --set protocol.seeds=5")
    p.add_argument("--preset", help=f"one of {', '.join(preset_names())} (default: digits)")
    p.add_argument("--config", type=Path, metavar="FILE", help="a test of your own, in YAML like the presets")
    p.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE",
        help="change one setting, e.g. protocol.seeds=20 or attacks.gaussian.epsilon=0.5; may be repeated",
    )  # fmt: skip
    p.add_argument("--name", help="name of the results folder (default: that of the preset)")
    p.add_argument(
        "--out", type=folder_or_url, default=Path("results"), metavar="DIR", help="results (default: results)"
    )
    p.add_argument("--data-root", type=Path, metavar="DIR", help="folder with the data files")
    p.add_argument("--download", action="store_true", help="allow fetching missing data files into --data-root")
    return p


def main(argv: Sequence[str] | None = None, prog: str = DOOR) -> int:
    """Run the command; returns the exit code: 0 done, 2 bad input."""
    options = parser(prog).parse_args(argv)
    return answered(lambda: _run(options))


def read_hypotheses(options: argparse.Namespace) -> Hypotheses:
    """What the options describe."""
    raw = read_raw(options, lambda: read_preset(options.preset or "digits"))
    spec = Hypotheses.from_dict(apply(raw, options.assignments))
    return spec if options.name is None else spec._replace(name=check_name("--name", options.name))


@private_files()
def _run(options: argparse.Namespace) -> int:
    spec = read_hypotheses(options)
    folder = on_this_machine(options.out, "--out").resolve() / spec.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"--out {options.out} cannot be written: {problem.strerror}; choose another folder") from None
    _measure(spec, options, folder)
    sys.stdout.flush()
    return run_or_explain(module_command("analysis.hypotheses", str(folder)), "the report was not made")


def _measure(spec: Hypotheses, options: argparse.Namespace, folder: Path) -> None:
    """All attacks under all seeds, into `folder`/hypotheses.parquet and hypotheses.json."""
    import pandas as pd  # these take seconds, and only once the words make sense

    from sweeps.hypotheses.bench import HypothesisBench
    from sweeps.hypotheses.check import check_attacks
    from sweeps.trials.machine import code_version, describe_machine, versions
    from sweeps.trials.scenario_cache import RunEnvironment
    from unlearn_core.registry import ATTACKS

    place = RunEnvironment(options.out.resolve(), options.data_root, download=options.download)
    bench = HypothesisBench(spec, place)
    check_attacks(spec, bench.split[1])
    base = bench.base  # before others ask for the extractor
    rows = _side_by_side(spec, place)
    pd.DataFrame([row for label in spec.attacks for row in rows[label]]).to_parquet(
        folder / "hypotheses.parquet", index=False
    )
    facts = {
        "spec": spec.to_dict(),
        "rows": len(base.features.train),
        "features": base.extractor.width,
        "attacks": {label: ATTACKS.summary(attacked.name) for label, attacked in spec.attacks.items()},
        "primary": {label: attacked.settings.primary.metric for label, attacked in spec.attacks.items()},
        "versions": versions(),
        "code_version": code_version(),
        "machine": describe_machine("cpu", place.threads),
    }
    (folder / "hypotheses.json").write_text(json.dumps(facts, indent=1))


def _side_by_side(spec: Hypotheses, place: RunEnvironment) -> dict[str, list[dict[str, Any]]]:
    """The rows of every attack; as many attacks at a time as there are processors.

    The first error ends those that have not begun.
    """
    from sweeps.hypotheses.bench import attack_rows
    from sweeps.trials.machine import usable_cpus

    rows, start = {}, time.monotonic()
    with ProcessPoolExecutor(usable_cpus(), mp_context=get_context("spawn")) as workers:
        running = {workers.submit(attack_rows, spec.to_dict(), place, label): label for label in spec.attacks}
        try:
            for done in as_completed(running):
                rows[running[done]] = done.result()
                print(f"{running[done]}: done after {time.monotonic() - start:.0f} s", file=sys.stderr)
        except BaseException:  # interruptions, too: leaving the block would wait for all that are queued
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    return rows


if __name__ == "__main__":
    sys.exit(run_command(main))
