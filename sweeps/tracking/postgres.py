"""A PostgreSQL of its own in a folder, from the programs of Debian's package; no other database is touched.

It listens on a socket inside its folder and on no port. The role that uses the database is not its administrator; its
password is random and exists in one file that only the user who made it can read, in the format of libpq (PGPASSFILE).
PostgreSQL refuses to run as root: for root it runs as `postgres`, the user that Debian's package brings.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unlearn_core.checks import InputError

ROLE = "mlflow"  # and the database it owns
OWNER = "postgres"
VERSIONS = Path("/usr/lib/postgresql")
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/tracking-server.conf")
PATIENCE = 60  # seconds to start and to stop
REMAINS = 10.0  # seconds
SOCKET_LIMIT = 107  # bytes in the path of a socket on Linux
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '.'
unix_socket_permissions = 0700
"""
ACCESS = """\
local all {owner} peer
local {role} {role} scram-sha-256
"""
ROLE_AND_DATABASE = """\
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SELECT 'CREATE ROLE {role} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec
ALTER ROLE {role} PASSWORD '{password}';
SELECT 'CREATE DATABASE {role} OWNER {role}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{role}') \\gexec
"""


class Postgres:
    """The database in `folder`, which is made if missing, with its password in the file `password`."""

    def __init__(self, folder: Path, password: Path) -> None:
        self.folder, self.password = folder, password
        self.owner = OWNER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if len(os.fsencode(folder / ".s.PGSQL.5432")) > SOCKET_LIMIT:
            raise InputError(f"{folder} is too long a name for the socket in it; choose a folder nearer to the root")

    @property
    def uri(self) -> str:
        """Without the password: whoever may read its file names that in PGPASSFILE."""
        return f"postgresql+psycopg://{ROLE}@/{ROLE}?host={quote(str(self.folder))}"

    def start(self) -> None:
        """Make what is missing and start what is stopped. Raises InputError if that cannot be done."""
        programs = self._programs()
        if not self.folder.exists():
            self._create(programs)
        self._start(programs)
        sql = ROLE_AND_DATABASE.format(role=ROLE, password=self._password())
        options = ["-X", "-q", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", self.owner, "-d", "postgres"]
        self._call([programs / "psql", *options], sql)

    def stop(self) -> None:
        if self.runs():
            self._call([self._programs() / "pg_ctl", "stop", "-m", "fast", "-t", PATIENCE, "-D", self.folder])

    def runs(self) -> bool:
        """Whether it takes connections."""
        if not self.folder.exists():
            return False
        return self._run([self._programs() / "pg_isready", "-q", "-h", self.folder]).returncode == 0

    def version(self) -> str:
        return (self.folder / "PG_VERSION").read_text().strip()

    def _programs(self) -> Path:
        """Folder of the programs, of the version that made the data if there is some, otherwise of the newest."""
        wanted = self.version() if self.folder.exists() else "*"
        found = [path.parent for path in VERSIONS.glob(f"{wanted}/bin/initdb")]
        if not found:
            what = "PostgreSQL" if wanted == "*" else f"PostgreSQL {wanted}, which made {self.folder},"
            raise InputError(f"{what} is not installed; install Debian's package postgresql (as root: --install)")
        return max(found, key=lambda path: float(path.parent.name))

    def _start(self, programs: Path) -> None:
        """Again for some seconds: after a crash the remains of its processes hold the data until they have noticed."""
        end, log = time.monotonic() + REMAINS, self.folder / "server.log"
        while not self.runs():
            try:
                self._call([programs / "pg_ctl", "start", "-w", "-t", PATIENCE, "-D", self.folder, "-l", log])
            except InputError as error:
                if time.monotonic() > end:
                    raise InputError(f"{error}; the reason is in {log}") from None
                time.sleep(0.5)

    def _create(self, programs: Path) -> None:
        """Beside its place, then moved there: a folder that exists is complete."""
        new, user = self.folder.with_name(self.folder.name + ".new"), _user(self.owner)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        os.chown(new, user.pw_uid, user.pw_gid)
        options = ["--encoding=UTF8", "--locale=C.UTF-8", f"--username={self.owner}", "--auth=peer", "--data-checksums"]
        self._call([programs / "initdb", *options, "-D", new])
        with open(new / "postgresql.conf", "a") as settings:
            settings.write(SETTINGS)
        (new / "pg_hba.conf").write_text(ACCESS.format(owner=self.owner, role=ROLE))
        new.rename(self.folder)

    def _password(self) -> str:
        """From its file, which is made if missing."""
        if not self.password.exists():
            with open(self.password, "w", opener=lambda path, flags: os.open(path, flags | os.O_EXCL, 0o600)) as file:
                file.write(f"*:*:{ROLE}:{ROLE}:{secrets.token_urlsafe(32)}\n")
        found = re.fullmatch(rf"\*:\*:{ROLE}:{ROLE}:([\w-]+)\n", self.password.read_text())
        if not found:
            raise InputError(f"{self.password} is not as it was made; delete it to get a new password")
        return found[1]

    def _call(self, command: Sequence[object], text: str = "") -> None:
        done = self._run(command, text)
        if done.returncode:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no reason given"]
            raise InputError(f"{Path(str(command[0])).name} failed in {self.folder.parent}: {lines[0].strip()}")

    def _run(self, command: Sequence[object], text: str = "") -> subprocess.CompletedProcess[str]:
        words, options = list(map(str, command)), dict[str, Any]()
        if os.geteuid() == 0:
            user = _user(self.owner)
            groups = os.getgrouplist(self.owner, user.pw_gid)
            options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}
        return subprocess.run(
            words, input=text, capture_output=True, text=True, cwd=self.folder.parent,
            env=environment() | {"LC_ALL": "C"}, **options,
        )  # fmt: skip


def install() -> None:
    """Debian's package, without the database that it would create and start by itself. Raises InputError."""
    if os.geteuid() != 0:
        raise InputError("--install needs root; without it, ask for Debian's package postgresql")
    if not shutil.which("apt-get"):
        raise InputError("--install needs Debian's apt-get; install PostgreSQL as your system does")
    if not NO_CLUSTER.exists():
        NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        NO_CLUSTER.write_text("create_main_cluster = false\n")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run(["apt-get", "-qq", *words], capture_output=True, text=True, env=quiet)
        if done.returncode:
            raise InputError(
                f"apt-get {words[0]} failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
            )


def environment() -> dict[str, str]:
    """That of this process without settings for other databases, which libpq reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise InputError(f"there is no user {name!r}; Debian's package postgresql makes it (--install)") from None
