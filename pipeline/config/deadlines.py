"""When a run has to have ended: a time, or how long it may take."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from difffusr.pipeline.config import patterns

_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}

_NUMBER, _UNIT = r"(\d{1,9}(?:\.\d{1,9})?)", r"(d|h|min|m|s)"

_DURATION = re.compile(rf"(?:{_NUMBER}\s*{_UNIT}\s*)+", re.ASCII)

_PART = re.compile(rf"{_NUMBER}\s*{_UNIT}", re.ASCII)

_TIME = re.compile(r"\d{4}-\d\d-\d\d[t ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(z|[+-]\d\d:?\d\d)?", re.ASCII | re.IGNORECASE)

#: Longer is no deadline.
_LONGEST = dt.timedelta(days=3650)


def deadline_at(text: str, began: dt.datetime) -> dt.datetime:
    """The time that a deadline stands for; a time without zone is UTC.

    Args:
        text: a time as ISO 8601 has it, with date, hours and minutes, or a duration such as `6h` or `1h30m`.
        began: what a duration is counted from, with a zone.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip().lower()
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        if not 0 < seconds <= _LONGEST.total_seconds():
            raise ValueError(text)
        return began + dt.timedelta(seconds=seconds)
    if not _TIME.fullmatch(text):  # a day alone may mean its beginning or its end
        raise ValueError(text)
    found = dt.datetime.fromisoformat(text.upper())
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _text(value: object) -> object:
    """YAML makes times of texts that look like one."""
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _checked(text: str) -> str:
    deadline_at(text, dt.datetime.now(dt.UTC))
    return text


Deadline = Annotated[str, BeforeValidator(_text), AfterValidator(_checked)]

#: A deadline that need not be.
MaybeDeadline = Annotated[Deadline | None, WithJsonSchema(patterns.DEADLINE)]
