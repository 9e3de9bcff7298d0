"""The data of a sweep as its folder knows it: shown, and compared with what the files give now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from sweeps.planning.manifest import DataFacts
from sweeps.schema.digest import digest
from sweeps.storage.base import PART
from sweeps.storage.folders import at
from sweeps.storage.manifest import NAME, read_manifest
from sweeps.storage.record_log import first_without
from sweeps.trials.scenario_cache import ScenarioCache
from unlearn_core.checks import InputError
from unlearn_core.datasets.card import DataCard, differences, printable
from unlearn_core.datasets.loading import MeaninglessDataError
from unlearn_core.types import Dataset


def facts_of(dataset: Dataset) -> DataFacts:
    """What the sweep's folder keeps of its data."""
    return DataFacts(dataset.digest, dataset.card.to_dict() if dataset.card else None)


def show_card(dataset: Dataset, file: TextIO) -> None:
    """The card as lines in `file`, and its warnings on stderr."""
    for line in dataset.card.lines() if dataset.card else ():
        print(line, file=file)
    warn(dataset)


def warn(dataset: Dataset) -> None:
    """Print the warnings of the data card to stderr."""
    for note in dataset.card.warnings if dataset.card else ():
        print(f"warning: data: {printable(str(note))}", file=sys.stderr)


def check_same(work: ScenarioCache, dataset: Dataset, sweep_dir: Path) -> None:
    """Records that are there must come from this data; raises InputError naming what changed, or what is foreign."""
    groups = {digest(work.sweep.group(attack, dataset.digest)) for attack in work.sweep.attacks}
    strange = _strangers(sweep_dir, groups)
    if strange and _data_before(sweep_dir) == dataset.digest:
        raise InputError(f"{strange[0]} is a trial of another sweep; take the file out of {sweep_dir / 'records'}")
    if strange:
        raise InputError(
            f"{sweep_dir} holds trials on other data than data set {dataset.name!r} now gives"
            f"{_changed(sweep_dir, dataset)}; restore the files, or give this sweep another --name or --out"
        )


def _strangers(sweep_dir: Path, groups: set[str]) -> list[str]:
    """Where trials of other scenario groups stand, the first of each file."""
    records = sweep_dir / "records"
    found = {name: first_without(records / name, groups) for name, _ in at(records).files(PART, levels=2)}
    return [f"{records / name}, line {number}," for name, number in found.items() if number]


def _data_before(sweep_dir: Path) -> str | None:
    """The digest of the data that the sweep was begun on, if that is known."""
    manifest = read_manifest(sweep_dir) if (sweep_dir / NAME).exists() else {}
    return manifest.get("data")


def _changed(sweep_dir: Path, dataset: Dataset) -> str:
    """In brackets, as far as the card in `sweep.json` tells; older ones have none."""
    manifest = read_manifest(sweep_dir) if (sweep_dir / NAME).exists() else {}
    before: dict[str, Any] | None = manifest.get("card")
    if not before or dataset.card is None:
        return ""
    found = differences(DataCard.from_dict(before), dataset.card)
    return f" ({printable('; '.join(found[:3]) or 'the same rows and classes, but other content')})"


def check_finished(work: ScenarioCache, sweep_dir: Path) -> DataFacts | None:
    """The data of a sweep with nothing left to do; None, and a note, if its files are no longer there.

    Raises:
        InputError: If they are there and give other data, or cannot be read.
    """
    try:
        dataset = work.dataset
    except MeaninglessDataError as problem:  # results from before such data was refused can still be looked at
        check_same(work, problem.dataset, sweep_dir)
        print(f"warning: {problem}", file=sys.stderr)
        return facts_of(problem.dataset)
    except InputError as problem:
        if _files_there(work):
            raise InputError(f"the data that {sweep_dir} was made from has changed: {problem}") from None
        print(f"note: whether the data is still the same was not checked: {problem}", file=sys.stderr)
        return None
    check_same(work, dataset, sweep_dir)
    warn(dataset)
    return facts_of(dataset)


def _files_there(work: ScenarioCache) -> bool:
    """Whether the file or folder that the data set names is there; one without a name cannot be asked."""
    path = getattr(work.sweep.dataset[1], "path", "")
    return bool(path) and ((work.place.data_root or Path()) / Path(path).expanduser()).exists()
