"""Argo, Airflow and SkyPilot are given what they understand, and do with the run's exit codes what the codes mean.

These tests need neither Airflow nor SkyPilot: a stand-in and a table of facts take their place. Where they are
installed (`make schedulers`) the same tests use them.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import airflow_stand_in
import pytest
import yaml
from broken import put
from jsonschema import Draft202012Validator, ValidationError

INFRA = Path(__file__).resolve().parents[2] / "infra"
SCHEDULE = "0 3 5,20 * *"
PARTS_OF_US = {"app.kubernetes.io/part-of": "difffusr"}

#: Exit codes of one attempt after the other, how many attempts there are of at most N, and how it ends.
ENDS: list[tuple[Callable[[int], Sequence[int]], Callable[[int], int], str]] = [
    (lambda n: [0], lambda n: 1, "done"),
    (lambda n: [2], lambda n: 1, "failed"),
    (lambda n: [1, 0], lambda n: 2, "done"),
    (lambda n: [1, 2], lambda n: 2, "failed"),
    (lambda n: [3, 0], lambda n: 2, "done"),
    (lambda n: [3, 2], lambda n: 2, "failed"),
    (lambda n: [3] * n, lambda n: n, "incomplete"),
    (lambda n: [1] * (n - 1) + [3], lambda n: n, "incomplete"),
    (lambda n: [3] * (n - 1) + [1], lambda n: n, "failed"),
    (lambda n: [1] * n, lambda n: n, "failed"),
    (lambda n: [137, 0], lambda n: 2, "done"),
]


SKY = yaml.safe_load((INFRA / "skypilot" / "difffusr.yaml").read_text())


def load_run(text: str, tmp_path: Path) -> Any:
    loading = pytest.importorskip("difffusr.pipeline.config.loading", reason="difffusr is not installed here")
    (tmp_path / "run.yaml").write_text(text)
    return loading.load_config(tmp_path / "run.yaml")


def fake_difffusr(folder: Path, codes: Sequence[int]) -> None:
    """A `difffusr` that ends with one code after the other, then with 0, and notes with what it was called."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "codes").write_text("\n".join(map(str, [*codes, *[0] * 9])))
    (folder / "difffusr").write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\necho "$@" >> called\nexit "$(sed -n "$(wc -l < called)p" codes)"\n'
    )
    (folder / "difffusr").chmod(0o755)


def calls(folder: Path) -> list[str]:
    return (folder / "called").read_text().splitlines()


# ---- Argo -----------------------------------------------------------------------------------------------------------

ARGO = {thing["kind"]: thing for thing in yaml.safe_load_all((INFRA / "argo" / "difffusr-monthly.yaml").read_text())}
CRON = ARGO["CronWorkflow"]
TEMPLATES = {template["name"]: template for template in CRON["spec"]["workflowSpec"]["templates"]}
RETRY = TEMPLATES["run"]["retryStrategy"]


def argo_faults(thing: dict[str, Any]) -> list[str]:
    """What Argo's own types, as Hera has them, do not take; and names that lead nowhere."""
    models = pytest.importorskip("hera.workflows.models", reason="needs hera, of difffusr[test]")
    schema = models.CronWorkflow.model_json_schema(by_alias=True)
    for part in [schema, *schema["$defs"].values()]:
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    found = [deepest(error) for error in Draft202012Validator(schema).iter_errors(thing)]
    return found or dangling(thing)


def deepest(error: ValidationError) -> str:
    """The message that says most: of a choice, that of the way that went furthest."""
    while error.context:
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), inner.validator != "type"))
    return error.message


def dangling(thing: dict[str, Any]) -> list[str]:
    spec = thing["spec"]["workflowSpec"]
    templates = {template["name"]: template for template in spec["templates"]}
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    found = [] if spec["entrypoint"] in templates else [f"no template {spec['entrypoint']}"]
    for template in templates.values():
        before: set[str] = set()
        for group in template.get("steps", ()):
            for step in group:
                if step["template"] not in templates:
                    found.append(f"no template {step['template']}")
                if "when" in step:
                    asked = step["when"].removeprefix("{{steps.").partition("}}")[0].split(".")
                    named = {p["name"] for p in templates.get(asked[0], {}).get("outputs", {}).get("parameters", ())}
                    if asked[0] not in before or asked[-1] not in named:
                        found.append(f"nothing says {step['when']}")
            before |= {step["name"] for step in group}
        mounted = {mount["name"] for mount in template.get("container", {}).get("volumeMounts", ())}
        found += [f"no volume {name}" for name in mounted - volumes]
    return found


