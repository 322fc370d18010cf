"""What accompanies a run from its beginning to its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from difffusr.pipeline.config import ICECHUNK, RunConfig
from difffusr.pipeline.cube import store_of
from difffusr.pipeline.geo import Grid, grid_of
from difffusr.pipeline.run.pace import Pace, deadline_of
from difffusr.pipeline.run.stop import Stop
from difffusr.pipeline.storage import Lease, Storage, cube_staging_of, staging_of, storage_of
from difffusr.pipeline.watch import Progress, Pulse, RunStatus, heartbeat

if TYPE_CHECKING:
    from difffusr.pipeline.chips import PinnedResolver

log = logging.getLogger("difffusr.run")


@dataclass(frozen=True)
class Places:
    """Where a run keeps what.

    Attributes:
        cube: the cube.
        cube_staging: what belongs to the cube but is not for its readers: lease, history, a folder for each run.
        staging: the run's own folder: plan, staged chips, ledger, progress.
    """

    cube: Storage
    cube_staging: Storage
    staging: Storage

    @classmethod
    def of(cls, config: RunConfig) -> Places:
        """The places of a configuration."""
        return cls(storage_of(config), cube_staging_of(config), staging_of(config))

    def check_writable(self) -> None:
        """Raise StoreError where cube or staging folder cannot be written: before anything is computed."""
        store_of(self.cube).check_writable()
        self.staging.check_writable()

    def sweep(self) -> None:
        """Delete what drivers and workers that were killed have left half written. Only for the lease's holder."""
        for place in (self.cube, self.cube_staging):
            if not place.url.startswith(ICECHUNK) and (swept := place.sweep()):
                log.info("%s: %d files that were left half written are deleted", place.url, swept)


@dataclass(frozen=True)
class Run:
    """What accompanies a run from its beginning to its end.

    Attributes:
        config: what was asked for.
        places: where it keeps what.
        grid: sizes of its chips and shards.
        progress: shows its steps to the person who started it.
        lease: its right to write to the cube.
        pulse: writes its status into its folder.
        stop: whether it was asked to stop.
        ends: when it has to have ended, seconds since 1970.
        pace: how long what is in flight takes.
        resolver: the actor's class where it is not the usual one.
    """

    config: RunConfig
    places: Places
    grid: Grid
    progress: Progress
    lease: Lease
    pulse: Pulse
    stop: Stop
    ends: float | None = None
    pace: Pace = field(default_factory=Pace)
    resolver: type[PinnedResolver] | None = None

    @property
    def staging(self) -> Storage:
        """Its own folder."""
        return self.places.staging

    @classmethod
    @contextmanager
    def begun(
        cls, config: RunConfig, progress: Progress, resolver: type[PinnedResolver] | None = None
    ) -> Iterator[Run]:
        """A run that holds its cube's lease until it ends.

        Raises:
            StoreError: cube or staging folder cannot be written.
            LeaseError: another run holds the lease.
        """
        places = Places.of(config)
        places.check_writable()
        name = f"{config.name}, {config.period.label}"
        lease = Lease.acquire(places.cube_staging, name, lambda text: log.warning("%s", text))
        try:
            places.sweep()
            pulse = Pulse(places.staging, RunStatus(config.name, config.period.label))
            with heartbeat(lambda: pulse.now):
                ends = deadline_of(config)
                yield cls(config, places, grid_of(config), progress, lease, pulse, Stop(), ends, resolver=resolver)
        finally:
            lease.release()
