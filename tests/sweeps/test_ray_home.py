"""The private folder of a local Ray, who clears it up, and how it is seen that Ray is gone. Starts no Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.execution import ray_home
from sweeps.execution.ray_home import (
    MARK,
    PREFIX,
    SOCKET_LIMIT,
    clear_stale,
    fitting_places,
    kept,
    private_home,
    processes_of,
)
from sweeps.execution.ray_watchdog import LocalRay
from tests.sweeps.tiny import ROOT
from unlearn_core.checks import InputError

SESSION = "session_2026-11-30_12-31-45_756008_4194304/sockets/plasma_store"
OWNER = """
import os, subprocess, sys, time
from sweeps.execution.ray_home import kept, private_home
with private_home() as home, kept("these are the last words"):
    os.mkdir(home)
    quiet = subprocess.DEVNULL
    agent = subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=quiet, stderr=quiet)
    print(home, agent.pid, flush=True)
    sys.stdin.readline()
"""
WATCHED = """
import sys, threading, time
from sweeps.execution import ray_watchdog
ray_watchdog.PERIOD, ray_watchdog.SILENCE, ray_watchdog.GRACE = 0.05, 0.5, 0.5
def silent():
    time.sleep(600)
def refusing():
    raise ConnectionError
alive = {"dead": lambda: False, "silent": silent, "refusing": refusing, "well": lambda: True}[sys.argv[1]]
dog = ray_watchdog.Watchdog(alive, "error: gone", lambda: None)
with dog.watching():
    time.sleep(2 if sys.argv[1] == "well" else 600)
print("the end")
"""


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short name, in which nothing else is."""
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"TMPDIR": tempfile.gettempdir()},
    )  # fmt: skip


def test_nobody_else_gets_into_the_folder_and_nothing_of_it_stays(place: Path) -> None:
    with private_home() as home:
        folder = Path(home).parent
        assert folder.parent == place
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(os.fsencode(f"{home}/{SESSION}")) <= SOCKET_LIMIT
        assert os.environ[MARK] == str(folder)
        (folder / "r" / "session" / "logs").mkdir(parents=True)
    assert MARK not in os.environ
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 60, "ordner-für-mich", "shared", "file", "absent"])
def test_where_sockets_cannot_be_or_others_could_rename_them_another_folder_is_taken(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = place / name
    if name == "file":
        bad.touch()
    elif name != "absent":
        bad.mkdir()
    if name == "shared":
        bad.chmod(0o777)
    for setting in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(setting, str(bad))
        monkeypatch.setattr(tempfile, "tempdir", str(bad))
        assert fitting_places()[0] == Path("/tmp")
    monkeypatch.setattr(ray_home, "EVERYWHERE", ())
    with pytest.raises(InputError, match="at most 26 bytes of ASCII.*set RAY_TMPDIR to it, or use --inline"):
        fitting_places()


def test_the_users_choice_comes_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "mine").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(place / "mine"))
    assert fitting_places()[0] == place / "mine"


def test_what_killed_processes_left_goes_and_what_others_use_stays(place: Path) -> None:
    stale, foreign, link = (place / f"{PREFIX}{name}" for name in ("stale", "foreign", "link"))
    (stale / "r" / "logs").mkdir(parents=True)
    foreign.mkdir()
    if os.geteuid() == 0:
        os.chown(foreign, 12345, 12345)
    (place / "precious").mkdir()
    link.symlink_to(place / "precious")
    with private_home() as used:
        other = run(
            "from pathlib import Path\nfrom sweeps.execution.ray_home import *\n" + f"clear_stale(Path({str(place)!r}))"
        )
        assert other.communicate(timeout=60)[1] == ""
        assert Path(used).parent.exists()
        assert not stale.exists()
        assert (place / "precious").exists() and link.is_symlink()
        assert foreign.exists() == (os.geteuid() == 0)


def test_the_next_start_ends_processes_that_a_killed_one_and_its_keeper_left(place: Path) -> None:
    folder = place / f"{PREFIX}stale"
    folder.mkdir()
    agent = subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: str(folder)})
    until(lambda: processes_of(folder) == [agent.pid])
    clear_stale(place)
    assert agent.wait(10) == -signal.SIGKILL
    assert not folder.exists()


def test_processes_that_have_lost_the_mark_are_ended_too(place: Path) -> None:
    folder = place / f"{PREFIX}stale"
    folder.mkdir()
    with open(folder / "log", "w") as log:
        agent = subprocess.Popen(["sleep", "600"], pass_fds=[log.fileno()])
    reader = subprocess.Popen(["tail", "-f", folder / "log"], stdout=subprocess.DEVNULL)
    clear_stale(place)
    assert agent.wait(10) == -signal.SIGKILL
    assert reader.poll() is None
    reader.kill()
    reader.wait()


def test_who_uses_a_folder_is_not_taken_for_one_of_its_processes(place: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom sweeps.execution.ray_home import private_home\n"
    code += "with private_home() as home:"
    code += "\n log = open(Path(home).parent / 'log', 'w')\n print(home, flush=True)\n sys.stdin.read()"
    with run(code) as user:
        assert user.stdout is not None
        folder = Path(user.stdout.readline().strip()).parent
        assert processes_of(folder) == []
        user.communicate(timeout=60)
    assert not folder.exists()


def ended(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def test_after_a_kill_the_keeper_speaks_and_clears_up(place: Path) -> None:
    process = run(OWNER)
    assert process.stdout is not None and process.stderr is not None
    home, agent = process.stdout.readline().split()
    process.kill()
    assert process.stderr.read() == "these are the last words\n"
    until(lambda: ended(int(agent)) and not Path(home).parent.exists())


@pytest.mark.parametrize("keeper_killed", [False, True])
def test_after_a_good_end_the_keeper_is_silent(place: Path, keeper_killed: bool) -> None:
    process = run(OWNER)
    assert process.stdout is not None
    home, agent = process.stdout.readline().split()
    if keeper_killed:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (keeper,) = (int(pid) for pid in children if b"ray_keeper" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(keeper, signal.SIGKILL)
    assert process.communicate("\n", timeout=60)[1] == ""
    assert process.returncode == 0
    assert ended(int(agent)) and not Path(home).parent.exists()


def test_a_keeper_outlives_signals_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with kept("last words") as dismiss:
        dismiss()
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("ray", ["dead", "silent", "refusing"])
def test_a_command_that_waits_for_a_ray_that_is_gone_is_ended_with_a_word(ray: str) -> None:
    process = run(WATCHED, ray)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (1, "", "error: gone\n")


@pytest.mark.slow
def test_a_command_whose_ray_is_well_goes_on() -> None:
    process = run(WATCHED, "well")
    assert process.communicate(timeout=60) == ("the end\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("program", ["raylet", "gcs_server"])
def test_a_local_ray_is_gone_once_one_of_its_programs_is(tmp_path: Path, program: str) -> None:
    shutil.copy(shutil.which("sleep") or "", tmp_path / program)
    ray = LocalRay()
    assert ray.lives()  # not started yet
    process = subprocess.Popen([tmp_path / program, "600"])
    until(lambda: b"600" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
    assert ray.lives()
    process.kill()
    until(lambda: ended(process.pid))
    assert not ray.lives()
    assert not LocalRay().lives()  # also if it was not looked at before
    process.wait()
    assert not ray.lives()
