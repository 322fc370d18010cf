"""What is applied to Kubernetes is what its operator reads; no field is dropped, no secret is in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from beside import SHARED
from crd_schema import faults, faults_of_part, schema_of
from kustomized import KUBERAY, needs_kubectl, rendered

from difffusr.pipeline.config.loading import load_config

CRDS = SHARED / "schemas" / "kuberay"
ON_CLOUDS = ("aws", "aws-job", "aws-monthly", "gcp", "gcp-job", "gcp-monthly")
OVERLAYS = (*ON_CLOUDS, "local", "local-job")
KIND_OF = {"job": "RayJob", "monthly": "RayCronJob"}

needs_crds = pytest.mark.skipif(not CRDS.exists(), reason=f"no CRDs of KubeRay: {CRDS} is not there")


def documents(path: Path) -> list[Any]:
    """What a file has in it: objects, or patches."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


WRITTEN = [
    document
    for path in sorted(KUBERAY.glob("*/**/*.yaml"))
    if path.name not in ("kustomization.yaml", "run.yaml")
    for document in documents(path)
    if isinstance(document, dict)  # not a list of JSON patches
]
RAY_KINDS = [document for document in WRITTEN if document["apiVersion"].startswith("ray.io/")]


def built(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` sends."""
    return rendered(KUBERAY / "overlays" / overlay)


def the(kind: str, things: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [thing for thing in things if thing["kind"] == kind]
    return found


def ray_resource(overlay: str) -> dict[str, Any]:
    """What is started: the one resource of Ray's in an overlay."""
    (found,) = [thing for thing in built(overlay) if thing["apiVersion"].startswith("ray.io/")]
    return found


def cluster_of(thing: Mapping[str, Any]) -> dict[str, Any]:
    """The RayCluster's spec in whatever starts one."""
    spec = thing["spec"]
    return spec.get("jobTemplate", spec).get("rayClusterSpec", spec)


# ---- valid ----------------------------------------------------------------------------------------------------------


@needs_crds
@pytest.mark.parametrize("thing", RAY_KINDS, ids=lambda thing: thing["kind"])
def test_what_is_written_is_valid(thing):
    assert faults(thing, CRDS) == []


@needs_crds
@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_is_valid(overlay):
    thing = ray_resource(overlay)
    assert thing["kind"] == KIND_OF.get(overlay.partition("-")[2], "RayCluster")
    assert cluster_of(thing)["headGroupSpec"]
    assert faults(thing, CRDS) == []


def dropped(place: str) -> Callable[[dict[str, Any]], None]:
    """Breaks a resource by leaving out the value at a place."""

    def change(thing: dict[str, Any]) -> None:
        at, name = parent(thing, place)
        del at[name]

    return change


def put(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Breaks a resource by putting a value at a place."""

    def change(thing: dict[str, Any]) -> None:
        at, name = parent(thing, place)
        at[name] = value

    return change


def parent(thing: Any, place: str) -> tuple[Any, Any]:
    *way, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in way:
        thing = thing[step]
    return thing, last


GPU = "spec.workerGroupSpecs.0"
POD = f"{GPU}.template.spec"


@needs_crds
@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("RayCluster", put(f"{GPU}.minReplica", 0), "'minReplica' was unexpected"),
        ("RayCluster", put("spec.enableInTreeAutoScaling", True), "'enableInTreeAutoScaling' was unexpected"),
        ("RayCluster", put(f"{GPU}.maxReplicas", "8"), "'8' is not of type 'integer'"),
        ("RayCluster", put(f"{GPU}.maxReplicas", 2**31), "is greater than the maximum"),
        ("RayCluster", put("spec.headGroupSpec.rayStartParams.num-cpus", 0), "0 is not of type 'string'"),
        ("RayCluster", dropped(f"{GPU}.groupName"), "'groupName' is a required property"),
        ("RayCluster", dropped("spec.headGroupSpec"), "'headGroupSpec' is a required property"),
        ("RayCluster", put("spec.authOptions.mode", "on"), "'on' is not one of ['disabled', 'token']"),
        ("RayCluster", put(f"{POD}.tolerations.0.efect", "NoSchedule"), "'efect' was unexpected"),
        ("RayCluster", put(f"{POD}.containers.0.resources.limits.memory", "24 GB"), "'24 GB' does not match"),
        (
            "RayCluster",
            put(f"{POD}.containers.0.env", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
            "{'name': 'A'} is given twice",
        ),
        (
            "RayCluster",
            put("spec.gcsFaultToleranceOptions.redisPassword.valueFrom.secretRef", {"name": "x"}),
            "'secretRef' was unexpected",
        ),
        ("RayJob", put("spec.backoffLimt", 2), "'backoffLimt' was unexpected"),
        ("RayJob", put("spec.submitterPodTemplate.spec.containers", {}), "is not of type 'array'"),
        ("RayCronJob", dropped("spec.schedule"), "'schedule' is a required property"),
        ("RayCronJob", put("spec.jobTemplate.spec", {}), "'spec' was unexpected"),
        ("RayCronJob", put("spec.concurrencyPolicy", "Forbid"), "'concurrencyPolicy' was unexpected"),
    ],
)
def test_a_broken_resource_is_refused(kind, change, said):
    broken = copy.deepcopy(the(kind, RAY_KINDS))
    change(broken)
    found = faults(broken, CRDS)
    assert len(found) == 1, found
    assert said in found[0]


@needs_crds
def test_the_network_policy_is_of_kubernetes_own_form():
    policy = the("NetworkPolicy", WRITTEN)
    rules = schema_of(CRDS / "ray.io_rayclusters.yaml", "v1")["properties"]["spec"]["properties"]["networkPolicy"]
    head = rules["properties"]["head"]["properties"]
    assert set(policy["spec"]) == {"podSelector", "policyTypes", "ingress", "egress"}
    assert faults_of_part(policy["spec"]["ingress"], head["ingressRules"]) == []
    assert faults_of_part(policy["spec"]["egress"], head["egressRules"]) == []
    assert faults_of_part([{"form": []}], head["ingressRules"]) != []


# ---- as it is meant -------------------------------------------------------------------------------------------------


def pods(thing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by what they are: head, gpu, cpu, and submitter where there is one."""
    spec = cluster_of(thing)
    found = {"head": spec["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    job = thing["spec"].get("jobTemplate", thing["spec"])
    return found | ({"submitter": job["submitterPodTemplate"]} if "submitterPodTemplate" in job else {})


CLUSTER = the("RayCluster", WRITTEN)


def test_the_head_computes_nothing_and_stays_off_gpu_nodes():
    head = CLUSTER["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    for pod in (pods(CLUSTER)["head"], pods(CLUSTER)["cpu"]):
        assert "tolerations" not in pod["spec"]
        needed = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        wanted = {"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]}
        assert all(wanted in term["matchExpressions"] for term in needed["nodeSelectorTerms"])
        assert "nvidia.com/gpu" not in json.dumps(pod["spec"]["containers"])


def test_no_worker_is_kept_that_nobody_asks_for():
    assert CLUSTER["spec"]["enableInTreeAutoscaling"] is True
    assert {g["groupName"]: g["minReplicas"] for g in CLUSTER["spec"]["workerGroupSpecs"]} == {"gpu": 0, "cpu": 0}


@needs_kubectl
@pytest.mark.parametrize(("overlay", "spot"), [("aws", "SPOT"), ("gcp", "cloud.google.com/gke-spot")])
def test_gpu_workers_are_spot_machines_and_the_head_is_not(overlay, spot):
    every = pods(ray_resource(overlay))
    assert spot in json.dumps(every["gpu"]["spec"]["nodeSelector"])
    selected = json.dumps(every["head"]["spec"].get("nodeSelector", {}))
    assert spot not in selected
    terms = json.dumps(every["head"]["spec"]["affinity"])
    assert "ON_DEMAND" in selected or f'"key": "{spot}", "operator": "DoesNotExist"' in terms


def test_the_versions_are_those_of_the_project():
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__
    project = (KUBERAY.parents[1] / "pyproject.toml").read_text()
    base = yaml.safe_load((KUBERAY / "base" / "kustomization.yaml").read_text())
    for image in base["images"]:
        assert f'\nversion = "{image["newTag"]}"\n' in project


def environment(thing: Any) -> Iterator[dict[str, Any]]:
    """Every variable that any container is given, and every password."""
    if isinstance(thing, Mapping):
        yield from thing.get("env", ())
        if "redisPassword" in thing:
            yield {"name": "redisPassword", **thing["redisPassword"]}
        for value in thing.values():
            yield from environment(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from environment(value)


def test_secrets_are_named_and_never_written():
    assert "Secret" not in {thing["kind"] for thing in WRITTEN}
    given = list(environment(WRITTEN))
    assert {one["name"] for one in given if "value" in one} == {"RAY_JOB_STOP_WAIT_TIME_S"}
    passwords = [one for one in given if one["name"] in ("redisPassword", "REDIS_PASSWORD")]
    assert len(passwords) == 2
    for password in passwords:
        assert password["valueFrom"] == {"secretKeyRef": {"name": "difffusr-redis", "key": "password"}}
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}


def test_no_container_is_root_or_may_become_it():
    things = [*pods(CLUSTER).values(), the("RayJob", WRITTEN)["spec"]["submitterPodTemplate"]]
    containers = [container for pod in things for container in pod["spec"]["containers"]]
    containers.append(CLUSTER["spec"]["autoscalerOptions"])
    for container in containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_behind_the_network_policy_and_uses_what_there_is(overlay):
    things = built(overlay)
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in things}
    (label,) = the("NetworkPolicy", things)["spec"]["podSelector"]["matchLabels"].items()
    for pod in pods(ray_resource(overlay)).values():
        assert label in pod["metadata"]["labels"].items()
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in names
        for volume in pod["spec"].get("volumes", ()):
            (kind, name) = (
                ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
                if "persistentVolumeClaim" in volume
                else ("ConfigMap", volume["configMap"]["name"])
            )
            assert (kind, name) in names
    of_all = ("Namespace", "PriorityClass")
    assert {thing["metadata"].get("namespace") for thing in things if thing["kind"] not in of_all} == {"difffusr"}


@needs_kubectl
@pytest.mark.parametrize("overlay", ON_CLOUDS)
def test_images_come_from_a_registry_and_have_a_version(overlay):
    images = {pod["spec"]["containers"][0]["image"] for pod in pods(ray_resource(overlay)).values()}
    assert {image.rpartition("-")[2] for image in images} == {"cpu", "cuda"}
    assert all("/" in image and image.count(":") == 1 for image in images)


@needs_kubectl
@pytest.mark.parametrize("overlay", [None, "aws", "gcp", "local"])
def test_a_run_file_is_understood_and_fits_the_cluster(overlay):
    config = load_config(KUBERAY / (f"overlays/{overlay}" if overlay else "base") / "run.yaml")
    cluster = cluster_of(ray_resource(overlay)) if overlay else CLUSTER["spec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    gpus, group = (1, "gpu") if "gpu" in groups else (0, "cpu")
    assert config.compute.address == "auto"
    assert config.compute.wait_minutes > 0
    assert config.compute.gpus_per_actor == gpus
    assert config.compute.actors_max == groups[group]["maxReplicas"]


@needs_kubectl
def test_the_scheduled_run_is_the_job_that_can_be_started_by_hand():
    job, monthly = ray_resource("aws-job"), ray_resource("aws-monthly")
    assert monthly["spec"]["jobTemplate"] == job["spec"]
    assert the("ConfigMap", built("aws-job")) == the("ConfigMap", built("aws-monthly"))
    assert cluster_of(job) == cluster_of(ray_resource("aws"))


def test_prometheus_finds_the_pods():
    monitor = the("PodMonitor", WRITTEN)
    (label,) = monitor["spec"]["selector"]["matchLabels"].items()
    asked = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    ports = {}
    for pod in pods(CLUSTER).values():
        assert label in pod["metadata"]["labels"].items()
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == "8080"
        ports |= {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert "metrics" in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    allowed = [
        {port["port"] for port in rule["ports"]}
        for rule in the("NetworkPolicy", WRITTEN)["spec"]["ingress"]
        if "monitoring" in json.dumps(rule)
    ]
    assert [{ports[name] for name in asked}] == allowed
