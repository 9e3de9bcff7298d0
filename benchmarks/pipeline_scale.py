"""Overhead per trial from a thousand trials to a hundred thousand: `python -m benchmarks.pipeline_scale`.

Runs sweeps of unlearners that do next to nothing (`nudge_methods.py`) on a linear model of 200 small images through the
whole pipeline and prints, by phase, what a trial costs at each size, and the most memory of the process that is no
worker. Each phase runs in a process of its own. What does not grow with the trials (starting Ray, the first figure) is
measured on a sweep of one study and told apart. The search draws at random: what a model of the history costs depends
on the trials of a study, not on their number in all. The largest size takes about 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
PER_STUDY = 100  # trials: 98 proposals on one tuning scenario, and the best of them on two confirmation scenarios
METHODS = 10
PHASES = ("plan", "trials", "resume", "status", "compact", "report", "export")
WHAT = {
    "plan": "`--dry-run`",
    "trials": "trials: schedule, search, evaluation, records",
    "resume": "the same command again: what is missing?",
    "status": "`python -P -m sweeps status`",
    "compact": "compaction to `records.parquet`",
    "report": "analysis: load, tables, figures, page",
    "export": "`python -P -m sweeps export`",
}


class Cost(NamedTuple):
    """Of a phase, without imports: seconds by the clock and of this process alone, and its largest resident memory."""

    wall: float
    cpu: float
    megabytes: float


class Run(NamedTuple):
    """A sweep that went through all phases. trials: that it recorded, references included."""

    trials: int
    costs: Mapping[str, Cost]


def settings(
    studies: int, sampler: str = "random", *, rates: Sequence[float] = (1.0,), methods: int = METHODS
) -> dict[str, Any]:
    """A sweep of so many studies at each discovery rate."""
    methods = min(methods, studies)
    patches = [{"name": "badnets", "label": f"patch{i:03d}", "fraction": 0.1, "size": 2, "value": 1 - i / 1000}
               for i in range(studies // methods)]  # fmt: skip
    return {
        "name": "scale",
        "plugins": [str(Path(__file__).with_name("nudge_methods.py"))],
        "dataset": {"name": "digits", "size": 8},
        "rows": {"train_rows": 200, "held_out_rows": 120},
        "model": "linear",
        "recipe": {"epochs": 6, "batch_size": 50, "lr": 0.05},
        "attacks": patches,
        "methods": [f"nudge{i:02d}" for i in range(methods)],
        "discovery_rates": list(rates),
        "budgets": [0.2],
        "search": {"trials": PER_STUDY - 2, "sampler": sampler},
        "seeds": {"tuning": [0], "confirmation": [1, 2]},
    }


def write_config(folder: Path, content: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(dict(content)))
    return path


def prepared(phase: str, config: Path, inline: bool) -> Callable[[], object]:
    """What a phase does, with everything imported that it needs."""
    from sweeps.commands.export import export
    from sweeps.commands.options import RunOptions
    from sweeps.commands.reading import read_sweep
    from sweeps.commands.run import parser
    from sweeps.commands.status import status_lines
    from sweeps.storage.local_copy import LocalCopy
    from sweeps.storage.table import compact

    folder = config.parent / "scale"
    if phase == "compact":
        return lambda: compact(folder)
    if phase == "status":
        return lambda: status_lines(LocalCopy(folder))
    if phase == "export":
        return lambda: export(folder)
    if phase == "report":
        from analysis.report import build_report

        return lambda: build_report(folder)
    from sweeps.commands.driver import Driver

    class WithoutReport(Driver):
        def _report(self) -> int:
            return 0

    words = ["--config", str(config), "--out", str(config.parent), "--no-tracking", *(["--inline"] if inline else [])]
    options = parser().parse_args(words)
    driver = WithoutReport(read_sweep(options), RunOptions.from_namespace(options), "benchmark")
    return driver.print_plan if phase == "plan" else lambda: driver.run().code


def child(phase: str, config: Path, inline: bool) -> None:
    """Do a phase in this process and print its cost."""
    work = prepared(phase, config, inline)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        wall, cpu = time.perf_counter(), time.process_time()
        code = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if code == 1:
        raise SystemExit(f"{phase} failed")
    print(json.dumps(Cost(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))


def cost_of(phase: str, config: Path, inline: bool) -> Cost:
    """Of a phase in a process of its own. Raises RuntimeError if it fails."""
    command = [sys.executable, "-m", "benchmarks.pipeline_scale", "--child", phase, "--config", str(config)]
    done = subprocess.run([*command, *(["--inline"] if inline else [])], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{phase}: {done.stderr.strip()[-2000:]}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def measured(studies: int, folder: Path, inline: bool, sampler: str) -> Run:
    """All phases of a sweep. Raises RuntimeError if it does not have the trials that it should."""
    config = write_config(folder, settings(studies, sampler))
    costs = {}
    for phase in PHASES:
        costs[phase] = cost_of(phase, config, inline)
        wall, cpu, megabytes = costs[phase]
        told = f"{wall:.1f} s, {cpu:.1f} s of CPU, {megabytes:.0f} MB"
        print(f"{studies} studies, {phase}: {told}", file=sys.stderr, flush=True)
    found = sum(path.read_bytes().count(b"\n") for path in folder.glob("scale/records/*nudge*/*.jsonl"))
    if found != studies * PER_STUDY:
        raise RuntimeError(f"{found} trials instead of {studies * PER_STUDY}: the attack did not take everywhere")
    return Run(found, costs)


def seconds(run: Run, phase: str, clock: str) -> float:
    return float(getattr(run.costs[phase], clock))


def per_trial(run: Run, base: Run, phase: str, clock: str) -> float:
    """Milliseconds that each further trial takes beyond the base."""
    return 1000 * (seconds(run, phase, clock) - seconds(base, phase, clock)) / (run.trials - base.trials)


def table(base: Run, runs: Sequence[Run], clock: str) -> Iterator[str]:
    """Markdown."""
    sizes = [f"{run.trials:,}" for run in runs]
    yield "| phase | fixed, s | " + " | ".join(f"ms at {size}" for size in sizes) + " | growth | MB |"
    yield "|---|" + "---|" * (len(runs) + 3)
    for phase in PHASES:
        each, most = [per_trial(run, base, phase, clock) for run in runs], runs[-1].costs[phase].megabytes
        yield line(WHAT[phase], seconds(base, phase, clock), each, f"{most:,.0f}")
    fixed = sum(seconds(base, phase, clock) for phase in PHASES)
    whole = [sum(per_trial(run, base, phase, clock) for phase in PHASES) for run in runs]
    yield line("all", fixed, whole, f"{max(cost.megabytes for cost in runs[-1].costs.values()):,.0f}")


def line(name: str, fixed: float, each: Sequence[float], most: str) -> str:
    growth = f"{each[-1] / each[0]:.2f}" if each[0] > 0.005 else ""
    return " | ".join([f"| {name}", f"{fixed:.1f}", *(f"{ms:.2f}" for ms in each), growth, f"{most} |"])


def planned(folder: Path) -> tuple[float, int]:
    """Wall seconds of the command `--dry-run` on a sweep of a million trials, and how many it tells."""
    config = write_config(folder, settings(2000, rates=(1.0, 0.8, 0.6, 0.4, 0.2), methods=20))
    command = [sys.executable, "sweeps/budget_sweep.py", "--dry-run", "--config", str(config), "--out", str(folder)]
    start = time.perf_counter()
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (trials,) = (int(words.split()[3].rstrip(",")) for words in told.splitlines() if words.startswith("trials "))
    return time.perf_counter() - start, trials


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="trials, times 100")
    parser.add_argument(
        "--sampler", choices=("random", "tpe"), default="random", help="what tpe costs depends on studies"
    )
    parser.add_argument("--inline", action="store_true", help="in one process, without Ray")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: of the driver's process, where others are at work",
    )
    parser.add_argument("--out", type=Path, help="folder that is kept (default: a temporary one)")
    parser.add_argument("--no-plan", action="store_true", help="without the plan of a million trials")
    parser.add_argument("--child", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.config, options.inline)
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out.resolve() if options.out else Path(temporary)
        counts = [size // PER_STUDY for size in options.sizes]
        base, *runs = (measured(n, out / str(n), options.inline, options.sampler) for n in [1, *counts])
        print("\n".join(table(base, runs, options.clock)))
        if not options.no_plan:
            wall, trials = planned(out / "plan")
            print(f"\n`--dry-run` of {trials:,} trials: {wall:.1f} s")


if __name__ == "__main__":
    main()
