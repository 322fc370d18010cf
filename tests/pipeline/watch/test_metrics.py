"""The meters reach Ray's exporter under known names."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from difffusr.pipeline.watch.metrics import METRICS


def test_every_metric_is_named_by_the_rules_of_prometheus():
    for metric in METRICS:
        assert re.fullmatch(r"difffusr_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert metric.unit
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_without_a_cluster_the_meters_are_silent():
    meters = "from difffusr.pipeline.watch.metrics import Meters; m = Meters('june', '2024-06')"
    code = f"{meters}; m.chips_done(1); m.chip('read', 0.1)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout + told.stderr == ""


EXPORTING = """
import sys, ray
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=40,
         _metrics_export_port=int(sys.argv[1]), _system_config={"metrics_report_interval_ms": 1000})
from difffusr.pipeline.watch.metrics import Meters

@ray.remote
class Worker:
    def __init__(self):
        self.meters = Meters("june", "2024-06")
    def work(self):
        self.meters.chip("super_resolve", 2.5)
        self.meters.gpu(2.5)

worker = Worker.remote()
ray.get(worker.work.remote())
m = Meters("june", "2024-06")
m.plan(chips=10, reused=2, shards=3, written=1)
m.chips_done(5)
m.chip("read", 0.3); m.chip("read", 0.4); m.chip("stage", 0.1)
assert m.chip_failed("HTTP response code: 404") == "http_404"
m.staged(1000); m.staged(0); m.actor_restarted("stall"); m.stalled(7); m.lease_age(2); m.published()
m.actor_preempted(); m.given_back(3)
print("told", flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def scraped() -> dict[str, list[tuple[dict[str, str], float]]]:
    """What Ray's exporter serves of a small run: by name, the labels and value of every sample."""
    for needed in ("opencensus", "prometheus_client", "opentelemetry.exporter.prometheus", "aiohttp_cors"):
        pytest.importorskip(needed, reason="Ray exports metrics only where ray[default] is installed")
    from prometheus_client.parser import text_string_to_metric_families

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "fatal"}
    command = [sys.executable, "-c", EXPORTING, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        assert run.stdout.readline() == "told\n"
        deadline, text = time.monotonic() + 45, ""
        while not all(f"ray_{metric.name}" in text for metric in METRICS) and time.monotonic() < deadline:
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                continue  # the exporter is not up yet
        run.stdin.close()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def total(scraped: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    wanted = {"run": "june", "period": "2024-06", **labels}.items()
    return sum(value for found, value in scraped[name] if wanted <= found.items())


def test_every_metric_reaches_ray_s_exporter_under_the_names_it_states(scraped):
    for metric in METRICS:
        assert metric.exported <= set(scraped), metric.name
    ours = {name for name in scraped if name.startswith("ray_difffusr") and not name.endswith("_created")}
    assert ours == set().union(*(metric.exported for metric in METRICS))


def test_the_exported_numbers_are_those_told_by_driver_and_workers(scraped):
    assert total(scraped, "ray_difffusr_chips_total", stage="read") == 2
    assert total(scraped, "ray_difffusr_chips_total", stage="super_resolve") == 1
    assert total(scraped, "ray_difffusr_chips_failed_total", reason="http_404") == 1
    assert total(scraped, "ray_difffusr_chips_planned") == 10
    assert total(scraped, "ray_difffusr_chips_done") == 5
    assert total(scraped, "ray_difffusr_chips_reused") == 2
    assert total(scraped, "ray_difffusr_shards_planned") == 3
    assert total(scraped, "ray_difffusr_shards_written") == 1
    assert total(scraped, "ray_difffusr_bytes_staged_total") == 1000
    assert total(scraped, "ray_difffusr_actor_restarts_total", cause="stall") == 1
    assert total(scraped, "ray_difffusr_stalled") == 7
    assert total(scraped, "ray_difffusr_gpu_seconds_total") == 2.5
    assert total(scraped, "ray_difffusr_lease_age_seconds") == 2
    assert total(scraped, "ray_difffusr_publish_total") == 1


def test_a_chip_s_seconds_lie_in_their_bucket(scraped):
    at_most = {
        le: total(scraped, "ray_difffusr_chip_seconds_bucket", stage="super_resolve", le=le) for le in ("2.0", "5.0")
    }
    assert at_most == {"2.0": 0, "5.0": 1}
