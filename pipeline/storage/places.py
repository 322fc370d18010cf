"""The folders of a run: the cube, the cube's staging folder, the run's own folder."""

from __future__ import annotations

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.storage.objects import Storage


def storage_of(config: RunConfig) -> Storage:
    """The cube."""
    return Storage(config.store.url, config.store.storage_options)


def cube_staging_of(config: RunConfig) -> Storage:
    """The cube's staging folder, not for its readers: lease, history, and a folder for each run."""
    return Storage(config.store.staging, config.store.storage_options)


def staging_of(config: RunConfig) -> Storage:
    """The run's own folder: plan, staged chips, ledger, progress."""
    return cube_staging_of(config).child(f"runs/{config.period.label}")
