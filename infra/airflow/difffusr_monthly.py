"""A run by the calendar with Airflow (3.3, with its provider cncf.kubernetes).

One pod with a GPU is the driver and its only node, so that the run's exit code reaches Airflow. What is too large for
one: kuberay/components/monthly. The pod's run file is in the ConfigMap `difffusr-airflow`.

| exit code | | the task |
|---|---|---|
| 0 | done, or nothing to do | succeeds |
| 3 | published, and some chips failed | is tried again; after the last try it succeeds, and `warn` runs |
| 1, 137, 143, none | failed, or the pod was lost | is tried again: what is staged is not done again |
| 2 | wrong usage or configuration | fails at once |
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import models as k8s

log = logging.getLogger(__name__)

WRONG, INCOMPLETE = 2, 3

#: The shell between the pod and the run hands SIGTERM on. A run that was asked to stop ends with 0 and is not done: its
#: node goes away, say, and the task is to be tried again.
SHELL = """
stopped= run=
trap 'stopped=yes; [ -z "$run" ] || kill -TERM $run' TERM
difffusr "$@" &
run=$!
if [ $stopped ]; then kill -TERM $run; fi # it came before there was a run
code=0
wait $run || code=$?
while kill -0 $run 2> /dev/null; do # a signal ends the waiting, not the run
  code=0
  wait $run || code=$?
done
if [ $stopped ]; then code=143; fi
exit $code
"""


def exit_code(pod: k8s.V1Pod | None, container: str) -> int | None:
    """What a container of a pod ended with; None where it did not end by itself, or the pod is gone."""
    statuses = (pod.status.container_statuses if pod and pod.status else None) or []
    for status in statuses:
        if status.name == container and status.state and status.state.terminated:
            return status.state.terminated.exit_code
    return None


class DifffusrRun(KubernetesPodOperator):
    """A pod that runs `difffusr run`: its exit code decides whether it is tried again."""

    def cleanup(self, pod: k8s.V1Pod, remote_pod: k8s.V1Pod, *args: Any, **kwargs: Any) -> None:
        """Clean up as for any pod, then say what its exit code means: returns where the task has succeeded.

        Raises:
            AirflowFailException: no second try mends it.
            AirflowException: try again.
        """
        code = exit_code(remote_pod, self.base_container_name)
        ti = get_current_context()["ti"]
        try:
            super().cleanup(pod, remote_pod, *args, **kwargs)
        except AirflowException as error:
            if code == WRONG:
                raise AirflowFailException(
                    "exit code 2: the run file or the command line is wrong; see the log"
                ) from error
            if code != INCOMPLETE or ti.try_number <= ti.max_tries:
                raise
            log.warning("exit code 3 on the last try: the cube is published, and chips are missing from it")
        ti.xcom_push(key="exit_code", value=code)


with DAG(
    dag_id="difffusr_monthly",
    # The month before is published on the 5th; on the 20th what came late or was processed anew is taken in.
    schedule="0 3 5,20 * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # the run file says last-month: it knows no other date
    max_active_runs=1,  # a store has one driver
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10), "retry_exponential_backoff": True},
    tags=["difffusr"],
) as dag:
    run = DifffusrRun(
        task_id="run",
        name="difffusr",
        namespace="difffusr",
        image="123456789012.dkr.ecr.eu-central-1.amazonaws.com/difffusr:0.1.0-cuda",
        cmds=["sh", "-c", SHELL, "difffusr"],
        arguments=["run", "/etc/difffusr/run.yaml", "--json-log", "/dev/stdout"],
        service_account_name="difffusr-worker",
        labels={"app.kubernetes.io/part-of": "difffusr", "team": "my-team", "cost-center": "0000", "run": "luxembourg"},
        annotations={
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "karpenter.sh/do-not-disrupt": "true",
        },
        container_resources=k8s.V1ResourceRequirements(
            requests={"cpu": "6", "memory": "24Gi"}, limits={"memory": "24Gi", "nvidia.com/gpu": "1"}
        ),
        tolerations=[k8s.V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")],
        env_from=[k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="difffusr-source", optional=True))],
        volumes=[k8s.V1Volume(name="run", config_map=k8s.V1ConfigMapVolumeSource(name="difffusr-airflow"))],
        volume_mounts=[k8s.V1VolumeMount(name="run", mount_path="/etc/difffusr", read_only=True)],
        container_security_context={
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        startup_timeout_seconds=1800,  # a node with a GPU has to come first
        termination_grace_period=600,  # a run that is asked to stop finishes what is in flight
        execution_timeout=timedelta(days=4),
        on_finish_action="delete_pod",
    )

    @task.short_circuit
    def incomplete() -> bool:
        """Whether chips are missing from what was published."""
        return get_current_context()["ti"].xcom_pull(task_ids="run", key="exit_code") == INCOMPLETE

    @task
    def warn() -> None:
        """Put your message to whoever should know in its place."""
        log.warning("chips are missing: `difffusr status run.yaml` lists them; the next run tries them again")

    run >> incomplete() >> warn()
