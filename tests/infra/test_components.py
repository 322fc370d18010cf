"""What overlays may add to a cluster, in any order, and the overlay for one machine: valid, and as they are meant."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from beside import SHARED
from broken import put
from crd_schema import faults
from kubernetes_schema import faults_of_core, faults_of_labels
from kustomized import KUBERAY, needs_kubectl, rendered, rendered_with

CRDS = SHARED / "schemas" / "kuberay"
OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())
COST = {"team": "my-team", "cost-center": "0000", "run": "luxembourg"}
NO_DISRUPT = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
QUEUE, ELASTIC = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/elastic-job"

pytestmark = needs_kubectl


def faults_of(thing: Mapping[str, Any]) -> list[str]:
    """What is wrong with any object that an overlay applies."""
    if not thing["apiVersion"].startswith("ray.io/"):
        return faults_of_core(thing)
    if not CRDS.exists():
        pytest.skip(f"no CRDs of KubeRay: {CRDS} is not there")
    return faults(thing, CRDS) + faults_of_labels(thing)


def the(kind: str, things: list[dict[str, Any]], name: str | None = None) -> dict[str, Any]:
    (found,) = [t for t in things if t["kind"] == kind and name in (None, t["metadata"]["name"])]
    return found


def started(things: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [thing for thing in things if thing["apiVersion"].startswith("ray.io/")]
    return found


def cluster_of(thing: Mapping[str, Any]) -> dict[str, Any]:
    spec = thing["spec"]
    return spec.get("jobTemplate", spec).get("rayClusterSpec", spec)


def templates(thing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by what they are: head, submitter, or the worker group's name."""
    cluster = cluster_of(thing)
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    job = thing["spec"].get("jobTemplate", thing["spec"])
    return found | ({"submitter": job["submitterPodTemplate"]} if "submitterPodTemplate" in job else {})


# ---- valid ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_beside_the_cluster_is_valid(overlay):
    things = [thing for thing in rendered(KUBERAY / "overlays" / overlay) if "ray.io/" not in thing["apiVersion"]]
    assert {f"{thing['kind']}: {fault}" for thing in things for fault in faults_of(thing)} == set()


COMBINED = [
    ("base", ("disruption",)),
    ("base", ("labels", "disruption", "kueue")),
    ("base", ("disruption", "job")),
    ("base", ("job", "disruption", "labels")),
    ("base", ("monthly", "labels", "disruption")),
    ("base", ("disruption", "pod-monitor", "monthly", "labels")),
    ("overlays/aws-job", ("kueue",)),
    ("overlays/gcp", ("kueue",)),
    ("overlays/local-job", ("labels", "kueue")),
]


@pytest.mark.parametrize(("base", "components"), COMBINED)
def test_components_go_together_with_any_overlay_in_any_order(base, components):
    for thing in rendered_with(base, components):
        if thing["kind"] != "PodMonitor":
            assert faults_of(thing) == [], thing["kind"]


CONTAINER = "spec/template/spec/containers/0"


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("PodDisruptionBudget", put("spec/minAvailabl", 1), "'minAvailabl' was unexpected"),
        ("PodDisruptionBudget", put("spec/minAvailable", [1]), "[1] is not"),
        ("PodDisruptionBudget", put("spec/selector/matchLabel", {"a": "b"}), "'matchLabel' was unexpected"),
        ("PodDisruptionBudget", put("spec/selector/matchLabels", {"ray.io/node-type": "head "}), "is no label"),
        ("PodDisruptionBudget", put("apiVersion", "policy/v1beta1"), "Couldn't find schema"),
        ("PriorityClass", put("value", "1000"), "'1000' is not of type 'integer'"),
        ("PriorityClass", put("value", 0.5), "0.5 is not of type 'integer'"),
        ("PriorityClass", put("preemptionpolicy", "Never"), "'preemptionpolicy' was unexpected"),
        ("PriorityClass", put("spec", {"value": 1}), "'spec' was unexpected"),
        ("StatefulSet", put("spec/selector", ...), "'selector' is a required property"),
        ("StatefulSet", put(f"{CONTAINER}/readinessProbe/tcpSocket/port", ...), "'port' is a required property"),
        ("StatefulSet", put(f"{CONTAINER}/env/0/valueFrom/secretRef", {"name": "x"}), "'secretRef' was unexpected"),
        ("StatefulSet", put(f"{CONTAINER}/securityContext/runAsUser", "redis"), "'redis' is not of type 'integer'"),
        ("StatefulSet", put("spec/template/metadata/labels", {"part-of": "a b"}), "is no label"),
        ("PersistentVolumeClaim", put("spec/accessModes", "ReadWriteOnce"), "is not of type 'array'"),
        ("PersistentVolumeClaim", put("spec/resource", {}), "'resource' was unexpected"),
        ("Service", put("spec/ports/0/port", ...), "'port' is a required property"),
        ("NetworkPolicy", put("spec/podselector", {}), "'podselector' was unexpected"),
        ("ConfigMap", put("data/run.yaml", {"name": "local"}), "is not of type 'string'"),
        ("ServiceAccount", put("metadata/labels/cost-center", 0), "0 is not of type 'string'"),
        ("ServiceAccount", put("metadata/labels/team", "Karten & Daten"), "is no label"),
        ("ServiceAccount", put("metadata/labels/run", "x" * 64), "is no label"),
        ("ServiceAccount", put("metadata/labels", {"Our.Team/name": "x"}), "is no label"),
    ],
)
def test_a_broken_object_is_found(kind, change, said):
    things = rendered(KUBERAY / "overlays" / "local")
    broken = copy.deepcopy(next(thing for thing in things if thing["kind"] == kind))
    assert faults_of(broken) == []
    change(broken)
    assert any(said in fault for fault in faults_of(broken)), faults_of(broken)


