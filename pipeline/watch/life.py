"""The life of a run as lines of its log: started, planned, every stage, every shard, published, ended, and meanwhile a
sign of life a minute. The text is for people; the same facts are fields of the JSON log, each line's kind as `event`.
"""

from __future__ import annotations

import logging
import math
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.urls import shown_url
from difffusr.pipeline.ground.words import span_words
from difffusr.pipeline.watch.pulse import RunStatus
from difffusr.pipeline.watch.reasons import reason_class

log = logging.getLogger("difffusr.run")

#: Seconds between two signs of life.
HEARTBEAT_S = 60.0


def tell(event: str, text: str, **facts: Any) -> None:
    """Log one line of a run's life.

    Args:
        event: its kind.
        text: for people.
        facts: the same, as fields of the JSON log.
    """
    log.info("%s", text, extra={"event": event, "facts": facts})


def tell_started(config: RunConfig, file: Path | None) -> None:
    """A run begins: of which configuration, with which software, where."""
    versions = {name: found for name in ("difffusr", "ray", "torch") if (found := package_version(name))}
    versions["python"] = platform.python_version()
    store, staging = shown_url(config.store.url), shown_url(config.store.staging)
    address = config.compute.address or "this machine"
    named = f" ({file})" if file else ""
    software = ", ".join(f"{name} {found}" for name, found in versions.items())
    tell(
        "started",
        f"started: {config.name}, {config.period.label}{named}; {software}; cluster {address}; store {store}; "
        f"staging {staging}",
        config=str(file) if file else None,
        name=config.name,
        period=config.period.label,
        versions=versions,
        address=address,
        store=store,
        staging=staging,
    )


def tell_cluster(nodes: int, gpus: float, cpus: float) -> None:
    """The cluster is there, and what it has."""
    tell("cluster", f"cluster: nodes {nodes}, GPUs {gpus:g}, cores {cpus:g}", nodes=nodes, gpus=gpus, cpus=cpus)


def tell_planned(scenes: int, chips: int, chips_todo: int, shards: int, shards_todo: int) -> None:
    """What is planned, and how much of it is to do."""
    tell(
        "planned",
        f"planned: scenes {scenes:,}; chips {chips:,}, to do {chips_todo:,}; shards {shards:,}, to do {shards_todo:,}",
        scenes=scenes,
        chips=chips,
        chips_todo=chips_todo,
        shards=shards,
        shards_todo=shards_todo,
    )


@contextmanager
def stage_told(stage: str) -> Iterator[None]:
    """A stage begins and ends."""
    tell("stage_begun", f"{stage}: begun", stage=stage)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        seconds = time.monotonic() - began
        tell("stage_broken_off", f"{stage}: broken off after {span_words(seconds)}", stage=stage, seconds=seconds)
        raise
    seconds = time.monotonic() - began
    tell("stage_done", f"{stage}: done in {span_words(seconds)}", stage=stage, seconds=seconds)


def tell_shard(name: str, seconds: float) -> None:
    """A shard is written, so long after its task was begun."""
    tell("shard", f"shard {name} written in {seconds:.1f} s", shard=name, seconds=seconds)


def tell_preempted(host: str, source: str, seconds: float, chips: int) -> None:
    """An actor's machine is about to go, and what is in flight there is finished."""
    left = f"in {span_words(seconds)}" if math.isfinite(seconds) else "at some time"
    tell(
        "preempted",
        f"preempted: an actor on {host} goes {left} ({source}); it finishes {chips:,} chips, and begins nothing more",
        host=host,
        source=source,
        seconds=seconds,
        chips=chips,
    )


def tell_given_back(host: str, chips: int) -> None:
    """A preempted actor has ended amid chips."""
    tell(
        "given_back",
        f"given back: {chips:,} chips that an actor on {host} could not end in time",
        host=host,
        chips=chips,
    )


def tell_published(number: int, kind: str, where: str, shards: int) -> None:
    """Readers see a new state."""
    tell(
        "published",
        f"published: publication {number} ({kind}, {where}), {shards:,} shards",
        publication=number,
        kind=kind,
        where=where,
        shards=shards,
    )


def tell_ended(
    state: str, seconds: float, why: str = "", failed: Mapping[str, str] | None = None, **facts: Any
) -> None:
    """A run has ended.

    Args:
        state: `published`, `unchanged`, `stopped` or `failed`.
        why: the reason for `stopped` or `failed`.
        failed: the message of each chip that failed.
        facts: what else is known of it.
    """
    kinds = failures_by_kind(failed or {})
    chips = sum(kinds.values())
    said = (
        f"; chips failed {chips:,} ({', '.join(f'{kind} {count:,}' for kind, count in kinds.items())})" if kinds else ""
    )
    reason = f": {why}" if why else ""
    tell(
        "ended",
        f"ended after {span_words(seconds)}: {state}{reason}{said}",
        state=state,
        why=why,
        seconds=seconds,
        failed=chips,
        failures=kinds,
        **facts,
    )


def failures_by_kind(failed: Mapping[str, str]) -> dict[str, int]:
    """How many chips failed for which kind of reason (see `reasons`), the most frequent first.

    Args:
        failed: message by chip.
    """
    return dict(Counter(map(reason_class, failed.values())).most_common())


@contextmanager
def heartbeat(now: Callable[[], RunStatus]) -> Iterator[None]:
    """A sign of life every `HEARTBEAT_S`: how much is done, how fast, how long it will take, what failed."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            _tell_alive(now())

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell_alive(now: RunStatus) -> None:
    seconds = time.time() - now.began
    if not now.chips and not now.shards:
        tell("alive", f"alive: planning for {span_words(seconds)}", stage="plan", seconds=seconds)
        return
    if not now.chips:  # a cube of one CRS has none
        told = f"alive: shards {now.shards_done:,} of {now.shards:,} for {span_words(seconds)}"
        tell("alive", told, shards_done=now.shards_done, shards=now.shards, seconds=seconds)
        return
    left = now.seconds_left
    chips = f"chips {now.chips_done:,} of {now.chips:,} ({now.chips_done / now.chips:.0%})"
    rate = f"{now.rate * 60:,.1f} chips a minute" if now.rate else "rate not known yet"
    eta = "time left not known yet" if left is None else f"about {span_words(left)} left"
    tell(
        "alive",
        f"alive: {chips}, shards {now.shards_done:,} of {now.shards:,}; {rate}, {eta}; failed {now.chips_failed:,}",
        done=now.chips_done,
        total=now.chips,
        shards_done=now.shards_done,
        shards=now.shards,
        rate=now.rate,
        eta_seconds=left,
        failed=now.chips_failed,
        failures=dict(now.failures),
        seconds=seconds,
    )


def package_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
