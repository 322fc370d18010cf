"""Where a run keeps what: the cube, what belongs to the cube, what belongs to the run."""

from __future__ import annotations

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.storage.objects import Storage


def storage_of(config: RunConfig) -> Storage:
    """Where the cube goes."""
    return Storage(config.store.url, config.store.storage_options)


def cube_staging_of(config: RunConfig) -> Storage:
    """What belongs to a cube but is not for its readers: the lease, its history, and a folder for each run."""
    return Storage(config.store.staging, config.store.storage_options)


def staging_of(config: RunConfig) -> Storage:
    """The run's own folder: plan, staged chips, ledger, progress."""
    return cube_staging_of(config).child(f"runs/{config.period.label}")