# ---- nothing that tidies up takes the head away ---------------------------------------------------------------------


@pytest.mark.parametrize(("base", "components"), [one for one in COMBINED if "disruption" in one[1]])
def test_the_head_is_not_moved_and_gets_room_first(base, components):
    things = rendered_with(base, components)
    pods = templates(started(things))
    head = pods.pop("head")
    assert NO_DISRUPT.items() <= head["metadata"]["annotations"].items()
    assert head["spec"]["priorityClassName"] == "difffusr-head"
    pods.pop("submitter", None)
    assert len(pods) == 2
    for worker in pods.values():
        assert not NO_DISRUPT.keys() & worker["metadata"]["annotations"].keys()
        assert worker["spec"]["priorityClassName"] == "difffusr-worker"
    first, last = (the("PriorityClass", things, f"difffusr-{part}") for part in ("head", "worker"))
    assert first["value"] > last["value"] > -10  # below, the cluster autoscaler makes no nodes for a pod
    assert last["preemptionPolicy"] == "Never"
    assert not first.get("globalDefault")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_budget_is_for_the_head_s_pods(overlay):
    things = rendered(KUBERAY / "overlays" / overlay)
    budget = the("PodDisruptionBudget", things)
    wanted = budget["spec"]["selector"]["matchLabels"]
    given_by_kuberay = {"ray.io/node-type": "head"}
    head, *others = templates(started(things)).values()
    assert wanted.items() <= {**head["metadata"]["labels"], **given_by_kuberay}.items()
    for other in others:
        assert not wanted.items() <= {**other["metadata"]["labels"], "ray.io/node-type": "worker"}.items()
    # Of pods whose owner has no scale Kubernetes takes a number that must stay, nothing else.
    assert budget["spec"]["minAvailable"] == 1
    assert "maxUnavailable" not in budget["spec"]


# ---- who pays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "components"), [one for one in COMBINED if "labels" in one[1]])
def test_everything_and_every_pod_says_who_pays(base, components):
    things = rendered_with(base, components)
    for thing in things:
        if thing["kind"] not in ("PodDisruptionBudget", "PriorityClass", "PodMonitor"):  # these cost nothing
            assert COST.items() <= thing["metadata"]["labels"].items(), thing["kind"]
        if thing["kind"] == "StatefulSet":
            assert COST.items() <= thing["spec"]["template"]["metadata"]["labels"].items()
    if components.index("labels") > max(components.index(c) if c in components else -1 for c in ("job", "monthly")):
        for name, pod in templates(started(things)).items():
            assert COST.items() <= pod["metadata"]["labels"].items(), name


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if not name.startswith("local")])
def test_on_a_cloud_everything_says_who_pays(overlay):
    things = rendered(KUBERAY / "overlays" / overlay)
    for pod in templates(started(things)).values():
        assert COST.items() <= pod["metadata"]["labels"].items()
    assert COST.items() <= started(things)["metadata"]["labels"].items()


def test_no_selector_asks_for_a_label_of_who_pays():
    """A selector can't be changed later: another cost centre would mean a new Redis."""
    for thing in rendered_with("overlays/local", ("labels",)):
        selectors = [thing["spec"].get(name, {}) for name in ("selector", "podSelector")] if "spec" in thing else []
        assert not any(key in json.dumps(selectors) for key in COST)


# ---- a queue --------------------------------------------------------------------------------------------------------


def refusals(thing: Mapping[str, Any]) -> list[str]:
    """What Kueue says of something that asks for its queue: our own table of what its admission looks at."""
    if QUEUE not in thing["metadata"].get("labels", {}):
        return ["it is in no queue"]
    cluster, said = cluster_of(thing), []
    elastic = thing["metadata"].get("annotations", {}).get(ELASTIC) == "true"
    if cluster.get("enableInTreeAutoscaling") and not elastic:
        said.append("an autoscaler, and not elastic")
    if len(cluster["workerGroupSpecs"]) > 7:
        said.append("more than seven groups of workers")
    if any(group["groupName"] == "head" for group in cluster["workerGroupSpecs"]):
        said.append("a group called head")
    if thing["kind"] == "RayJob":
        said += [] if thing["spec"].get("shutdownAfterJobFinishes") else ["the cluster outlives the job"]
        said += ["a cluster that is there"] if "clusterSelector" in thing["spec"] else []
    return said


