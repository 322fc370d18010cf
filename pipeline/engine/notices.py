"""Notices of preemption: whoever lends a machine says, a while before, that it will take it back.

One interface, and four who give notice: a file, for schedulers and scripts; the metadata services of AWS and of Google
Cloud; a signal, which `hear_sigterm` takes for one. Of a machine that is none of theirs nothing is asked.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol
from urllib.parse import urlsplit

from difffusr.pipeline.ground.urls import first_line

log = logging.getLogger("difffusr.preemption")


@dataclass(frozen=True)
class Notice:
    """A machine is about to be taken away.

    Attributes:
        source: who says so.
        ends: when, seconds since 1970.
    """

    source: str
    ends: float

    @property
    def seconds(self) -> float:
        """From now until then; 0 where it is past."""
        return max(self.ends - time.time(), 0.0)


class Source(Protocol):
    """Who may give notice.

    Attributes:
        name: who that is, as `compute.preemption` has it.
        pause_s: seconds to leave between two questions.
    """

    name: str
    pause_s: float

    def look(self) -> Notice | None:
        """The notice, once there is one. May wait for it for a minute.

        Raises:
            OSError, ValueError, http.client.HTTPException: nobody answers, or not as expected.
        """


#: Names the file that gives notice; `{host}` in it is the machine's name.
FILE_VARIABLE = "DIFFFUSR_PREEMPTION_FILE"

#: Seconds that are left where who gives notice does not say: as schedulers and Google Cloud leave.
USUAL_S = 30.0


class FileSource:
    """A file gives notice by being there. It may hold the seconds that are left when it is written, else `USUAL_S`."""

    name = "file"
    pause_s = 1.0

    def __init__(self, path: str) -> None:
        self._path = Path(path.replace("{host}", socket.gethostname()))

    def look(self) -> Notice | None:
        """See `Source`."""
        try:
            written, text = self._path.stat().st_mtime, self._path.read_text().strip()
        except FileNotFoundError:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = USUAL_S
        return Notice("file", written + seconds if 0 <= seconds < 1e6 else time.time() + USUAL_S)


#: Seconds that a metadata service, which is on the same machine, may take to answer.
_ANSWER_S = 2.0

#: More of an answer is not read.
_MOST_BYTES = 10_000


def _ask(
    base: str, method: str, path: str, headers: Mapping[str, str], within_s: float = _ANSWER_S
) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers of an answer of a metadata service. No proxy is asked: it is this machine's own."""
    there = urlsplit(base)
    connection = http.client.HTTPConnection(there.hostname or "", there.port or 80, timeout=within_s)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES).decode("utf-8", "replace").strip(), answer.headers
    finally:
        connection.close()


class AwsSource:
    """The instance metadata service of EC2, version 2, about a spot instance: two minutes before.

    Its address can be changed as that of AWS's own libraries, by AWS_EC2_METADATA_SERVICE_ENDPOINT.
    """

    name = "aws"
    pause_s = 5.0

    def __init__(self, base: str = "http://169.254.169.254") -> None:
        self._base, self._token = base.rstrip("/"), ""

    def look(self) -> Notice | None:
        """See `Source`."""
        if not self._token:
            self._token = self._new_token()
        status, text, _ = _ask(
            self._base, "GET", "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._token}
        )
        if status == 401:  # the token has run out: the next question has a new one
            self._token = ""
        if status in (401, 404):
            return None
        if status != 200:
            raise ValueError(f"status {status}")
        said: Any = json.loads(text)
        ends = dt.datetime.fromisoformat(str(said["time"])) if isinstance(said, dict) and "time" in said else None
        if ends is None:
            raise ValueError("no time")
        return Notice(
            f"aws: {said.get('action', 'terminate')}"[:40], ends.replace(tzinfo=ends.tzinfo or dt.UTC).timestamp()
        )

    def _new_token(self) -> str:
        status, text, _ = _ask(
            self._base, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        )
        if status != 200 or not text.isprintable() or not text:
            raise ValueError(f"no token, status {status}")
        return text


