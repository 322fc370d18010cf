"""A message for a webhook: signed, tried again while that helps, within a time limit.

Signatures are those of Standard Webhooks: HMAC-SHA256 of `id.timestamp.body`, base64, as `v1,…` in the header
`webhook-signature` beside `webhook-id` and `webhook-timestamp`. The URL may be a secret: nothing here shows more than
its host.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from pydantic_core import PydanticCustomError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_any,
    stop_before_delay,
    stop_when_event_set,
)

from difffusr.pipeline.config import NotifySection, hook_url
from difffusr.pipeline.ground.urls import host_of

#: Pauses between tries: the first, each twice as long as the one before, none longer than the last, unless the server
#: asks for one with Retry-After.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0

#: Seconds without a connection, and without an answer, after which a try is given up.
_CONNECT_S, _ANSWER_S = 5.0, 10.0

#: Answers other than 5xx after which another try may succeed.
_PASSING = (408, 425, 429)

#: Redirects that are followed, to the same server alone: what is signed is for it.
_REDIRECTS, _MOST_REDIRECTS = (301, 302, 307, 308), 3

#: What a secret begins with whose rest is base64, as Standard Webhooks has it.
_ENCODED = "whsec_"


class UntoldError(Exception):
    """A message was not taken, or cannot be sent. The text says why, without the URL."""


class _TryError(Exception):
    """One try has failed.

    Attributes:
        passing: whether another may succeed.
        pause_s: for how long the server asks to be left alone.
    """

    def __init__(self, why: str, *, passing: bool, pause_s: float = 0.0) -> None:
        super().__init__(why)
        self.passing, self.pause_s = passing, pause_s


@dataclass(frozen=True)
class Hook:
    """Where messages go.

    Attributes:
        url: of the webhook, maybe a secret.
        secret: that messages are signed with; None where they are not signed.
    """

    url: str = field(repr=False)
    secret: str | None = field(repr=False, default=None)

    @classmethod
    def of(cls, notify: NotifySection, environment: Mapping[str, str]) -> Hook | None:
        """The webhook of a configuration, None where there is none.

        Raises:
            UntoldError: a variable is not set, or does not hold what it should.
        """
        if not notify.wanted:
            return None
        url = notify.url
        if notify.url_env is not None:
            try:
                url = hook_url(_variable("url_env", notify.url_env, environment))
            except PydanticCustomError:
                raise UntoldError(f"{notify.url_env} (notify.url_env) does not hold an https:// URL") from None
        secret = None
        if notify.secret_env is not None:
            secret = _variable("secret_env", notify.secret_env, environment)
            try:
                _key(secret)
            except binascii.Error:
                raise UntoldError(f"{notify.secret_env} (notify.secret_env) is not base64 after {_ENCODED}") from None
        return cls(str(url), secret)

    @property
    def host(self) -> str:
        """All of the URL that may be shown."""
        return host_of(self.url)

    def headers(self, identity: str, moment: int, body: bytes) -> dict[str, str]:
        """The headers of a message.

        Args:
            identity: of the message: the same for all tries.
            moment: of this try, seconds since 1970.
        """
        headers = {"webhook-id": identity, "webhook-timestamp": str(moment)}
        if self.secret is not None:
            signed = f"{identity}.{moment}.".encode() + body
            digest = hmac.digest(_key(self.secret), signed, "sha256")
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers


def _variable(key: str, name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise UntoldError(f"{name} (notify.{key}) is not set in the environment")
    return value


def _key(secret: str) -> bytes:
    if secret.startswith(_ENCODED):
        return base64.b64decode(secret.removeprefix(_ENCODED), validate=True)
    return secret.encode()


def post(hook: Hook, message: Mapping[str, Any], agent: str, patience_s: float) -> None:
    """Send a message, whose `id` names it. Tries again after 5xx, 408, 425 and 429, and where no connection comes.

    Args:
        agent: who sends it.
        patience_s: after so many seconds it is over, whatever the server does.

    Raises:
        UntoldError: the server has not taken it.
    """
    body = json.dumps(message, ensure_ascii=False).encode()
    over, given_up = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def send() -> None:
        try:
            for attempt in _tries(patience_s, given_up):
                with attempt:
                    _send(hook, str(message["id"]), body, agent)
        except Exception as error:
            failures.append(error)
        finally:
            over.set()

    # By a thread: a name that is looked up, or an answer that trickles, keeps no limit of its own.
    threading.Thread(target=send, name="notify", daemon=True).start()
    try:
        in_time = over.wait(patience_s)
    finally:
        given_up.set()
    if not in_time:
        raise UntoldError(f"no answer within {patience_s:.0f} s")
    if failures:
        raise UntoldError(str(failures[0]) if isinstance(failures[0], _TryError) else type(failures[0]).__name__)


def _tries(patience_s: float, given_up: threading.Event) -> Retrying:
    return Retrying(
        stop=stop_any(stop_before_delay(patience_s), stop_when_event_set(given_up)),
        wait=_pause,
        sleep=sleep_using_event(given_up),
        retry=retry_if_exception(lambda error: isinstance(error, _TryError) and error.passing),
        reraise=True,
    )


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_s if isinstance(error, _TryError) else 0.0
    return max(asked, min(_FIRST_PAUSE_S * 2 ** (state.attempt_number - 1), _LONGEST_PAUSE_S))


def _send(hook: Hook, identity: str, body: bytes, agent: str) -> None:
    """One try, with the redirects to the same server. Raises _TryError."""
    url = hook.url
    for _ in range(_MOST_REDIRECTS + 1):
        status, headers = _answer(url, hook.headers(identity, int(time.time()), body), body, agent)
        if 200 <= status < 300:
            return
        if status not in _REDIRECTS:
            passing = status >= 500 or status in _PASSING
            raise _TryError(f"it answers with HTTP {status}", passing=passing, pause_s=_asked_pause(headers))
        target = urljoin(url, headers.get("location", ""))
        if _server(target) != _server(url):
            raise _TryError(f"it redirects to {host_of(target)}; if that is right, name that URL", passing=False)
        url = target
    raise _TryError("it redirects without end", passing=False)


def _server(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _answer(url: str, headers: dict[str, str], body: bytes, agent: str) -> tuple[int, Mapping[str, str]]:
    """Status and headers of the answer to one request. Raises _TryError without the URL, which requests would show."""
    import requests

    sent = {"content-type": "application/json", "user-agent": agent, **headers}
    try:
        with requests.post(
            url, data=body, headers=sent, timeout=(_CONNECT_S, _ANSWER_S), allow_redirects=False, stream=True
        ) as answer:
            return answer.status_code, answer.headers
    except requests.exceptions.SSLError:
        raise _TryError("its certificate is not accepted", passing=False) from None
    except requests.exceptions.Timeout:
        raise _TryError("no answer", passing=True) from None
    except requests.exceptions.ConnectionError:
        raise _TryError("no connection", passing=True) from None
    except (requests.exceptions.RequestException, ValueError, OSError) as error:
        raise _TryError(type(error).__name__, passing=False) from None


def _asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds that Retry-After asks for, as a number or a date; 0 without it."""
    asked = headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        moment = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
