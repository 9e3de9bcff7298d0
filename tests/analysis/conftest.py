"""One known sweep, analysed once for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.reading.load import load_sweep
from analysis.report import Report, build_report
from analysis.results.analyse import Results, analyse
from tests.analysis.maker import write_sweep


@pytest.fixture(scope="session")
def known_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "known")


@pytest.fixture(scope="session")
def known(known_folder: Path) -> Results:
    return analyse(load_sweep(known_folder))


@pytest.fixture(scope="session")
def report(known_folder: Path) -> Report:
    return build_report(known_folder)
