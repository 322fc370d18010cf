"""What an operator sees of a run from outside: one JSON object a log line, and numbers for Prometheus."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.errors import DifffusrError, StoreError

Stage = Literal["read", "super_resolve", "stage"]
Cause = Literal["stall", "death"]


# ---- metrics --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A number that a run tells.

    Attributes:
        name: as it is given to Ray.
        kind: of Prometheus.
        unit: of its values.
        help: what it is, one sentence.
        tags: what its values are told apart by, beside run and period.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> frozenset[str]:
        """The names under which Prometheus has it: Ray puts ray_ before each, and a histogram has three."""
        ends = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return frozenset(f"ray_{self.name}{end}" for end in ends)


CHIPS = Metric("difffusr_chips_total", "counter", "chips", "Chips that passed a stage.", ("stage",))
CHIPS_FAILED = Metric("difffusr_chips_failed_total", "counter", "chips", "Chips that failed, by reason.", ("reason",))
CHIP_SECONDS = Metric("difffusr_chip_seconds", "histogram", "seconds", "Time a chip took in a stage.", ("stage",))
CHIPS_PLANNED = Metric("difffusr_chips_planned", "gauge", "chips", "Chips of the plan.")
CHIPS_DONE = Metric("difffusr_chips_done", "gauge", "chips", "Chips that are done, those found done included.")
CHIPS_REUSED = Metric("difffusr_chips_reused", "gauge", "chips", "Chips that were found done when the run began.")
SHARDS_PLANNED = Metric("difffusr_shards_planned", "gauge", "shards", "Shards of the plan.")
SHARDS_WRITTEN = Metric("difffusr_shards_written", "gauge", "shards", "Shards that are written, those kept included.")
BYTES_STAGED = Metric("difffusr_bytes_staged_total", "counter", "bytes", "Bytes of staged chips written.")
ACTOR_RESTARTS = Metric(
    "difffusr_actor_restarts_total",
    "counter",
    "restarts",
    "Workers killed for a stall, and actors started anew after a death, of a killed one too.",
    ("cause",),
)
STALLED = Metric("difffusr_stalled", "gauge", "seconds", "Time since the run last got on.")
GPU_SECONDS = Metric("difffusr_gpu_seconds_total", "counter", "seconds", "GPU time held by actors, a GPU for a second.")
LEASE_AGE = Metric("difffusr_lease_age_seconds", "gauge", "seconds", "Time since the store took the lease's last beat.")
PUBLISH = Metric("difffusr_publish_total", "counter", "publications", "Publications of the cube.")

#: Everything that a run tells: the dashboard and the alerts use no other names of ours.
METRICS = (
    CHIPS, CHIPS_FAILED, CHIP_SECONDS, CHIPS_PLANNED, CHIPS_DONE, CHIPS_REUSED, SHARDS_PLANNED, SHARDS_WRITTEN,
    BYTES_STAGED, ACTOR_RESTARTS, STALLED, GPU_SECONDS, LEASE_AGE, PUBLISH,
)  # fmt: skip

#: Upper bounds of the histogram's buckets, in seconds: a window read from a near disk to a large batch on a CPU.
SECONDS_BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Meters:
    """The meters of one process of a run. Ray exports them from every node; counts of all processes add up.

    Make it once a process: Ray does not tell two instances of a meter apart. What is told before `ray.init` is lost,
    and in a process that joins no cluster it is told to nobody; neither is an error.
    """

    def __init__(self, run: str, period: str) -> None:
        self._tags = {"run": run, "period": period}
        self._counters = {m: Counter(m.name, _told(m), _tag_keys(m)) for m in METRICS if m.kind == "counter"}
        self._gauges = {m: Gauge(m.name, _told(m), _tag_keys(m)) for m in METRICS if m.kind == "gauge"}
        self._seconds = Histogram(
            CHIP_SECONDS.name, _told(CHIP_SECONDS), boundaries=list(SECONDS_BOUNDS), tag_keys=_tag_keys(CHIP_SECONDS)
        )

    def plan(self, chips: int, reused: int, shards: int, written: int) -> None:
        """The run begins: chips and shards planned, and those of them found done."""
        self._set(CHIPS_PLANNED, chips)
        self._set(CHIPS_REUSED, reused)
        self._set(SHARDS_PLANNED, shards)
        self.chips_done(reused)
        self.shards_written(written)

    def chips_done(self, count: int) -> None:
        """So many chips of the plan are done by now, those found done included."""
        self._set(CHIPS_DONE, count)

    def shards_written(self, count: int) -> None:
        """So many shards of the plan are written by now, those kept included."""
        self._set(SHARDS_WRITTEN, count)

    def chip(self, stage: Stage, seconds: float) -> None:
        """A chip passed a stage, which took it so long."""
        self._add(CHIPS, 1, stage=stage)
        self._seconds.observe(float(seconds), {**self._tags, "stage": stage})

    def chip_failed(self, message: str) -> str:
        """A chip failed with this message; returns the reason under which it is counted."""
        reason = reason_class(message)
        self._add(CHIPS_FAILED, 1, reason=reason)
        return reason

    def staged(self, size: int) -> None:
        """So many bytes of a staged chip were written."""
        self._add(BYTES_STAGED, size)

    def actor_restarted(self, cause: Cause) -> None:
        """An actor is started anew: it stalled, or it died."""
        self._add(ACTOR_RESTARTS, 1, cause=cause)

    def stalled(self, seconds: float) -> None:
        """The run last got on so long ago."""
        self._set(STALLED, seconds)

    def gpu(self, seconds: float) -> None:
        """So much more GPU time was held: seconds times GPUs."""
        self._add(GPU_SECONDS, seconds)

    def lease_age(self, seconds: float) -> None:
        """The store took the lease's last beat so long ago."""
        self._set(LEASE_AGE, seconds)

    def published(self) -> None:
        """The cube was published."""
        self._add(PUBLISH, 1)

    def _set(self, metric: Metric, value: float) -> None:
        self._gauges[metric].set(float(value), self._tags)

    def _add(self, metric: Metric, value: float, **tags: str) -> None:
        if value > 0:  # Ray refuses a counter's nought
            self._counters[metric].inc(float(value), {**self._tags, **tags})


