"""deploy/kubernetes/kustomization.yaml: everything that a pod needs is in what it puts together.

It is put together here as kustomize does it, for kustomize is seldom installed. Where kubectl is, it must agree.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
SUFFIX = re.compile(r"-[0-9a-z]{10}$")
"""What kustomize puts behind the name of something generated: a hash of what is in it."""
FIELDS = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "labels",
    "images",
    "secretGenerator",
    "configMapGenerator",
}
"""Those of a Kustomization, version v1beta1, that `put_together` understands."""

Manifest = dict[str, Any]
Identity = tuple[str, str]


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A copy of the folder after `make-users`, the operator's only step before `kubectl apply`."""
    copy = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([ROOT / "deploy" / "redis" / "make-users", copy / "secrets"], check=True)
    return copy


def put_together(folder: Path) -> dict[Identity, Manifest]:
    """The manifests by kind and name; of what is generated, `data` by key, not encoded, and no hash in its name."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) <= FIELDS
    built = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for name in kustomization["resources"]
        for manifest in yaml.safe_load_all((folder / name).read_text())
    }
    for generator, kind in (("secretGenerator", "Secret"), ("configMapGenerator", "ConfigMap")):
        for generated in kustomization[generator]:
            pairs = [(file.rpartition("=")[0], file.rpartition("=")[2]) for file in generated["files"]]
            data = {key or Path(file).name: (folder / file).read_text() for key, file in pairs}
            built[kind, generated["name"]] = {"kind": kind, "data": data}
    return built


def pods(built: dict[Identity, Manifest]) -> list[Manifest]:
    workloads = [manifest for (kind, _), manifest in built.items() if kind in ("Deployment", "StatefulSet")]
    return [workload["spec"]["template"]["spec"] for workload in workloads]


def test_a_password_that_a_container_is_given_is_generated(installation: Path) -> None:
    built = put_together(installation)
    given = [
        entry["valueFrom"]["secretKeyRef"]
        for pod in pods(built)
        for container in pod["containers"]
        for entry in container.get("env", [])
        if "valueFrom" in entry
    ]
    assert {reference["key"] for reference in given} == {"gateway", "aggregator", "evaluator"}
    for reference in given:
        assert re.fullmatch("[0-9a-f]{48}", built["Secret", reference["name"]]["data"][reference["key"]])


def test_a_file_that_a_container_mounts_is_generated(installation: Path) -> None:
    built = put_together(installation)
    mounted = {
        volume["name"]: built["Secret", volume["secret"]["secretName"]]
        if "secret" in volume
        else built["ConfigMap", volume["configMap"]["name"]]
        for pod in pods(built)
        for volume in pod["volumes"]
        if "secret" in volume or "configMap" in volume
    }
    assert set(mounted) == {"users", "config"}
    # The hashes in one are of the passwords in the other: tests/end_to_end/test_secured_redis.py logs in with them.
    assert set(mounted["users"]["data"]) == {"users.acl"}
    assert "SHA256" not in mounted["users"]["data"]["users.acl"]
    (redis,) = built["StatefulSet", "redis"]["spec"]["template"]["spec"]["containers"]
    (config,) = (mount for mount in redis["volumeMounts"] if mount["name"] == "config")
    assert config["subPath"] in mounted["config"]["data"]


def test_whoever_is_applied_by_hand_finds_the_names_of_the_installation(installation: Path) -> None:
    built = put_together(installation)
    namespace = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["namespace"]
    assert ("Namespace", namespace) in built
    (submit,) = yaml.safe_load_all((FOLDER / "submit.yaml").read_text())
    assert submit["metadata"]["namespace"] == namespace
    (password, _) = submit["spec"]["template"]["spec"]["containers"][0]["env"]
    reference = password["valueFrom"]["secretKeyRef"]
    assert reference["key"] in built["Secret", reference["name"]]["data"]
    # kustomize would hash the name otherwise, and submit.yaml could not know it.
    generators = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["secretGenerator"]
    (generator,) = (each for each in generators if each["name"] == reference["name"])
    assert generator["options"] == {"disableNameSuffixHash": True}


def test_everything_lands_in_one_namespace_with_one_of_each_name(installation: Path) -> None:
    built = put_together(installation)
    assert not [manifest for manifest in built.values() if "namespace" in manifest.get("metadata", {})]
    if shutil.which("kubectl") is None:
        return
    output = subprocess.run(["kubectl", "kustomize", installation], check=True, capture_output=True, text=True).stdout
    manifests = list(yaml.safe_load_all(output))
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, "1.34", strict=True)
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    hashed = {"redis-users", "redis-config"}
    assert sorted((kind, SUFFIX.sub("", name) if SUFFIX.sub("", name) in hashed else name) for kind, name in names) == (
        sorted(built)
    )
