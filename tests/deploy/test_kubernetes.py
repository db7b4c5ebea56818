"""The manifests of deploy/kubernetes, against the published schemas, docker-compose.yml and the settings."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from crowdlearn import metrics
from crowdlearn.settings import AggregatorSettings, EvaluatorSettings, GatewaySettings, PreprocessorSettings
from services.cli import app
from services.gateway.wire import LINGER_SECONDS

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
NOT_MANIFESTS = {"kustomization.yaml", "prometheus-adapter.yaml"}
BY_HAND = {"checkpointer.yaml", "checkpointer-to-bucket.yaml", "preprocessor.yaml", "submit.yaml"}
VERSIONS = ("1.31.0", "1.34.1", "1.37.0")
SETTINGS = {
    "gateway": GatewaySettings,
    "aggregator": AggregatorSettings,
    "preprocessor": PreprocessorSettings,
    "evaluator": EvaluatorSettings,
}
OPTIONS = {"CROWDLEARN_REDIS", "CROWDLEARN_METRICS_PORT", "CROWDLEARN_METRICS_HOST", "CROWDLEARN_LOG_LEVEL"}

Manifest = dict[str, Any]


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


MANIFESTS: list[Manifest] = [
    manifest
    for file in sorted(FOLDER.glob("*.yaml"))
    if file.name not in NOT_MANIFESTS
    for manifest in yaml.safe_load_all(file.read_text())
]
WORKLOADS = [each for each in MANIFESTS if each["kind"] in ("Deployment", "StatefulSet", "Job")]
NAMES = [f"{each['kind']}-{each['metadata']['name']}" for each in MANIFESTS]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def named(kind: str, name: str) -> Manifest:
    return next(each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == (kind, name))


def pod(workload: Manifest) -> Manifest:
    return dict(workload["spec"]["template"]["spec"])


def labels(workload: Manifest) -> dict[str, str]:
    return dict(workload["spec"]["template"]["metadata"]["labels"])


def containers() -> list[tuple[str, Manifest]]:
    return [(each["metadata"]["name"], container) for each in WORKLOADS for container in pod(each)["containers"]]


def environment(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}


def selected(selector: dict[str, str]) -> list[Manifest]:
    return [workload for workload in WORKLOADS if selector.items() <= labels(workload).items()]


def ports(workload: Manifest) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in pod(workload)["containers"]
        for port in container.get("ports", [])
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=NAMES)
def test_a_manifest_keeps_to_the_published_schema(manifest: Manifest, version: str) -> None:
    # Strict: a name that the schema does not have is a mistake in spelling.
    assert kubernetes_validate.validate(manifest, version.rpartition(".")[0], strict=True)


def test_the_schemas_refuse_a_field_that_is_misspelt() -> None:
    misspelt = {**named("PodDisruptionBudget", "gateway"), "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="maxUnavailabel"):
        kubernetes_validate.validate(misspelt, "1.34", strict=True)


def test_every_file_is_part_of_the_installation_or_says_that_it_is_not() -> None:
    files = {file.name for file in FOLDER.glob("*.yaml")}
    assert set(read("kustomization.yaml")["resources"]) == files - NOT_MANIFESTS - BY_HAND


@pytest.mark.parametrize(("name", "container"), containers(), ids=[name for name, _ in containers()])
def test_an_image_is_one_that_compose_builds_or_pulls(name: str, container: Manifest) -> None:
    assert container["image"] in {service["image"] for service in COMPOSE.values()}
    if name != "redis":
        images = {image["name"] for image in read("kustomization.yaml")["images"]}
        assert container["image"] in images


def test_a_container_begins_with_a_command_that_exists() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    begun = [container["args"][0] for name, container in containers() if name != "redis"]
    assert sorted(begun) == ["aggregator", "checkpoint", "evaluator", "gateway", "preprocessor", "submit"]
    assert set(begun) <= commands


def test_a_variable_is_a_setting_of_its_service() -> None:
    for name, container in containers():
        given = {variable for variable in environment(container) if variable.startswith("CROWDLEARN_")}
        settings = fields(SETTINGS[name]) if name in SETTINGS else ()
        assert given <= OPTIONS | {f"CROWDLEARN_{field.name.upper()}" for field in settings}, name


def test_a_service_has_a_redis_user_of_its_own_whose_password_is_in_the_secret() -> None:
    users = re.findall(r"^user (\w+)", (ROOT / "deploy" / "redis" / "users.acl").read_text(), re.MULTILINE)
    secret = next(each for each in read("kustomization.yaml")["secretGenerator"] if each["name"] == "redis-passwords")
    keys = {file.partition("=")[0]: file.partition("=")[2] for file in secret["files"]}
    for name, container in containers():
        if name == "redis":
            continue
        user = re.fullmatch(
            r"redis://(\w+):\$\(REDIS_PASSWORD\)@redis:6379", environment(container)["CROWDLEARN_REDIS"]
        )
        assert user is not None, name
        assert user[1] == ("operator" if name == "submit-digits" else name)
        assert user[1] in users
        reference = next(entry for entry in container["env"] if entry["name"] == "REDIS_PASSWORD")
        assert reference["valueFrom"]["secretKeyRef"] == {"name": "redis-passwords", "key": user[1]}
        assert keys[user[1]] == f"secrets/{user[1]}.password"


def test_the_password_stands_before_the_address_that_contains_it() -> None:
    for name, container in containers():
        order = [entry["name"] for entry in container.get("env", [])]
        if name != "redis":
            assert order.index("REDIS_PASSWORD") < order.index("CROWDLEARN_REDIS"), name


def test_a_gateway_listens_where_its_ports_say() -> None:
    gateway = named("Deployment", "gateway")
    variables = environment(pod(gateway)["containers"][0])
    assert ports(gateway) == {
        "http": int(variables["CROWDLEARN_PORT"]),
        "metrics": int(variables["CROWDLEARN_METRICS_PORT"]),
    }
    assert gateway["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9000"


def test_whoever_has_a_metrics_port_is_reached_there_from_another_pod() -> None:
    exposed = [(name, environment(container)) for name, container in containers()]
    hosts = {name: each["CROWDLEARN_METRICS_HOST"] for name, each in exposed if "CROWDLEARN_METRICS_PORT" in each}
    assert hosts == dict.fromkeys(SETTINGS, "0.0.0.0")


def test_a_selector_finds_the_pods_of_its_name() -> None:
    for manifest in MANIFESTS:
        name, spec = manifest["metadata"]["name"], manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            found = selected(spec["selector"]["matchLabels"])
            assert [each["metadata"]["name"] for each in found] == [name]
        elif manifest["kind"] == "Service":
            (workload,) = selected(spec["selector"])
            assert {port["targetPort"] for port in spec["ports"]} <= set(ports(workload))
        elif manifest["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert named(target["kind"], target["name"])
            assert "replicas" not in named("Deployment", "gateway")["spec"]


def test_the_ingress_leads_to_the_gateways_port() -> None:
    (rule,) = named("Ingress", "gateway")["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    service = named("Service", backend["name"])
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert rule["host"] in named("Ingress", "gateway")["spec"]["tls"][0]["hosts"]


def admitted(policy: str, direction: str) -> list[tuple[dict[str, Any], set[object]]]:
    """Each peer that a policy lets through, with the ports."""
    side = "from" if direction == "ingress" else "to"
    return [
        (peer, {port["port"] for port in rule["ports"]})
        for rule in named("NetworkPolicy", policy)["spec"][direction]
        for peer in rule[side]
    ]


def test_only_the_ingress_reaches_gateways_and_only_services_reach_redis() -> None:
    nothing = named("NetworkPolicy", "nothing")["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    to_gateways = named("NetworkPolicy", "ingress-to-gateways")["spec"]["podSelector"]["matchLabels"]
    assert [each["metadata"]["name"] for each in selected(to_gateways)] == ["gateway"]
    ((controller, open_ports),) = admitted("ingress-to-gateways", "ingress")
    assert set(controller) == {"namespaceSelector"}
    assert open_ports == {"http"}

    ((services, redis_ports),) = admitted("services-to-redis", "ingress")
    reaching = {each["metadata"]["name"] for each in selected(services["podSelector"]["matchLabels"])}
    assert reaching == {*SETTINGS, "checkpointer", "submit-digits"}
    assert redis_ports == {"redis"}
    # Every other ingress rule is for metrics.
    others = [each for each in MANIFESTS if each["kind"] == "NetworkPolicy" and "ingress" in each["spec"]]
    assert len(others) == 3
    assert admitted("prometheus-to-services", "ingress")[0][1] == {"metrics"}


def test_who_may_reach_redis_may_also_ask_for_its_address() -> None:
    peers = admitted("services-out", "egress")
    assert [open_ports for _, open_ports in peers] == [{6379}, {53}]
    (redis,) = selected(peers[0][0]["podSelector"]["matchLabels"])
    assert ports(redis) == {"redis": 6379}


@pytest.mark.parametrize("workload", WORKLOADS, ids=[each["metadata"]["name"] for each in WORKLOADS])
def test_a_pod_may_do_nothing_that_it_need_not(workload: Manifest) -> None:
    context = pod(workload)["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert (pod(workload)["automountServiceAccountToken"], pod(workload)["enableServiceLinks"]) == (False, False)
    for container in pod(workload)["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = workload["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in pod(workload)["volumes"]}
        assert mounted == volumes | {claim["metadata"]["name"] for claim in claimed}


def test_our_images_run_as_the_user_that_the_dockerfile_names() -> None:
    users = re.findall(r"^USER (\d+):(\d+)", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    for workload in WORKLOADS:
        if workload["metadata"]["name"] != "redis":
            context = pod(workload)["securityContext"]
            assert (str(context["runAsUser"]), str(context["runAsGroup"])) in set(users) - {("0", "0")}


def test_a_gateway_has_time_to_send_its_sockets_away() -> None:
    gateway = pod(named("Deployment", "gateway"))
    container = gateway["containers"][0]
    notice = float(environment(container)["CROWDLEARN_DRAIN_NOTICE_SECONDS"])
    drain = float(environment(container)["CROWDLEARN_DRAIN_SECONDS"])
    # After the drain the server waits for the last sockets to read why: services/gateway/server.py.
    assert gateway["terminationGracePeriodSeconds"] >= notice + drain + LINGER_SECONDS + 1
    probe = container["readinessProbe"]
    assert notice > probe["periodSeconds"] * probe["failureThreshold"]
    assert (probe["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]) == ("/readyz", "/healthz")


def test_compose_gives_a_gateway_time_too() -> None:
    grace = float(COMPOSE["gateway"]["stop_grace_period"].removesuffix("s"))
    settings = GatewaySettings()
    assert grace >= settings.drain_notice_seconds + settings.drain_seconds + LINGER_SECONDS + 1


def test_gateways_scale_with_a_metric_that_exists() -> None:
    autoscaler = named("HorizontalPodAutoscaler", "gateway")["spec"]
    sockets, processor = autoscaler["metrics"]
    (name,) = (sample.name for family in metrics.SOCKETS.collect() for sample in family.samples)
    assert sockets["pods"]["metric"]["name"] == name
    (rule,) = read("prometheus-adapter.yaml")["rules"]["custom"]
    assert rule["name"]["matches"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert rule["metricsQuery"].startswith(f"avg_over_time({name}{{")
    assert processor["resource"]["name"] == "cpu"
    # A rolling update replaces gateways without one less.
    assert named("Deployment", "gateway")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_redis_refuses_rather_than_forgets_and_has_memory_for_it() -> None:
    lines = (FOLDER / "redis.conf").read_text().splitlines()
    options = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    compose = COMPOSE["redis"]["command"]
    for option in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
        assert options[option] == compose[compose.index(f"--{option}") + 1]
    (redis,) = pod(named("StatefulSet", "redis"))["containers"]
    gigabytes = int(options["maxmemory"].removesuffix("gb"))
    assert int(redis["resources"]["limits"]["memory"].removesuffix("Gi")) >= 2 * gigabytes
    mounts = {mount["name"]: mount["mountPath"] for mount in redis["volumeMounts"]}
    assert options["dir"] == mounts["data"]
    assert options["aclfile"] == f"{mounts['users']}/users.acl"
    assert mounts["config"] == redis["command"][1]


def test_every_port_that_is_named_is_there() -> None:
    for workload in WORKLOADS:
        for container in pod(workload)["containers"]:
            probes = [container.get(f"{kind}Probe", {}) for kind in ("readiness", "liveness", "startup")]
            asked = chain.from_iterable((probe.get("httpGet"), probe.get("tcpSocket")) for probe in probes)
            assert {action["port"] for action in asked if action} <= set(ports(workload))
