"""What ends a run in good order before its work is done: its deadline, its budget, a machine that is taken away."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from difffusr.pipeline.engine import Notice, Watch, sources_of
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.words import span_words
from difffusr.pipeline.run.stop import Stopped
from difffusr.pipeline.watch import RunStatus, tell

if TYPE_CHECKING:
    from difffusr.pipeline.run.context import Run

log = logging.getLogger("difffusr.run")

#: Why a run was stopped, for its status and its log.
DEADLINE, MACHINE = "before its deadline", "as this machine is about to go"


@contextmanager
def limited(run: Run) -> Iterator[None]:
    """Ask a run to stop when one of its limits comes near."""
    ended = threading.Event()
    watch = Watch(sources_of(run.config.compute.preemption), lambda notice: _machine_goes(run, notice))
    if run.config.budget is not None:
        run.pulse.watch(lambda now: _check_spent(run, now))
    if run.ends is not None:
        threading.Thread(target=_heed, args=(run, run.ends, ended), name="deadline", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        watch.stop()


@contextmanager
def ended_by(ends: float | None) -> Iterator[None]:
    """Raise Stopped at a time, while there is nothing in flight; outside the main thread do nothing."""
    if ends is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    if time.time() >= ends:
        raise Stopped(DEADLINE)

    def hear(*_: object) -> None:
        raise Stopped(DEADLINE)

    before = signal.signal(signal.SIGALRM, hear)
    signal.setitimer(signal.ITIMER_REAL, ends - time.time())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


#: Seconds between two looks at the clock.
_LOOK_S = 0.5


def _heed(run: Run, ends: float, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_S):
        left = ends - time.time()
        if left <= run.pace.lead_s:
            said = f"the deadline is in {span_words(max(left, 0))}" if left > 0 else "the deadline has passed"
            _ask(run, "deadline", said, DEADLINE)
            return


def _machine_goes(run: Run, notice: Notice) -> None:
    said = f"this machine is about to go, in {span_words(notice.seconds)} ({notice.source})"
    if not run.stop.requested:
        run.stop.machine_ends = notice.ends
    _ask(run, "preempted", said, MACHINE)


def _ask(run: Run, event: str, said: str, reason: str) -> None:
    if not run.stop.requested:
        log.warning("%s: what is in flight is finished, nothing new is taken", said, extra={"event": event})
        run.stop.request(reason=reason)


def _check_spent(run: Run, now: RunStatus) -> None:
    """Stop a run whose hours have cost its budget."""
    budget = run.config.budget
    if budget is None or now.spent < budget or not now.spent or run.stop.requested:
        return
    tell("over_budget", f"over the budget: {now.spent:,.2f} of {budget:,.2f} {now.currency} are spent", spent=now.spent)
    run.stop.request(
        DifffusrError(
            f"budget: the hours that this run has held have cost {now.spent:,.2f} {now.currency}, the budget is "
            f"{budget:,.2f} {now.currency}; what is staged is kept: raise budget and run again to continue"
        )
    )
