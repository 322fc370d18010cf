"""The log as JSON, one object a line, without secrets."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from difffusr.pipeline.ground.errors import DifffusrError, StoreError

#: What a log call may add with `extra=`. No attribute of a LogRecord has such a name.
FIELDS = ("event", "chip", "scene", "stage", "shard", "actor", "node", "seconds", "reason")

#: More fields of one line, in a mapping, with any names and values: see `life.tell`.
FACTS = "facts"

_HIDDEN = "…"

#: Secrets by their form, each with its replacement.
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

#: `hide` ignores values shorter than this: without them a line would be unreadable.
_SHORTEST = 6

_SECRET_KEY = re.compile(r"key|secret|token|passw|credential|connection_string|sas|auth", re.IGNORECASE)


class SecretFilter(logging.Filter):
    """Removes secrets from log records: by their form (signatures, passwords and keys in URLs and assignments), and the
    values given to `hide`. It changes records, but drops none."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._hidden: tuple[str, ...] = ()
        self.hide(hidden)

    def hide(self, values: Iterable[str]) -> None:
        """Remove these values from now on, plain and URL-quoted."""
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
        """Clean a record: its message with its arguments, its exception's text and its `FIELDS`."""
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
    """The secret values of storage options, for `hide`: those under keys that name a secret."""
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
        """Remove these values from every line from now on."""
        self.secrets.hide(values)

    def close(self) -> None:
        """Close the file, where the handler opened it."""
        super().close()
        if self._owned:
            self.stream.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Print once, in one line, that the log cannot be written: the run goes on without it."""
        if not self._failed:
            self._failed = True
            print(f"warning: the log cannot be written any more ({sys.exc_info()[1]})", file=sys.stderr)


def json_lines(stream_or_path: TextIO | str | os.PathLike[str], run: str) -> JsonLines:
    """A handler for the logger "difffusr" that writes one JSON object a line.

    Each has `time` (ISO 8601, UTC, milliseconds), `level`, `logger`, `message`, `run`; where the call gave them with
    `extra=`, the `FIELDS` and the `FACTS`; `error` for an expected error (DifffusrError) logged with `exc_info`, and
    for any other `trace`, its traceback. Secrets are removed.

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
        """One line; values that JSON cannot hold become text."""
        whole, milliseconds = divmod(int(record.created * 1000), 1000)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "run": self._run,
        }
        facts = {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        facts |= getattr(record, FACTS, {})
        line |= {name: self._plain(value) for name, value in facts.items() if name not in line}
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DifffusrError):
            line["error"] = self._secrets.clean(str(error))
        elif record.exc_text:
            line["trace"] = record.exc_text
        return json.dumps(line)

    def _plain(self, value: Any) -> Any:
        """A value for JSON: NumPy numbers as numbers; everything but finite numbers, groups of values and null as text,
        without secrets."""
        if isinstance(value, Mapping):
            return {self._secrets.clean(str(name)): self._plain(inside) for name, inside in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(inside) for inside in value]
        if hasattr(value, "item") and not isinstance(value, str):
            value = value.item()
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return round(value, 3)
        return self._secrets.clean(str(value))


def _message(record: logging.LogRecord) -> str:
    """A record's text; where its arguments do not fit its format, format and arguments."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args}"
