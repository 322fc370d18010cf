"""Of Airflow, what the example's file imports: for machines without Airflow, which is large.

Names and arguments are those of Airflow 3.3 and its provider cncf.kubernetes 10.25: what the operator and the DAG take
is a table here, and what they do with a pod that has failed is one line. `make schedulers` runs the same tests on the
real ones.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

#: Arguments that the DAG and the operator have.
DAG_TAKES = {
    "dag_id", "description", "schedule", "start_date", "end_date", "catchup", "max_active_runs", "max_active_tasks",
    "default_args", "tags", "dagrun_timeout", "on_failure_callback", "on_success_callback", "params",
    "render_template_as_native_obj",
}  # fmt: skip
TASK_TAKES = {
    "task_id", "retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "execution_timeout",
    "trigger_rule", "pool", "queue", "owner", "on_failure_callback", "on_retry_callback", "on_success_callback",
    "do_xcom_push", "depends_on_past",
}  # fmt: skip
POD_TAKES = TASK_TAKES | {
    "kubernetes_conn_id", "namespace", "image", "name", "random_name_suffix", "cmds", "arguments", "ports",
    "volume_mounts", "volumes", "env_vars", "env_from", "secrets", "in_cluster", "cluster_context", "labels",
    "reattach_on_restart", "startup_timeout_seconds", "schedule_timeout_seconds", "get_logs", "image_pull_policy",
    "annotations", "container_resources", "affinity", "config_file", "node_selector", "image_pull_secrets",
    "service_account_name", "automount_service_account_token", "hostnetwork", "host_aliases", "tolerations",
    "security_context", "container_security_context", "dnspolicy", "dns_config", "hostname", "subdomain",
    "schedulername",
    "full_pod_spec", "init_containers", "log_events_on_failure", "pod_template_file", "pod_template_dict",
    "priority_class_name", "pod_runtime_info_envs", "termination_grace_period", "configmaps", "skip_on_exit_code",
    "base_container_name", "deferrable", "poll_interval", "on_finish_action", "active_deadline_seconds", "callbacks",
}  # fmt: skip


class AirflowException(Exception):  # noqa: N818 - its name
    """Try again."""


class AirflowFailException(AirflowException):
    """Do not try again."""


class _Model:
    """One of the Kubernetes client's models: its arguments as attributes."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


class DAG:
    """Takes what a DAG takes, and lists its tasks."""

    current: DAG | None = None

    def __init__(self, **given: Any) -> None:
        _known("DAG", given, DAG_TAKES)
        self.__dict__.update(given)
        self.tasks: list[Task] = []

    def __enter__(self) -> DAG:
        DAG.current = self
        return self

    def __exit__(self, *_: object) -> None:
        DAG.current = None

    @property
    def task_ids(self) -> list[str]:
        return [task.task_id for task in self.tasks]


class Task:
    """A task of the DAG that is being defined; `>>` says what comes after it."""

    takes = TASK_TAKES

    def __init__(self, **given: Any) -> None:
        assert DAG.current is not None
        _known(type(self).__name__, given, self.takes)
        self.__dict__.update({**DAG.current.default_args, **given})
        self.downstream_task_ids: set[str] = set()
        DAG.current.tasks.append(self)

    def __rshift__(self, other: Task) -> Task:
        self.downstream_task_ids.add(other.task_id)
        return other


class KubernetesPodOperator(Task):
    """Raises where its pod has not succeeded."""

    takes = POD_TAKES
    base_container_name = "base"

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        if remote_pod is not None and remote_pod.status.phase != "Succeeded":
            raise AirflowException("returned a failure")


def _task(function: Any) -> Any:
    def made() -> Task:
        task = Task(task_id=function.__name__)
        task.python_callable = function
        return task

    return made


_task.short_circuit = _task  # type: ignore[attr-defined]


def _known(what: str, given: dict[str, Any], takes: set[str]) -> None:
    if unknown := set(given) - takes:
        raise TypeError(f"{what} takes no {sorted(unknown)}")


class _Models(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("V1"):
            return _Model
        raise AttributeError(name)


def put_in(patch: Any) -> None:
    """Make it importable as Airflow, until a pytest.MonkeyPatch is undone."""
    content = {
        "airflow.sdk": {"DAG": DAG, "task": _task, "get_current_context": dict},
        "airflow.sdk.exceptions": {"AirflowException": AirflowException, "AirflowFailException": AirflowFailException},
        "airflow.providers.cncf.kubernetes.operators.pod": {"KubernetesPodOperator": KubernetesPodOperator},
    }
    for name, values in content.items():
        parts = name.split(".")
        for end in range(1, len(parts)):
            patch.setitem(sys.modules, ".".join(parts[:end]), sys.modules.get(".".join(parts[:end]), ModuleType("x")))
        module = ModuleType(name)
        module.__dict__.update(values)
        patch.setitem(sys.modules, name, module)
    client = ModuleType("kubernetes.client")
    client.models = _Models("kubernetes.client.models")  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "kubernetes", ModuleType("kubernetes"))
    patch.setitem(sys.modules, "kubernetes.client", client)
    patch.setitem(sys.modules, "kubernetes.client.models", client.models)