@pytest.mark.parametrize("overlay", ["aws", "gcp", "local", "aws-job", "gcp-job", "local-job"])
def test_kueue_takes_a_cluster_or_a_job(overlay):
    assert refusals(started(rendered_with(f"overlays/{overlay}", ("kueue",)))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("metadata/labels", {}), "it is in no queue"),
        (put("metadata/annotations", {}), "an autoscaler, and not elastic"),
        (put("metadata/annotations", {ELASTIC: "yes"}), "an autoscaler, and not elastic"),
        (put("spec/shutdownAfterJobFinishes", ...), "the cluster outlives the job"),
        (put("spec/clusterSelector", {"ray.io/cluster": "x"}), "a cluster that is there"),
        (put("spec/rayClusterSpec/workerGroupSpecs/0/groupName", "head"), "a group called head"),
    ],
)
def test_kueue_refuses_what_it_cannot_count(change, said):
    job = copy.deepcopy(started(rendered_with("overlays/aws-job", ("kueue",))))
    change(job)
    assert refusals(job) == [said]


def test_without_the_component_nothing_waits_in_a_queue():
    for overlay in OVERLAYS:
        assert QUEUE not in json.dumps(rendered(KUBERAY / "overlays" / overlay))


# ---- one machine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ["local", "local-job"])
def test_on_one_machine_nothing_asks_for_a_gpu_or_for_much(overlay):
    things = rendered(KUBERAY / "overlays" / overlay)
    assert 'nvidia.com/gpu"' not in json.dumps(things)
    cluster = cluster_of(started(things))
    (group,) = cluster["workerGroupSpecs"]
    pods = {"head": (cluster["headGroupSpec"]["template"], 1), "worker": (group["template"], group["maxReplicas"])}
    cores = gigabytes = 0.0
    for pod, number in pods.values():
        asked = pod["spec"]["containers"][0]["resources"]["requests"]
        cores += number * (float(asked["cpu"][:-1]) / 1000 if asked["cpu"].endswith("m") else float(asked["cpu"]))
        gigabytes += number * float(asked["memory"].removesuffix("Gi"))
    assert cores <= 4
    assert gigabytes <= 12


def test_what_the_head_knows_is_in_a_redis_that_is_there_behind_a_password_on_a_volume():
    things = rendered(KUBERAY / "overlays" / "local")
    options = cluster_of(started(things))["gcsFaultToleranceOptions"]
    service, redis = the("Service", things), the("StatefulSet", things)
    assert options["redisAddress"] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    pod = redis["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert redis["spec"]["serviceName"] == service["metadata"]["name"]
    (container,) = pod["spec"]["containers"]
    (password,) = container["env"]
    assert password["valueFrom"] == options["redisPassword"]["valueFrom"]
    assert container["args"][-2:] == ["--requirepass", f"$({password['name']})"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/data"]
    assert container["args"][:4] == ["--appendonly", "yes", "--dir", "/data"]
    assert redis["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == container["volumeMounts"][0]["name"]
    image, _, tag = container["image"].partition(":")
    assert image == "redis"
    assert tag.count(".") == 2
    policy = the("NetworkPolicy", things)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_every_pod_that_reads_or_writes_sees_the_volume_on_which_the_run_s_paths_are():
    from difffusr.pipeline.config.loading import load_config

    config = load_config(KUBERAY / "overlays" / "local" / "run.yaml")
    assert config.store.url.startswith("/data/")
    assert config.source.static_catalog.startswith("/data/world/")
    pods = templates(started(rendered(KUBERAY / "overlays" / "local")))
    for pod in pods.values():
        spec = pod["spec"]
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
            assert container["image"] == "difffusr:0.1.0-cpu"
    (maker,) = pods["head"]["spec"]["initContainers"]
    compile(maker["args"][0], "world", "exec")
    assert '"/data/world"' in maker["args"][0]


def test_the_world_that_the_head_makes_is_where_the_run_looks(tmp_path):
    """What the init container does, at another place, with a world that was begun and not finished beside it."""
    from difffusr.pipeline.scenes import synthetic

    pods = templates(started(rendered(KUBERAY / "overlays" / "local")))
    source = pods["head"]["spec"]["initContainers"][0]["args"][0].replace("/data", str(tmp_path))
    (tmp_path / "world.begun").mkdir()
    (tmp_path / "world.begun" / "half.tif").touch()
    made: list[int] = []

    def write(folder: Any, seed: int) -> None:
        made.append(seed)
        (folder / "archive").mkdir(parents=True)
        (folder / "archive" / "catalog.json").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "write_demo_world", write)
        for _ in range(2):
            exec(compile(source, "world", "exec"), {})
    assert made == [7]
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["world", "archive", "catalog.json"]