def test_argo_understands_it():
    assert argo_faults(CRON) == []


OF_RUN = "spec/workflowSpec/templates/1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("spec/schedule", SCHEDULE), "'schedule' was unexpected"),
        (put("spec/schedules", SCHEDULE), "is not of type 'array'"),
        (put("spec/timeZone", "Etc/UTC"), "'timeZone' was unexpected"),
        (put("spec/workflowSpec", ...), "'workflowSpec' is a required property"),
        (put("spec/workflowSpec/entryPoint", "monthly"), "'entryPoint' was unexpected"),
        (put("spec/workflowSpec/entrypoint", "weekly"), "no template weekly"),
        (put(f"{OF_RUN}/retryStrategy/when", "x"), "'when' was unexpected"),
        (put(f"{OF_RUN}/retryStrategy/limit", [3]), "[3] is not of type"),
        (put(f"{OF_RUN}/retryStrategy/backoff/factor", {"by": 2}), "{'by': 2} is not of type"),
        (put(f"{OF_RUN}/container/imagePullpolicy", "Always"), "'imagePullpolicy' was unexpected"),
        (put(f"{OF_RUN}/container/command", "sh"), "'sh' is not of type 'array'"),
        (put(f"{OF_RUN}/container/volumeMounts/0/name", "other"), "no volume other"),
        (put(f"{OF_RUN}/outputs/parameters/0/name", "code"), "nothing says"),
        (put("spec/workflowSpec/templates/0/steps/1/0/template", "mail"), "no template mail"),
        (
            put("spec/workflowSpec/templates/0/steps/1/0/when", "{{steps.later.outputs.parameters.outcome}} == 3"),
            "nothing",
        ),
    ],
)
def test_a_broken_workflow_is_found(change, said):
    broken = copy.deepcopy(CRON)
    change(broken)
    assert any(said in fault for fault in argo_faults(broken)), argo_faults(broken)


def test_the_rest_is_of_kubernetes_own_form():
    schema = pytest.importorskip("kubernetes_schema", reason="tests/helpers is not on the path")
    rest = [thing for kind, thing in ARGO.items() if kind != "CronWorkflow"]
    assert [fault for thing in rest for fault in schema.faults_of_core(thing)] == []
    (subject,) = ARGO["RoleBinding"]["subjects"]
    assert (
        subject["name"]
        == ARGO["ServiceAccount"]["metadata"]["name"]
        == CRON["spec"]["workflowSpec"]["serviceAccountName"]
    )
    assert ARGO["RoleBinding"]["roleRef"]["name"] == ARGO["Role"]["metadata"]["name"]
    (volume,) = CRON["spec"]["workflowSpec"]["volumes"]
    assert volume["configMap"]["name"] == ARGO["ConfigMap"]["metadata"]["name"]


