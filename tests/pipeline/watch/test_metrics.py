"""An operator's log holds one JSON object a line and no secret; the meters reach Ray's exporter under known names."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError

from difffusr.pipeline.ground.errors import ReadError, StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.scenes.files import GDAL_OPTIONS
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.watch.log import FIELDS, JsonLines, SecretFilter, json_lines, secret_values
from difffusr.pipeline.watch.metrics import METRICS
from difffusr.pipeline.watch.reasons import REASONS, reason_class


class Log:
    """A logger of its own and what its handler wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler: JsonLines = json_lines(self.stream, "june")
        self.logger = logging.Logger("difffusr.run")
        self.logger.addHandler(self.handler)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def line(self) -> dict[str, Any]:
        (only,) = self.lines()
        return only


@pytest.fixture
def log() -> Log:
    return Log()


# ---- lines ----------------------------------------------------------------------------------------------------------


def test_a_line_says_when_how_bad_who_what_and_of_which_run(log):
    before = time.time()
    log.logger.warning("chip %s failed", "32648_1_2")
    line = log.line()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before)) <= line["time"]
    del line["time"]
    assert line == {
        "level": "warning", "logger": "difffusr.run", "message": "chip 32648_1_2 failed", "run": "june",
    }  # fmt: skip


def test_the_milliseconds_are_those_of_the_record(log):
    record = logging.makeLogRecord({"created": 1717200000.9996, "msg": "x"})
    log.handler.handle(record)
    assert log.line()["time"] == "2024-06-01T00:00:00.999Z"


def test_what_a_call_adds_becomes_fields(log):
    extra = dict(chip="32648_1_2", scene="S2A_1", stage="read", shard="0_1", actor="a", node="n", reason="crs")
    log.logger.info("told", extra={**extra, "seconds": 1.23456})
    line = log.line()
    assert {name: line[name] for name in extra} == extra
    assert line["seconds"] == 1.235


def test_no_field_collides_with_an_attribute_of_python_s_log_records():
    taken = {*vars(logging.makeLogRecord({})), "message", "asctime", "time", "level", "logger", "run", "trace", "error"}
    assert not taken & set(FIELDS)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Path("/a"), "/a"),
    ],
)
def test_numbers_of_numpy_and_what_json_cannot_hold_stay_valid_json(log, value, told):
    log.logger.info("x", extra={"seconds": value})
    assert log.line()["seconds"] == told
    assert "NaN" not in log.stream.getvalue()


def test_line_breaks_and_broken_text_stay_in_one_line(log):
    log.logger.info("one\ntwo\u2028three \udcff")
    assert len(log.stream.getvalue().splitlines()) == 1
    assert log.line()["message"] == "one\ntwo\u2028three \udcff"


def test_arguments_that_do_not_fit_lose_neither_the_line_nor_the_run(log):
    log.logger.info("%d chips", "many")
    assert log.line()["message"] == "%d chips ('many',)"


def test_a_traceback_is_a_field_of_an_unexpected_error(log):
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        log.logger.exception("broken")
    line = log.line()
    assert line["message"] == "broken"
    assert line["trace"].startswith("Traceback")
    assert "a bug" in line["trace"]


def test_an_expected_error_has_no_traceback(log):
    try:
        raise ReadError("scene S2A_1, B04: missing")
    except ReadError:
        log.logger.warning("chip failed", exc_info=True)
    assert "Traceback" not in log.stream.getvalue()
    assert log.line()["error"] == "scene S2A_1, B04: missing"


def test_a_file_is_appended_to_and_its_folder_made(tmp_path):
    path = tmp_path / "logs" / "run.jsonl"
    for message in ("first", "second"):
        handler = json_lines(path, "june")
        handler.handle(logging.makeLogRecord({"msg": message}))
        handler.close()
        assert handler.stream.closed
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["first", "second"]


def test_a_stream_that_was_given_stays_open(log):
    log.handler.close()
    assert not log.stream.closed


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError) as caught:
        json_lines(tmp_path / "taken" / "run.jsonl", "june")
    assert "taken/run.jsonl: the log cannot be written" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_said_once_without_a_traceback_and_the_run_goes_on(capsys):
    with open("/dev/full", "w", buffering=1) as full:
        handler = json_lines(full, "june")
        for _ in range(3):
            handler.handle(logging.makeLogRecord({"msg": "x" * 10_000}))
        assert capsys.readouterr().err.count("\n") == 1


# ---- secrets --------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t+v4lue/with%signs=="


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"https://a.blob/x.tif?se=2&sig={SECRET} failed", "https://a.blob/x.tif?… failed"),
        (f"open('https://a/x.tif?token={SECRET}')", "open('https://a/x.tif?…')"),
        (f"s3://user:{SECRET.replace('/', '')}@bucket/x", "s3://…@bucket/x"),
        (f"s3://{SECRET.replace('/', '')}@bucket/x", "s3://…@bucket/x"),
        (f"/vsicurl/https://a/x.tif?X-Amz-Signature={SECRET}&b=1", "/vsicurl/https://a/x.tif?…"),
        (f"x.tif: query sig={SECRET}&se=1", "x.tif: query sig=…&se=1"),
        (f"header X-Amz-Security-Token: {SECRET}", "header X-Amz-Security-Token: …"),
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "key … is unknown"),
        ("key ASIAIOSFODNN7EXAMPLE is unknown", "key … is unknown"),
        (f"aws_secret_access_key={SECRET}", "aws_secret_access_key=…"),
        (f"{{'secret': '{SECRET}', 'anon': False}}", "{'secret': '…', 'anon': False}"),
        (f'{{"password": "{SECRET}"}}', '{"password": "…"}'),
        (f"account_key: {SECRET};", "account_key: …;"),
        (f"Authorization: Bearer {SECRET.replace('%', '')}", "Authorization: Bearer …"),
    ],
)
def test_secrets_are_known_by_their_form(said, shown):
    assert SecretFilter().clean(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "scene S2A_MSIL2A_20240601, B04: https://a/B04.tif cannot be opened (HTTP response code: 404)",
        "chip 32648_1_2: 12 of 13 tokens left; what is the key?",
        "keep_chips: true, monkey=banana",
        "s3://bucket/cube.zarr/32648/0",
        "mail to a@b.org",
    ],
)
def test_what_is_no_secret_stays(said):
    assert SecretFilter().clean(said) == said