def _tag_keys(metric: Metric) -> tuple[str, ...]:
    return ("run", "period", *metric.tags)


def _told(metric: Metric) -> str:
    return f"{metric.help} Unit: {metric.unit}."


#: Kinds of failure, each with what a message of that kind says; the first that fits counts. Statuses come from GDAL
#: ("HTTP response code: 404"), from the catalogue's client ("HTTP 404") and from object stores ("(404)", "SlowDown").
_REASONS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        # First what the run itself says of its workers: such a message may quote another.
        ("stall", r"\bstalled\b|no progress for"),
        ("memory", r"out of memory|OutOfMemory|MemoryError|cannot allocate|bad_alloc|memory may not be enough"),
        ("http_404", r"(HTTP( response code:| error)? |\()404\b|NoSuchKey"),
        ("http_403", r"(HTTP( response code:| error)? |\()40[13]\b|AccessDenied|InvalidAccessKeyId|requester pays"),
        ("http_429", r"(HTTP( response code:| error)? |\()429\b|too many requests|SlowDown|RequestLimitExceeded"),
        ("http_5xx", r"(HTTP( response code:| error)? |\()5\d\d\b|InternalError|ServiceUnavailable"),
        (
            "timeout",
            r"timed out|timeout|too slow|could not (connect|resolve)|failed to connect|connection (reset|refused)",
        ),
        ("missing", r"No such file or directory|does not exist in the file system"),
        ("crs", r"has CRS |has the transform |on the zone's lattice|its CRS is|Invalid projection"),
        ("damaged", r"is damaged|not recognized as being in a supported|not a TIFF|TIFFReadEncoded|IReadBlock"),
        ("store", r"cannot be (written|deleted|listed|looked up|opened as a store)|the store returns|no space left"),
        ("store", r"staged chip|/chips/.* cannot be read"),
    )
)

#: Everything that `reason_class` answers.
REASONS = (*dict.fromkeys(reason for reason, _ in _REASONS), "other")


def reason_class(message: str) -> str:
    """The kind of a chip's failure, one of `REASONS`, by the message that `pipeline.raster`, `pipeline.storage` and the
    engine give; "other" for what is none of them."""
    return next((reason for reason, pattern in _REASONS if pattern.search(message)), "other")


# ---- log ------------------------------------------------------------------------------------------------------------

#: What a log call may add with `extra=`. No attribute of a LogRecord has such a name.
FIELDS = ("chip", "scene", "stage", "shard", "actor", "node", "seconds", "reason")

_HIDDEN = "…"

#: Secrets by their form, each with what stands in their place.
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        (r"(\w://)[^\s/?#'\"<>]*@", rf"\1{_HIDDEN}@"),
        (r"(\w://[^\s?#'\"<>]*)\?[^\s'\"<>)\]}]*", rf"\1?{_HIDDEN}"),
        (r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b", _HIDDEN),
        (r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", rf"\1 {_HIDDEN}"),
        (
            r"\b(sig|signature|X-(?:Amz|Goog)-[\w-]+|AWSAccessKeyId|[\w-]*(?:secret|password|passwd|token|api_?key|access_?key"
            r"|account_?key)[\w-]*)(['\"]?\s*[=:]\s*['\"]?)(?!…)[^\s&'\",;)}\]]+",
            rf"\1\2{_HIDDEN}",
        ),
    )
)