def shell(tmp_path: Path, tries: int) -> subprocess.Popen[bytes]:
    """Argo's container, started with so many tries behind it."""
    (tmp_path / "run.sh").write_text(ARGO["ConfigMap"]["data"]["run.sh"])
    env = {variable["name"]: variable["value"] for variable in TEMPLATES["run"]["container"]["env"]}
    assert env["TRIES"] == "{{retries}}"
    env |= {"TRIES": str(tries), "OUTCOME": str(tmp_path / "outcome"), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    return subprocess.Popen(["sh", str(tmp_path / "run.sh")], env=env, stderr=subprocess.PIPE)


def again(code: int) -> bool:
    """The expression on which Argo tries again."""
    expression = RETRY["expression"].replace("asInt(lastRetry.exitCode)", str(code))
    return bool(eval(expression, {"__builtins__": {}}))


@pytest.mark.parametrize(("codes", "attempts", "end"), ENDS)
def test_argo_tries_again_what_another_try_can_mend(codes, attempts, end, tmp_path):
    most = int(RETRY["limit"]) + 1
    fake_difffusr(tmp_path / "bin", codes(most))
    for tries in range(most):
        code = shell(tmp_path, tries).wait(timeout=20)
        if code == 0 or not again(code):
            break
    assert len(calls(tmp_path / "bin")) == attempts(most)
    outcome = (tmp_path / "outcome").read_text().strip()
    assert ("failed" if code else "incomplete" if outcome == "3" else "done") == end


def airflow_shell(tmp_path: Path) -> subprocess.Popen[bytes]:
    """Airflow's container: its shell is a constant of the file, read without Airflow."""
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((INFRA / "airflow" / "difffusr_monthly.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "SHELL"
    }
    env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    return subprocess.Popen(["sh", "-c", constants["SHELL"], "difffusr", "run", "run.yaml"], env=env)


def sky_shell(tmp_path: Path) -> subprocess.Popen[bytes]:
    """SkyPilot's task on its machine."""
    (tmp_path / "difffusr").mkdir(exist_ok=True)
    (tmp_path / "bin").rename(tmp_path / "difffusr" / "bin")
    return subprocess.Popen(["bash", "-c", SKY["run"]], env={**os.environ, "HOME": str(tmp_path)})


@pytest.mark.parametrize("start", [lambda path: shell(path, 0), lambda path: shell(path, 3), airflow_shell, sky_shell])
def test_a_run_whose_node_goes_is_asked_to_stop_waited_for_and_not_taken_for_done(start, tmp_path):
    fake_difffusr(tmp_path / "bin", [])
    (tmp_path / "bin" / "difffusr").write_text(
        f"#!/bin/sh\ntrap 'sleep 0.2; touch {tmp_path}/finished; exit 0' TERM\ntouch {tmp_path}/begun\n"
        "while :; do sleep 0.05; done\n"
    )
    process = start(tmp_path)
    until = time.monotonic() + 20
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=20)
    assert code == 143
    assert (tmp_path / "finished").exists()
    assert again(code)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 137])
def test_airflow_s_pod_ends_as_the_run_does(code, tmp_path):
    fake_difffusr(tmp_path / "bin", [code])
    assert airflow_shell(tmp_path).wait(timeout=20) == code
    assert calls(tmp_path / "bin") == ["run run.yaml"]


def test_argo_runs_what_the_others_run(tmp_path):
    config = load_run(ARGO["ConfigMap"]["data"]["run.yaml"], tmp_path)
    assert config.compute.address is None
    assert CRON["spec"]["schedules"] == [SCHEDULE]
    assert CRON["spec"]["concurrencyPolicy"] == "Forbid"
    assert RETRY["retryPolicy"] == "Always"
    assert str(RETRY["limit"]) == {v["name"]: v["value"] for v in TEMPLATES["run"]["container"]["env"]}["TRIES_MAX"]
    assert PARTS_OF_US.items() <= CRON["spec"]["workflowSpec"]["podMetadata"]["labels"].items()
    assert json.loads(TEMPLATES["run"]["podSpecPatch"]) == {"terminationGracePeriodSeconds": 600}


# ---- Airflow --------------------------------------------------------------------------------------------------------

DAG_FILE = INFRA / "airflow" / "difffusr_monthly.py"
HAS_AIRFLOW = importlib.util.find_spec("airflow") is not None


def load(source: str, tmp_path: Path) -> ModuleType:
    path = tmp_path / "difffusr_monthly_dag.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's module, imported as Airflow imports it."""
    if not HAS_AIRFLOW:
        airflow_stand_in.put_in(monkeypatch)
    return load(DAG_FILE.read_text(), tmp_path)


def test_airflow_understands_it(example):
    assert example.dag.task_ids == ["run", "incomplete", "warn"]
    assert example.run.downstream_task_ids == {"incomplete"}
    assert example.dag.max_active_runs == 1
    assert example.dag.catchup is False
    assert example.run.retries == 3
    assert example.run.cmds == ["sh", "-c", example.SHELL, "difffusr"]
    assert example.run.arguments[:2] == ["run", "/etc/difffusr/run.yaml"]
    assert PARTS_OF_US.items() <= example.run.labels.items()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("schedule=", "schedule_interval=", "schedule_interval"),
        ("max_active_runs=", "max_active_run=", "max_active_run"),
        ("arguments=", "args=", "args"),
        ("container_resources=", "resources=", "resources"),
        ("startup_timeout_seconds=", "startup_timeout=", "startup_timeout"),
        ("service_account_name=", "service_account=", "service_account"),
    ],
)
def test_a_broken_dag_is_found(before, after, said, tmp_path, monkeypatch):
    if not HAS_AIRFLOW:
        airflow_stand_in.put_in(monkeypatch)
    source = DAG_FILE.read_text()
    assert source.count(before) == 1
    with pytest.raises(TypeError, match=said):
        load(source.replace(before, after), tmp_path)


