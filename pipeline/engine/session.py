"""Ray for the length of a run: the cluster that a configuration names, or one on this machine."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.urls import first_line


@contextmanager
def cluster(config: RunConfig) -> Iterator[None]:
    """Ray for the length of a run: the configured cluster, or one started on this machine.

    Raises:
        DifffusrError: no cluster answers at `compute.address`.
    """
    if ray.is_initialized():
        yield
        return
    # Ray's core prints remarks on its inner workings as errors; what really fails reaches us as exceptions.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = config.compute.address
    try:
        _check_reachable(address)
        with _without_native_remarks():
            ray.init(
                # "local": without it Ray would join whatever cluster was last started by hand on this machine
                address=address or "local",
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DifffusrError(
            f"compute.address: no Ray cluster answers at {address or 'this machine'} ({first_line(error)}); start one "
            "there, set RAY_AUTH_MODE=token where it asks for a token, or leave the key out to run on this machine"
        ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # A step with fewer blocks than it has workers, or a last block smaller than the rest, is nothing to warn of.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data\..*")
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Try the address's port, for Ray itself tries for minutes. Raises ConnectionError."""
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from None


@contextmanager
def _without_native_remarks() -> Iterator[None]:
    """Keep what Ray's core announces at its start, past Python's streams, off the terminal."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def result_of(task: Any) -> Any:
    """What a Ray task returned.

    Raises:
        DifffusrError: the task raised it; of other errors Ray's own.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, DifffusrError) else error) from None
