"""Buckets that everybody may read without keys, as the configuration names them, told to every process that reads."""

from __future__ import annotations

import os
from collections.abc import Iterable

#: Workers inherit it from the process that starts them: what opens a file knows no configuration.
_VARIABLE = "DIFFFUSR_UNSIGNED_BUCKETS"


def open_unsigned(buckets: Iterable[str]) -> None:
    """Read these buckets without keys from now on, and no others: in this process and those that it starts."""
    if names := ",".join(buckets):
        os.environ[_VARIABLE] = names
    else:
        os.environ.pop(_VARIABLE, None)


def opens_unsigned(bucket: str | None) -> bool:
    """Whether a bucket is one of them."""
    return bucket in os.environ.get(_VARIABLE, "").split(",")


def unsigned_environment() -> dict[str, str]:
    """What a process that was started by others needs in its environment to read the same buckets without keys."""
    return {_VARIABLE: os.environ[_VARIABLE]} if _VARIABLE in os.environ else {}