def pod(code: int | None) -> Any:
    """What Kubernetes says of a pod that has ended with a code; None: that it was lost."""
    phase = "Succeeded" if code == 0 else "Failed"
    state = SimpleNamespace(
        terminated=None if code is None else SimpleNamespace(exit_code=code, message=None, reason="x")
    )
    containers = [SimpleNamespace(name="istio-proxy", state=None), SimpleNamespace(name="base", state=state)]
    metadata = SimpleNamespace(name="difffusr", namespace="difffusr", labels={}, annotations={})
    spec = SimpleNamespace(containers=[SimpleNamespace(name="base")])
    return SimpleNamespace(
        metadata=metadata, spec=spec, status=SimpleNamespace(phase=phase, container_statuses=containers)
    )


class Attempt:
    """A task instance on its n-th of so many tries, and what it pushes."""

    def __init__(self, number: int, most: int, pushed: dict[str, Any]) -> None:
        self.try_number, self.max_tries, self.pushed = number, most - 1, pushed

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self.pushed.get(key) if task_ids == "run" else None


@pytest.fixture
def quiet(example, monkeypatch):
    """The operator without a cluster behind it: its pod is there, and is what `pod` says."""
    for name in ("patch_already_checked", "_read_pod_container_states", "_read_pod_events", "process_pod_deletion"):
        if hasattr(type(example.run), name):
            monkeypatch.setattr(type(example.run), name, lambda *args, **kwargs: None)
    if hasattr(type(example.run), "is_istio_enabled"):
        monkeypatch.setattr(type(example.run), "is_istio_enabled", lambda *args: False)
    return example


@pytest.mark.parametrize(("codes", "attempts", "end"), [*ENDS, (lambda n: [None, 0], lambda n: 2, "done")])
def test_airflow_tries_again_what_another_try_can_mend(codes, attempts, end, quiet, monkeypatch):
    most = quiet.run.retries + 1
    pushed: dict[str, Any] = {}
    ended, made = "failed", 0
    for number, code in enumerate([*codes(most), *[0] * most][:most], start=1):
        monkeypatch.setattr(quiet, "get_current_context", lambda n=number: {"ti": Attempt(n, most, pushed)})
        made = number
        try:
            quiet.run.cleanup(pod(code), pod(code))
        except quiet.AirflowFailException:
            break
        except quiet.AirflowException:
            continue
        ended = "incomplete" if pushed["exit_code"] == 3 else "done"
        break
    assert (made, ended) == (attempts(most), end)


def test_without_a_pod_nothing_is_said_of_its_code(quiet, monkeypatch):
    assert quiet.exit_code(None, "base") is None
    assert quiet.exit_code(SimpleNamespace(status=None), "base") is None
    assert quiet.exit_code(SimpleNamespace(status=SimpleNamespace(container_statuses=None)), "base") is None
    assert quiet.exit_code(pod(3), "other") is None
    assert quiet.exit_code(pod(3), "base") == 3


@pytest.mark.parametrize(("code", "warns"), [(0, False), (3, True), (None, False)])
def test_airflow_warns_only_where_chips_are_missing(code, warns, quiet, monkeypatch):
    monkeypatch.setattr(quiet, "get_current_context", lambda: {"ti": Attempt(1, 4, {"exit_code": code})})
    tasks = {task.task_id: task for task in quiet.dag.tasks}
    assert tasks["incomplete"].python_callable() is warns
    assert tasks["incomplete"].downstream_task_ids == {"warn"}


# ---- SkyPilot -------------------------------------------------------------------------------------------------------

HAS_SKY = importlib.util.find_spec("sky") is not None

TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AT_LEAST = {"type": ["string", "number"], "pattern": r"^[0-9.]+\+?$"}
#: Facts of SkyPilot 0.14 about the keys that the example uses, and no others: not its schema.
SKY_FACTS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(("name", "workdir", "setup", "run"), TEXT),
        "num_nodes": COUNT,
        **dict.fromkeys(("envs", "secrets", "file_mounts"), TEXTS),
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "accelerators": {"type": ["string", "object", "array"], "additionalProperties": {"type": "number"}},
                **dict.fromkeys(("cpus", "memory"), AT_LEAST),
                "disk_size": {"type": ["string", "integer"]},
                "use_spot": FLAG,
                **dict.fromkeys(("infra", "image_id"), TEXT),
                "labels": {"type": "object", "additionalProperties": TEXT},
                "job_recovery": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "strategy": {"enum": ["FAILOVER", "EAGER_NEXT_REGION"]},
                        "max_restarts_on_errors": COUNT,
                        "recover_on_exit_codes": {"type": "array", "items": {**COUNT, "maximum": 255}},
                    },
                },
            },
        },
    },
}


def sky_faults(task: dict[str, Any]) -> list[str]:
    """What SkyPilot says of a task, where it is installed; else what the table says."""
    if not HAS_SKY:
        return [error.message for error in Draft202012Validator(SKY_FACTS).iter_errors(task)]
    import sky

    try:
        sky.Task.from_yaml_config(task)  # its schema and more; prices and regions would need the network
    except (ValueError, TypeError, AssertionError, sky.exceptions.InvalidSkyPilotConfigError) as error:
        return [str(error)]
    return []


def test_skypilot_understands_it(monkeypatch):
    monkeypatch.chdir(INFRA.parent)
    assert sky_faults(copy.deepcopy(SKY)) == []


@pytest.mark.parametrize(
    "change",
    [
        put("setups", "true"),
        put("run", ["difffusr", "run"]),
        put("resource", {"cpus": 4}),
        put("num_nodes", "two"),
        put("resources/spot", True),
        put("resources/use_spot", "yes"),
        put("resources/cpus", "many"),
        put("resources/gpus", "L4:1"),
        put("resources/labels/cost-center", 0),
        put("resources/job_recovery", 3),
        put("resources/job_recovery/max_restarts_on_errors", "3"),
        put("resources/job_recovery/recover_on_exit_codes", [300]),
    ],
)
def test_a_broken_task_is_found(change, monkeypatch):
    monkeypatch.chdir(INFRA.parent)
    broken = copy.deepcopy(SKY)
    change(broken)
    assert sky_faults(broken) != []


@pytest.mark.parametrize(("codes", "attempts", "end"), [*ENDS, (lambda n: [143], lambda n: 1, "failed")])
def test_skypilot_s_task_tries_again_what_another_try_can_mend(codes, attempts, end, tmp_path):
    most = 3
    fake_difffusr(tmp_path / "difffusr" / "bin", codes(most))
    ran = subprocess.run(
        ["bash", "-c", SKY["run"]], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, timeout=20
    )
    made = calls(tmp_path / "difffusr" / "bin")
    assert made == [f"run {tmp_path}/run.yaml"] * attempts(most)
    incomplete = b"warning: chips are missing" in ran.stderr
    assert ("failed" if ran.returncode else "incomplete" if incomplete else "done") == end
    if codes(most) == [2]:
        assert ran.returncode == 2


def test_skypilot_itself_tries_nothing_again_but_what_was_taken_away():
    recovery = SKY["resources"]["job_recovery"]
    assert recovery["max_restarts_on_errors"] == 0
    assert "recover_on_exit_codes" not in recovery
    assert SKY["resources"]["use_spot"] is True


def test_what_skypilot_installs_and_sends_is_pinned_and_there(tmp_path):
    root = INFRA.parent
    for name in ("constraints.txt", "infra/locked.txt"):
        assert f"--constraint {name}" in SKY["setup"]
        assert (root / name).exists()
    assert "uv==" in SKY["setup"]
    for source in SKY["file_mounts"].values():
        load_run((root / source).read_text(), tmp_path)
    subprocess.run(["bash", "-n", "-c", SKY["setup"]], check=True)


def test_python_is_that_of_the_project():
    assert "--python 3.11" in SKY["setup"]
    assert sys.version_info >= (3, 11)
