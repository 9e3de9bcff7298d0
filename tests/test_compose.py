"""The compose file of the team's MLflow server, as far as it can be checked without Docker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "mlflow"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_only_this_machine_reaches_it() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000"]
    assert not any("network_mode" in service for service in SERVICES.values())


def test_the_password_is_in_a_file_that_is_in_no_repository() -> None:
    assert "postgres" in SERVICES
    (secret,) = COMPOSE["secrets"]
    file = FOLDER / COMPOSE["secrets"][secret]["file"]
    ignored = subprocess.run(["git", "check-ignore", "-q", str(file)], cwd=ROOT, check=False)
    assert ignored.returncode == 0 or not (ROOT / ".git").exists()
    for service in SERVICES.values():
        assert service["secrets"] == [secret]
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or value == f"/run/secrets/{secret}"
            assert not re.search(r"://[^/@]*:", value), f"{name} holds a password"


def test_versions_are_pinned_as_in_the_lock() -> None:
    made = SERVICES["mlflow"]["build"]["dockerfile_inline"]
    images = [SERVICES["postgres"]["image"], *re.findall(r"^FROM (\S+)", made, re.M)]
    assert all(re.fullmatch(r"\w+:\d+\.\d+\S*", image) for image in images)
    locked = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"([\w-]+)(?:\[\w+\])?==([\d.]+)", made)
    assert {name for name, _ in pins} == {"mlflow", "psycopg"}
    assert all(re.search(rf"^{name}=={version}$", locked, re.M) for name, version in pins)


def test_a_service_waits_for_what_it_needs_and_keeps_its_data() -> None:
    assert SERVICES["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    kept = {volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert kept == set(COMPOSE["volumes"])
    assert all(service["healthcheck"]["test"][0] == "CMD" for service in SERVICES.values())
