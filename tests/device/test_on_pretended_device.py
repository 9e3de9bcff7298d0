"""Everything that a GPU would run, on one that is not there: see `pretended`.

The tests in `on_*.py` and those marked `gpu` run in processes of their own, as the pretended device changes torch for
the rest of a process. `on_mistakes.py` is the proof that these tests can fail.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.device.pretended import TRIED_WITH

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
AT_ONCE = 2  # processes; each keeps one core busy
OPTIONS = ["-p", "tests.device.plugin", "-p", "no:cacheprovider", "-o", "timeout=600", "--tb=short", "-q"]
RUNS = {
    "device, trainings, mistakes": ["on_device.py", "on_trainings.py", "on_mistakes.py"],
    "sweeps": ["on_sweeps.py"],
    "unlearners": ["on_unlearners.py"],
    "attacks": ["on_attacks.py"],
}
MARKED = "tests marked gpu"
Output = subprocess.CompletedProcess[str]


def test_the_device_was_tried_with_the_torch_of_the_lock():
    """It rests on what torch calls experimental, so a new torch has to be tried; the runs below are skipped till then.
    Once they pass with it, say so in TRIED_WITH."""
    (locked,) = re.findall(r"^torch==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked == TRIED_WITH, f"requirements.lock has torch {locked}: try it with the tests of this file"


def test_every_file_is_run():
    assert sorted(name for names in RUNS.values() for name in names) == sorted(p.name for p in HERE.glob("on_*.py"))


def test_files_with_tests_for_a_gpu_are_found():
    assert marked_files()


def marked_files() -> list[str]:
    """Files of tests that ask for a GPU by their mark."""
    files = (ROOT / "tests").rglob("test_*.py")
    return sorted(str(path) for path in files if path != Path(__file__) and "mark.gpu" in path.read_text())


@pytest.fixture(scope="module")
def outputs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Output]]]:
    """What pytest says of each run that is asked for; all are begun, a few at a time."""
    commands = {name: ["-m", "", *(str(HERE / file) for file in files)] for name, files in RUNS.items()}
    commands[MARKED] = ["-m", "gpu", *marked_files()]
    own = test_on_the_pretended_device.__name__
    runs = [item for item in request.session.items if getattr(item, "originalname", "") == own]
    names = [item.callspec.params["name"] for item in runs]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run, [*OPTIONS, *commands[name]]) for name in names}


def run(arguments: list[str]) -> Output:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    torch.__version__.split("+")[0] != TRIED_WITH,
    reason=f"the pretended device was tried with torch {TRIED_WITH} alone; this is {torch.__version__}",
)
@pytest.mark.parametrize("name", [*RUNS, MARKED])
def test_on_the_pretended_device(name, outputs):
    done = outputs[name].result()
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert re.search(r"\d+ passed", done.stdout)
