"""Names that results on disk are found by: no change of the code may change them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.config.presets import preset_names, read_preset
from sweeps.config.spec import Sweep
from sweeps.planning.proposals import proposal_count
from sweeps.planning.tasks import Cell, ensemble_cells, members, methods_of, reference_cells, study_cells, trainings

FROZEN = json.loads((Path(__file__).parent / "frozen" / "cells.json").read_text())


def walked(sweep: Sweep, nowhere: Path) -> list[Cell]:
    """All cells of a sweep whose attacks all take, in the order of work."""
    cells: list[Cell] = []
    for reference in reference_cells(sweep):
        poison, models = trainings(sweep, reference)
        cells += [poison, *models, reference]
    ensembles = ensemble_cells(sweep, nowhere)
    return list(dict.fromkeys([*cells, *study_cells(sweep), *members(sweep, ensembles), *ensembles]))


def single_trials(sweep: Sweep) -> Iterator[Cell]:
    """The trials that studies may be split into, on a share of a GPU and on a whole one."""
    stages = [("tuning", seed) for seed in sweep.seeds.tuning]
    stages += [("confirmation", seed) for seed in sweep.seeds.confirmation]
    for study in study_cells(sweep):
        for proposal in range(proposal_count(sweep.search, methods_of(sweep, study))):
            for stage, seed in stages:
                trial = replace(study, proposal=proposal, stage=stage, seed=seed)
                yield from (trial, replace(trial, alone=True))


def digest(cells: list[Cell]) -> str:
    return hashlib.sha256("\n".join(f"{cell.name} {cell.folder}" for cell in cells).encode()).hexdigest()[:16]


def names_of(preset: str, nowhere: Path) -> dict[str, object]:
    sweep = Sweep.from_dict(read_preset(preset))
    cells, trials = walked(sweep, nowhere), list(single_trials(sweep))
    counts: dict[str, object] = {"cells": len(cells), "trials": len(trials)}
    return counts | {"digest of cells": digest(cells), "digest of trials": digest(trials)}


@pytest.mark.parametrize("preset", preset_names())
def test_names_and_folders_of_all_cells(preset: str, tmp_path: Path) -> None:
    assert names_of(preset, tmp_path) == FROZEN["all"][preset]


@pytest.mark.parametrize("preset", FROZEN["in full"])
def test_names_in_full_where_a_digest_would_not_show_what_changed(preset: str, tmp_path: Path) -> None:
    cells = walked(Sweep.from_dict(read_preset(preset)), tmp_path)
    assert [cell.name for cell in cells] == FROZEN["in full"][preset]
