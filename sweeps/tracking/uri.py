"""Where a sweep is mirrored to: the default store, and a quick check of any other. Never imports MLflow."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

SQLITE = "sqlite:///"
PATIENCE = 3.0  # seconds
SERVICES = ("databricks", "databricks-uc", "uc")  # those that MLflow knows besides its plugins
DATABASES = ("postgresql", "postgres", "mysql", "mssql")
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
LOCAL_SERVER = "http://127.0.0.1:5000"


def default_uri(out: Path) -> str:
    """The SQLite store of an output folder, `out/mlflow.db`; a folder that cannot be made is for `reachable` to say."""
    path = Path(out).resolve() / "mlflow.db"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite_uri(path)


def sqlite_uri(path: Path) -> str:
    """The URI of a database file, with what SQLAlchemy would take for something else written as it reads it back."""
    return SQLITE + str(path).replace("%", "%25").replace("?", "%3F")


def spare_proxies() -> None:
    """Nothing on this machine is asked for through a proxy, by this process and those that it starts."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [place for place in os.environ.get(name, "").split(",") if place]
        os.environ[name] = ",".join(dict.fromkeys([*known, *THIS_MACHINE]))


def reachable(tracking_uri: str) -> str | None:
    """None if the store answers, otherwise the reason in one line, after at most `PATIENCE` seconds or so."""
    spare_proxies()
    found: list[str | None] = []
    probe = threading.Thread(target=lambda: found.append(_problem(tracking_uri)), daemon=True)
    probe.start()  # a thread, because neither a name look-up nor a hanging network folder has a time limit
    probe.join(PATIENCE + 0.5)
    return found[0] if found else f"tracking store {without_secrets(tracking_uri)}: no answer in {PATIENCE:g} s"


@contextlib.contextmanager
def no_stray_folder(tracking_uri: str) -> Iterator[None]:
    """MLflow also makes the folder that it reads in the URI without decoding %25 and %3F: it is removed again."""
    misread = Path(tracking_uri.partition(":///")[2]).parent
    is_new = sqlite_path(tracking_uri) is not None and not misread.exists()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.removedirs(misread) if is_new else None


def artifact_root(tracking_uri: str) -> str | None:
    """The folder beside an SQLite store; None leaves the place to the server."""
    path = sqlite_path(tracking_uri)
    return (path.parent / "mlartifacts").as_uri() if path else None


def page(tracking_uri: str, experiment_id: str) -> str:
    """Address of the experiment's runs; for a database file, where a server started on this machine shows them."""
    parts = urlsplit(without_secrets(tracking_uri))
    shown = (
        f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}" if parts.scheme.startswith("http") else LOCAL_SERVER
    )
    return f"{shown}/#/experiments/{experiment_id}/runs"


def without_secrets(text: str) -> str:
    """`text` without user names, passwords and queries (`?token=...`) of its URLs and of paths that libraries name."""
    text = re.sub(r"://[^/\s]+@", "://", text)
    return re.sub(r"((?:://|\burl: )[^\s?]*)\?[^\s'\")]*", r"\1", text)


def shown_command(words: Iterable[str]) -> str:
    """A command to be kept and printed, ready for a shell, without the secrets of its URLs."""
    return shlex.join(_word_without_secrets(word) for word in words)


def _word_without_secrets(word: str) -> str:
    """Nothing before the last `@`, nothing behind a `?`; where those stand the wrong way round, nothing at all."""
    before, mark, rest = word.partition("://")
    if not mark or before.endswith("sqlite"):  # a database file has no secrets, but perhaps an @ in its folder
        return word
    head, *tail = re.split(r"[?#]", rest, maxsplit=1)
    return f"{before}://..." if tail and "@" in tail[0] else f"{before}://{head.rpartition('@')[2]}"


def _problem(tracking_uri: str) -> str | None:
    scheme = urlsplit(tracking_uri).scheme
    if scheme in ("http", "https"):
        return _http_problem(tracking_uri)
    if scheme.startswith("sqlite"):
        return _sqlite_problem(tracking_uri)
    if scheme in ("", "file"):
        return (
            f"tracking store {tracking_uri!r}: MLflow no longer writes to plain folders; use sqlite:///<path>/mlflow.db"
        )
    if scheme.partition("+")[0] in DATABASES:
        return (
            f"tracking store {scheme}://...: MLflow would keep attached files in a folder of its choice on this "
            "machine; write through a server (docs/tracking.md)"
        )
    if scheme not in (*SERVICES, *entry_points(group="mlflow.tracking_store").names):
        return (
            f"tracking store {scheme}://...: MLflow knows none of this kind; use sqlite:///<path>/mlflow.db or http://"
        )
    return None  # other services have no quick check


def _http_problem(tracking_uri: str) -> str | None:
    parts = urlsplit(tracking_uri)
    place = parts.netloc.rpartition("@")[2]
    try:
        _ = parts.port
    except ValueError:  # half of a password may stand there
        return "tracking server: the address is none; in a password write / as %2F, @ as %40, : as %3A"
    try:
        address = urlunsplit((parts.scheme, place, parts.path.rstrip("/") + "/health", "", ""))
        urllib.request.urlopen(address, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        if error.code == 403 or error.code >= 500:  # 401 and 404 come from proxies that guard or hide /health
            return f"tracking server {place} answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"tracking server {place} does not answer: {getattr(error, 'reason', error)}"
    return None


def _sqlite_problem(tracking_uri: str) -> str | None:
    path = sqlite_path(tracking_uri)
    if path is None:
        return f"tracking store {tracking_uri!r}: give a file, as in sqlite:////absolute/path/mlflow.db"
    if not path.parent.is_dir():
        return f"tracking store: there is no folder {path.parent}"
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            return f"tracking store: {place} cannot be written"
    return None


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of an SQLite store; None for any other."""
    scheme, _, rest = tracking_uri.partition(":///")
    path = unquote(rest.partition("?")[0])  # as SQLAlchemy does
    return Path(path).resolve() if scheme.startswith("sqlite") and path else None
