"""The Kubernetes files, as far as they can be checked without a cluster: sound, and true to the project."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.commands.reading import read_sweep
from sweeps.commands.run import parser

ROOT = Path(__file__).parents[1]
MANIFESTS = {document["kind"]: document for document in yaml.safe_load_all((ROOT / "kuberay.yaml").read_text())}
JOB: dict[str, Any] = MANIFESTS["RayJob"]["spec"]
CLUSTER = JOB["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
PODS = [JOB["submitterPodTemplate"], *(group["template"] for group in GROUPS)]
CONTAINERS = [container for pod in PODS for container in pod["spec"]["containers"]]


def test_ray_is_the_locked_version_everywhere() -> None:
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked is not None
    assert CLUSTER["rayVersion"] == locked[1]
    assert {container["image"] for container in CONTAINERS} == {f"unlearning:{locked[1]}"}
    assert f"/unlearning:{locked[1]} ." in (ROOT / "Dockerfile").read_text()


def test_the_entry_point_is_a_valid_sweep_on_the_shared_volume() -> None:
    python, script, *arguments = shlex.split(JOB["entrypoint"])
    options = parser().parse_args(arguments)
    assert (python, (ROOT / script).is_file()) == ("python", True)
    needed = read_sweep(options).resources
    offered = GROUPS[1]["template"]["spec"]["containers"][0]["resources"]
    assert 0 < needed.gpus <= offered["limits"]["nvidia.com/gpu"]
    assert needed.cpus <= float(offered["requests"]["cpu"])
    for group in GROUPS:
        spec = group["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]}
        assert mounts == {"sweeps": str(options.out)}
        assert claims == {"sweeps": MANIFESTS["PersistentVolumeClaim"]["metadata"]["name"]}
    assert MANIFESTS["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_nothing_is_open_and_nothing_runs_with_more_rights_than_it_needs() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert CLUSTER["headGroupSpec"]["serviceType"] == "ClusterIP"
    for container in CONTAINERS:
        assert container["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "privileged" not in container["securityContext"]
    for pod in PODS:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        head = pod is CLUSTER["headGroupSpec"]["template"]  # the autoscaler there asks for pods
        assert head or pod["spec"]["automountServiceAccountToken"] is False
    text = (ROOT / "kuberay.yaml").read_text()
    assert not re.search(r"secret|password|\btoken:|AWS_", text, re.I)


def test_the_network_policy_covers_every_pod() -> None:
    policy = MANIFESTS["NetworkPolicy"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    assert all(pod["metadata"]["labels"] == labels for pod in PODS)
    assert policy["policyTypes"] == ["Ingress"]
    assert all("ipBlock" not in source for rule in policy["ingress"] for source in rule["from"])


def test_no_trial_runs_on_the_head_and_workers_are_bounded() -> None:
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in CLUSTER["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert JOB["shutdownAfterJobFinishes"]
    assert JOB["backoffLimit"] > 0
    assert all(isinstance(value, str) for group in GROUPS for value in group["rayStartParams"].values())


@pytest.mark.parametrize("line", re.findall(r"^COPY --chown=ray (.+)$", (ROOT / "Dockerfile").read_text(), re.M))
def test_the_image_copies_what_exists(line: str) -> None:
    *sources, _ = line.split()
    assert all((ROOT / source).exists() for source in sources)
