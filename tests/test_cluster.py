"""The cluster files: accepted by Ray's own validator, and sound where that does not look."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli

from sweeps.commands.run import parser

ROOT = Path(__file__).parents[1]
HOME = "~/unlearning/"
FILES = ("cluster.yaml", "cluster-onprem.yaml")


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load((ROOT / request.param).read_text())


@pytest.fixture
def aws() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def commands(config: dict[str, Any]) -> list[str]:
    return [line for key, lines in config.items() if key.endswith("_commands") for line in lines]


def starts(config: dict[str, Any]) -> list[str]:
    return [line for line in commands(config) if "ray start" in line]


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(config)))  # what `ray up` does first


def test_a_misspelt_key_would_be_noticed(aws: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        validate_config(prepare_config(aws | {"idle_timeout_minuets": 5}))


def test_all_code_is_mounted_and_exists(config: dict[str, Any]) -> None:
    mounts = dict(config["file_mounts"])
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert all(target == HOME + source and (ROOT / source).exists() for target, source in mounts.items())
    settings = (ROOT / "pyproject.toml").read_text()
    assert {"unlearn_core", "sweeps", "analysis", "Makefile", "pyproject.toml", "requirements.lock"} <= {
        *mounts.values()
    }
    for named in re.findall(r'^(?:readme|license-files?) = "(.+)"', settings, re.M):
        assert named in mounts.values()  # the package cannot be built without


def test_commands_name_what_exists(config: dict[str, Any]) -> None:
    mounted = config["file_mounts"]
    for line in commands(config):
        for path in re.findall(r"~/unlearning/([\w.]+)", line):
            assert path == ".venv" or HOME + path in mounted, line
        for target in re.findall(r"&& make (\w+)", line):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    assert any("make setup" in line for line in config["setup_commands"])


def test_versions_come_from_the_lock(config: dict[str, Any]) -> None:
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked is not None
    found = re.findall(r"(?:rayproject/ray:|\bray(?:\[.*?\])?==)([\d.]+)", yaml.safe_dump(config))
    assert all(version == locked[1] for version in found)
    assert all("~/unlearning/.venv/bin/ray start" in line for line in starts(config))
    assert not re.search(r"pip install (?!-q --python \.venv/bin/python boto3)", yaml.safe_dump(config, width=1000))


def test_nothing_listens_to_the_world_and_all_ask_for_the_token(config: dict[str, Any]) -> None:
    assert "0.0.0.0" not in yaml.safe_dump(config)
    assert len(starts(config)) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts(config))
    assert [line for line in starts(config) if "--head" in line and "--dashboard-host=127.0.0.1" in line]
    assert all(config[key] for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"))
    assert any("RAY_AUTH_MODE=token" in line and ".bashrc" in line for line in config["setup_commands"])


def test_head_directs_and_spot_workers_work(aws: dict[str, Any]) -> None:
    types = aws["available_node_types"]
    head = types[aws["head_node_type"]]
    workers = [kind for name, kind in types.items() if name != aws["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0} and head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for kind in workers)
    assert all(kind["resources"]["GPU"] > 0 for kind in workers)


def test_machines_have_few_rights(aws: dict[str, Any]) -> None:
    for name, kind in aws["available_node_types"].items():
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert ("IamInstanceProfile" in kind["node_config"]) == (name == aws["head_node_type"])
    assert aws["provider"]["security_group"]["GroupName"]


def test_the_page_uses_commands_and_options_that_exist() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)).replace("\\\n", " ")
    for command in re.findall(r"^(?:\w+=\S+ )*ray ([a-z-]+)", code, re.M):
        assert command in cli.commands, command
    known = set(parser()._option_string_actions)
    for line in re.findall(r"budget_sweep\.py([^'\n]*)", code):
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line
    assert all(name in text for name in FILES)