class GcpSource:
    """The metadata server of Compute Engine about a spot or preemptible machine: half a minute before.

    It is asked to answer when something changes. Its address can be changed as that of Google's own libraries, by
    GCE_METADATA_HOST.
    """

    name = "gcp"
    pause_s = 1.0
    wait_s = 60

    def __init__(self, base: str = "http://metadata.google.internal") -> None:
        self._base, self._etag = base.rstrip("/"), ""

    def look(self) -> Notice | None:
        """See `Source`."""
        path = "/computeMetadata/v1/instance/preempted"
        if self._etag:  # without one it would wait for the next change, whatever there was before
            path += f"?wait_for_change=true&timeout_sec={self.wait_s}&last_etag={self._etag}"
        within_s = self.wait_s + _ANSWER_S if self._etag else _ANSWER_S
        status, text, headers = _ask(self._base, "GET", path, {"Metadata-Flavor": "Google"}, within_s)
        if status != 200 or headers.get("Metadata-Flavor") != "Google":
            raise ValueError(f"status {status}, not of Google's metadata server")
        etag = headers.get("ETag", "")
        self._etag = etag if etag.isalnum() else ""
        if text.upper() not in ("TRUE", "FALSE"):
            raise ValueError("neither TRUE nor FALSE")
        return Notice("gcp: preempted", time.time() + USUAL_S) if text.upper() == "TRUE" else None


def sources_of(preemption: str, machine: Path = Path("/sys")) -> list[Source]:
    """Who may give notice on this machine.

    Args:
        preemption: `compute.preemption`. `auto` asks a metadata service only where the machine's firmware, or the
            variable that names another address, says that there is one.
        machine: where the system describes it.
    """
    wanted = set(_on(machine)) if preemption == "auto" else {preemption}
    found: list[Source] = []
    if "file" in wanted and os.environ.get(FILE_VARIABLE):
        found.append(FileSource(os.environ[FILE_VARIABLE]))
    elif preemption == "file":
        log.warning(
            "compute.preemption: file, but %s is not set here: no notice of preemption will be heard", FILE_VARIABLE
        )
    if "aws" in wanted and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        found.append(AwsSource(base) if base else AwsSource())
    if "gcp" in wanted:
        host = os.environ.get("GCE_METADATA_HOST")
        found.append(GcpSource(f"http://{host}") if host else GcpSource())
    return found


def _on(machine: Path) -> list[str]:
    """What this machine is, by files that cost nothing to read."""
    found = ["file"]
    dmi = machine / "class" / "dmi" / "id"
    if (
        os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        or _first_word(dmi / "sys_vendor") == "Amazon"
        or _first_word(machine / "hypervisor" / "uuid").startswith("ec2")
    ):
        found.append("aws")
    if os.environ.get("GCE_METADATA_HOST") or _first_word(dmi / "product_name") == "Google":
        found.append("gcp")
    return found


def _first_word(file: Path) -> str:
    try:
        return (file.read_text(errors="replace").split() or [""])[0]
    except OSError:
        return ""


#: A source that has failed so many times in a row is asked no more: there is none, or nobody may ask it.
MOST_ERRORS = 10

#: Seconds between two questions to a source that fails, at least; each failure in a row adds as many.
_AFTER_ERROR_S = 5.0


class Watch:
    """Asks sources of notices, each in a thread of its own, until one gives notice. It is heard once.

    Args:
        sources: who may give notice; for none nothing is started.
        heard: called in a source's thread.
    """

    def __init__(self, sources: Sequence[Source], heard: Callable[[Notice], object]) -> None:
        self._heard, self._once, self._ended = heard, threading.Lock(), threading.Event()
        for source in sources:
            name = f"notices of {source.name}"
            threading.Thread(target=self._listen, args=(source,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Ask nothing more. Does not wait for an answer that is on its way."""
        self._ended.set()

    def _listen(self, source: Source) -> None:
        errors, notice = 0, None
        while notice is None and errors < MOST_ERRORS and not self._ended.is_set():
            try:
                notice, errors = source.look(), 0
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                errors += 1
                if errors == MOST_ERRORS:  # the same words on every machine: Ray counts them instead of repeating them
                    log.warning(
                        "no notice of preemption will be heard from %s here, it failed %d times in a row (%s); if this "
                        "machine may be taken away, mend it, else set compute.preemption: none",
                        source.name, errors, first_line(error),
                    )  # fmt: skip
            if notice is None:
                self._ended.wait(max(source.pause_s, errors * _AFTER_ERROR_S))
        if notice is not None and self._once.acquire(blocking=False) and not self._ended.is_set():
            self._ended.set()
            self._heard(notice)


def hear_sigterm(heard: Callable[[Notice], object]) -> None:
    """Take SIGTERM to this process for a notice instead of ending at once; outside the main thread do nothing."""

    def hear(_number: int, _frame: FrameType | None) -> None:
        # By a thread: what the signal interrupts may hold the locks that hearing waits for.
        notice = Notice("SIGTERM", time.time() + USUAL_S)
        threading.Thread(target=heard, args=(notice,), name="notice", daemon=True).start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, hear)
