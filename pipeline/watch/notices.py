"""A webhook, that of `notify`, is told how a run has ended. Nothing that fails here changes the run."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import EXIT_DONE, EXIT_FAILED, EXIT_INCOMPLETE, BudgetError
from difffusr.pipeline.ground.urls import one_line, shown_url
from difffusr.pipeline.watch.hook import Hook, UntoldError, post
from difffusr.pipeline.watch.life import failures_by_kind, package_version
from difffusr.pipeline.watch.log import SecretFilter, secret_values
from difffusr.pipeline.watch.pulse import RunStatus

log = logging.getLogger("difffusr.notify")

#: Seconds that all tries of a message may take together; and where somebody has asked the run to stop, and waits.
_PATIENCE_S, _STOPPED_PATIENCE_S = 30.0, 5.0

#: What each event is called in a line.
_WORDS = {
    "published": "published",
    "incomplete": "finished, but chips failed",
    "failed": "failed",
    "over_budget": "over budget",
    "stopped": "stopped, the same command continues",
}


class Notices:
    """Tells the webhook of a configuration, once its `with` block is left, how the run has ended."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self._began = config, time.time()
        self._event: str | None = None
        self._exit_code, self._why = EXIT_DONE, ""
        self._facts: dict[str, Any] = {}
        self._status: RunStatus | None = None
        self._hook: Hook | None = None

    def __enter__(self) -> Self:
        try:
            self._hook = Hook.of(self._config.notify, os.environ)
        except UntoldError as error:
            log.warning("notify: %s; nobody is told how this run ends", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._broken_off(error)
        if self._hook is not None and self._event in self._config.notify.events:
            self._tell(self._hook, self._event)

    def saw(self, status: RunStatus) -> None:
        """The status of the run was written: the last one says how far it came."""
        self._status = status

    def ended(self, state: str, failed: Mapping[str, str], publication: int | None) -> None:
        """The run has come to its end. Where readers see what they saw before, and nothing failed, nobody is told.

        Args:
            state: see `RunResult.state`.
            failed: the message of each chip that failed.
            publication: the number of the new one.
        """
        if state == "stopped":
            self._event = "stopped"
        elif failed:
            self._event, self._exit_code = "incomplete", EXIT_INCOMPLETE
        elif state == "published":
            self._event = "published"
        self._facts = {"failures": failures_by_kind(failed), "publication": publication}

    def _broken_off(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._event = "over_budget" if isinstance(error, BudgetError) else "failed"
            self._exit_code = getattr(error, "exit_code", EXIT_FAILED)
            self._why = one_line(error, 1000) or type(error).__name__
        else:
            self._event, self._exit_code = "stopped", 130 if isinstance(error, KeyboardInterrupt) else EXIT_DONE

    def _tell(self, hook: Hook, event: str) -> None:
        patience = _STOPPED_PATIENCE_S if event == "stopped" else _PATIENCE_S
        try:
            post(hook, self._message(hook, event), f"difffusr/{package_version('difffusr')}", patience)
        except UntoldError as error:
            why = str(error)
        except KeyboardInterrupt:  # the run itself has ended
            why = "interrupted"
        except Exception as error:
            why = type(error).__name__
        else:
            log.info("notify: %s is told: %s", hook.host, event)
            return
        log.warning("notify: %s was not told (%s): %s", hook.host, _WORDS[event], why)

    def _message(self, hook: Hook, event: str) -> dict[str, Any]:
        """What is sent, without secrets. `text` says it in one line."""
        config, said = self._config, self._status
        message: dict[str, Any] = {
            "id": f"msg_{uuid.uuid4().hex}",
            "event": event,
            "run": config.name,
            "period": config.period.label,
            "store": shown_url(config.store.url),
            "why": self._why,
            "exit_code": self._exit_code,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.time() - self._began, 1),
            "version": package_version("difffusr"),
            **self._facts,
        }
        if said is not None:
            message |= {
                "chips": {"planned": said.chips, "done": said.chips_done, "failed": said.chips_failed},
                "shards": {"planned": said.shards, "done": said.shards_done},
                "gpu_hours": round(said.gpu_hours, 4),
                "cpu_hours": round(said.cpu_hours, 4),
                "cost": round(said.cost, 2) if said.cost else None,
                "currency": said.currency or None,
            }
        message["text"] = _text(message)
        hidden = {hook.url, hook.secret or "", *secret_values(config.store.storage_options)}
        return _cleaned(message, SecretFilter(hidden))


def _text(message: Mapping[str, Any]) -> str:
    """A message in one line, for chats."""
    parts = [f"{message['run']}, {message['period']}: {_WORDS[message['event']]}"]
    if message["why"]:
        parts[0] += f": {message['why']}"
    if kinds := message.get("failures"):
        parts.append("failed " + ", ".join(f"{count:,} ({kind})" for kind, count in kinds.items()))
    if message.get("publication") is not None:
        parts.append(f"publication {message['publication']}")
    counts = {thing: message[thing] for thing in ("chips", "shards") if thing in message}
    parts += [f"{thing} {some['done']:,} of {some['planned']:,}" for thing, some in counts.items() if some["planned"]]
    for key, unit in (("gpu_hours", "GPU-hours"), ("cost", message.get("currency"))):
        if message.get(key):
            parts.append(f"{message[key]:,.2f} {unit}")
    return "; ".join(parts)


def _cleaned(value: Any, secrets: SecretFilter) -> Any:
    """A message's value without secrets."""
    if isinstance(value, Mapping):
        return {key: _cleaned(inside, secrets) for key, inside in value.items()}
    return secrets.clean(value) if isinstance(value, str) else value