def test_a_secret_is_nowhere_in_a_line(log):
    log.handler.hide([SECRET])
    address = f"https://account/x.tif?sig={SECRET}"
    try:
        try:
            raise OSError(f"cannot open {address}")
        except OSError as error:
            raise ValueError(f"plainly {SECRET}") from error
    except ValueError:
        extra = {"scene": f"S2A {SECRET}", "reason": address, "node": Path(f"/n/{SECRET}")}
        log.logger.error("%s: %s", address, SECRET, exc_info=True, extra=extra, stack_info=True)
    text = log.stream.getvalue()
    assert json.loads(text)["trace"].count("…") >= 2
    assert "s3cr3t" not in text
    assert "v4lue" not in text


def test_a_secret_is_hidden_as_it_stands_in_a_url_too():
    hush = SecretFilter([SECRET])
    assert hush.clean("/path/s3cr3t%2Bv4lue%2Fwith%25signs%3D%3D/x") == "/path/…/x"


def test_the_filter_cleans_for_any_handler_and_drops_nothing():
    stream = io.StringIO()
    plain = logging.StreamHandler(stream)
    plain.addFilter(SecretFilter([SECRET]))
    logger = logging.Logger("difffusr")
    logger.addHandler(plain)
    try:
        raise OSError(SECRET)
    except OSError:
        logger.exception("with %s", SECRET)
    assert stream.getvalue().startswith("with …\nTraceback")
    assert "s3cr3t" not in stream.getvalue()


def test_the_values_of_storage_options_that_nobody_may_see():
    options = {
        "key": "AKIA1", "secret": "hidden1", "anon": False, "endpoint_url": "http://x",
        "client_kwargs": {"region_name": "eu", "aws_session_token": "hidden2"},
    }  # fmt: skip
    assert secret_values(options) == {"AKIA1", "hidden1", "hidden2"}


# ---- reasons --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """A server that answers every path with the status it begins with."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def gdal_says(address: str, **options: str) -> str:
    """A chip's message as `pipeline.scenes.files` makes it of what GDAL says."""
    environment = rasterio.Env(**{**GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY": "0", **options})
    with environment, pytest.raises(RasterioIOError) as caught:
        rasterio.open(address)
    return f"scene S2A_404, B04: {address} cannot be opened ({first_line(caught.value)}); check that the file exists"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "http_404"), (403, "http_403"), (401, "http_403"), (429, "http_429"), (500, "http_5xx"), (503, "http_5xx")],
)
def test_a_refusal_is_known_by_its_status(refusing, status, reason):
    assert reason_class(gdal_says(f"{refusing}/{status}/x.tif")) == reason


def test_a_server_that_does_not_answer_is_a_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.tif"
        assert reason_class(gdal_says(address, GDAL_HTTP_TIMEOUT="1")) == "timeout"
    nobody_listens_now = address.replace("x.tif", "y.tif")  # of x.tif GDAL remembers that it is not there
    assert reason_class(gdal_says(nobody_listens_now)) == "timeout"


def test_a_file_that_is_no_raster_is_damaged(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"garbage" * 100)
    assert reason_class(gdal_says(str(tmp_path / "x.tif"))) == "damaged"


def test_a_file_that_is_not_there_is_missing(tmp_path):
    assert reason_class(gdal_says(str(tmp_path / "x.tif"))) == "missing"


def test_a_store_that_refuses_is_the_store_s_failure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Storage(str(tmp_path / "file")).write("chips/1.chip", b"x")
    assert reason_class(str(caught.value)) == "store"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("scene A, B02: /a.tif has CRS EPSG:32647, its item says EPSG:32648; correct the item", "crs"),
        (
            "scene A, B02: /a.tif has the transform (10.0,), expected north-up pixels of 10 m on the zone's lattice",
            "crs",
        ),
        ("scene A, B02: /a.tif is damaged or incomplete (Read failed. See previous exception for details.)", "damaged"),
        ("scene A, B02: /a.tif is damaged or incomplete (CURL error: Operation timed out after 60000 ms)", "timeout"),
        ("scene A, B02: /404.tif is damaged or incomplete (TIFFReadEncodedTile failed)", "damaged"),
        ("s3://b/cube.staging/chips/1: cannot be written (SlowDown); check the store's URL", "http_429"),
        ("s3://b/cube.staging/chips/1: cannot be written (No space left on device); check", "store"),
        (
            "super_resolve: given up after 3 workers ended or stalled at it; the workers' memory may not be enough",
            "stall",
        ),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "memory"),
        ("KeyError: 'B04'", "other"),
        ("", "other"),
    ],
)
def test_messages_of_the_pipeline_have_a_reason(message, reason):
    assert reason_class(message) == reason
    assert reason in REASONS


# ---- meters ---------------------------------------------------------------------------------------------------------


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
