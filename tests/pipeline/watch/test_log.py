"""An operator's log holds one JSON object a line and no secret."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difffusr.pipeline.ground.errors import ReadError, StoreError
from difffusr.pipeline.watch.log import FIELDS, JsonLines, SecretFilter, json_lines, secret_values


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