#: Values shorter than this are not taken out by `hide`: what would be left of a line says nothing.
_SHORTEST = 6

_SECRET_KEY = re.compile(r"key|secret|token|passw|credential|connection_string|sas|auth", re.IGNORECASE)


class SecretFilter(logging.Filter):
    """Takes secrets out of log records: by their form (signatures, passwords and keys in URLs and assignments), and the
    values named to `hide`. Records pass through it changed, never dropped."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._hidden: tuple[str, ...] = ()
        self.hide(hidden)

    def hide(self, values: Iterable[str]) -> None:
        """Take these values out from now on, as they are and as they stand in URLs."""
        known = {form for value in values if len(value) >= _SHORTEST for form in (value, quote(value, safe=""))}
        self._hidden = tuple(sorted(known | set(self._hidden), key=len, reverse=True))

    def clean(self, text: str) -> str:
        """A text without secrets."""
        for value in self._hidden:
            text = text.replace(value, _HIDDEN)
        for pattern, shown in _SECRETS:
            text = pattern.sub(shown, text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record: its message with its arguments, its exception's text and what was added to it."""
        record.msg, record.args = self.clean(_message(record)), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.clean(record.exc_text)
        if record.stack_info:
            record.stack_info = self.clean(record.stack_info)
        for name in FIELDS:
            if isinstance(value := getattr(record, name, None), str):
                setattr(record, name, self.clean(value))
        return True


def secret_values(options: Mapping[str, Any]) -> set[str]:
    """The values of storage options that nobody may see, to be given to `hide`: those under keys that name a secret."""
    found: set[str] = set()
    for key, value in options.items():
        if isinstance(value, Mapping):
            found |= secret_values(value)
        elif isinstance(value, str) and _SECRET_KEY.search(str(key)):
            found.add(value)
    return found


class JsonLines(logging.StreamHandler[TextIO]):
    """Writes log records as JSON, one object a line, without secrets."""

    def __init__(self, stream: TextIO, run: str, *, owned: bool) -> None:
        super().__init__(stream)
        self._owned, self._failed = owned, False
        self.secrets = SecretFilter()
        self.addFilter(self.secrets)
        self.setFormatter(_JsonFormatter(run, self.secrets))

    def hide(self, values: Iterable[str]) -> None:
        """Take these values out of every line from now on."""
        self.secrets.hide(values)

    def close(self) -> None:
        """Close the file, where the handler opened it."""
        super().close()
        if self._owned:
            self.stream.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Say once, in one line, that the log cannot be written: the run goes on without it."""
        if not self._failed:
            self._failed = True
            print(f"warning: the log cannot be written any more ({sys.exc_info()[1]})", file=sys.stderr)


def json_lines(stream_or_path: TextIO | str | os.PathLike[str], run: str) -> JsonLines:
    """A handler for the logger "difffusr" that writes one JSON object a line.

    Each has `time` (ISO 8601, UTC, milliseconds), `level`, `logger`, `message`, `run`; where the call gave them with
    `extra=`, the `FIELDS`; `error` for an expected error (DifffusrError) logged with `exc_info`, and for any other
    `trace`, its traceback. Secrets are taken out.

    Args:
        stream_or_path: an open text stream, or a local file that is appended to.
        run: name of the run.

    Raises:
        StoreError: the file cannot be written.
    """
    if not isinstance(stream_or_path, str | os.PathLike):
        return JsonLines(stream_or_path, run, owned=False)
    path = Path(stream_or_path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JsonLines(path.open("a", encoding="utf-8", buffering=1), run, owned=True)
    except OSError as error:
        raise StoreError(f"{path}: the log cannot be written ({error.strerror}); choose another file") from None


class _JsonFormatter(logging.Formatter):
    def __init__(self, run: str, secrets: SecretFilter) -> None:
        super().__init__()
        self._run, self._secrets = run, secrets

    def format(self, record: logging.LogRecord) -> str:
        """One line: what JSON cannot hold is told as text."""
        whole, milliseconds = divmod(int(record.created * 1000), 1000)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "run": self._run,
        }
        line |= {name: self._plain(value) for name in FIELDS if (value := getattr(record, name, None)) is not None}
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DifffusrError):
            line["error"] = self._secrets.clean(str(error))
        elif record.exc_text:
            line["trace"] = record.exc_text
        return json.dumps(line)

    def _plain(self, value: Any) -> Any:
        """A value as JSON has it: numbers of NumPy as numbers, what is no finite number or text as text."""
        if hasattr(value, "item") and not isinstance(value, str):
            value = value.item()
        if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return round(value, 3) if isinstance(value, float) else value
        return self._secrets.clean(str(value))


def _message(record: logging.LogRecord) -> str:
    """A record's text; where its arguments do not fit its format, both as they are."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args}"
