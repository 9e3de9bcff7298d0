"""A real S3 API on this machine, for tests: the moto server, in a thread of this process."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sweeps.storage.s3 import S3Path, s3

KEY_ID, SECRET = "AKIAQ5TESTKEYID7", "wJalrXUtnFEMIsecretK7MDENGbPxRfiCY"


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Address of the server."""
    pytest.importorskip("s3fs", reason="no s3fs: the extra s3 is not installed")
    server = pytest.importorskip("moto.server", reason="no moto: there is no S3 API to test with")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Path:
    """A new bucket; this process and those that it starts find it as they would find one of S3."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = {"ENDPOINT_URL_S3": endpoint, "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}
    settings |= {"ACCESS_KEY_ID": KEY_ID, "SECRET_ACCESS_KEY": SECRET}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3().clear_instance_cache()
    name = f"sweeps-{uuid.uuid4().hex[:12]}"
    s3().mkdir(name)
    return S3Path(f"s3://{name}")


def keys(place: S3Path) -> list[str]:
    """Keys of all objects below `place`, relative to it."""
    start = len(place.url.removeprefix("s3://")) + 1
    return sorted(key[start:] for key in s3().find(place.url))


def uploads(place: S3Path) -> list[dict[str, Any]]:
    """Uploads in parts that were begun in the bucket of `place` and neither finished nor given up."""
    name = place.url.removeprefix("s3://").partition("/")[0]
    return list(s3().call_s3("list_multipart_uploads", Bucket=name).get("Uploads", []))
