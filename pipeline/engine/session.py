"""Ray for the length of a run: the cluster that a configuration names, or one on this machine.

Ray takes seconds to import, so it is imported only when a cluster is used.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Any

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine.last_words import last_words
from difffusr.pipeline.engine.pool import Resources
from difffusr.pipeline.engine.sockets import room_for_sockets, temporary_folder
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.unsigned import unsigned_environment
from difffusr.pipeline.ground.urls import first_line

_NOTHING: Mapping[str, str] = MappingProxyType({})


def _nothing() -> None:
    """What need not be done."""


@contextmanager
def cluster(
    config: RunConfig, environment: Mapping[str, str] = _NOTHING, meanwhile: Callable[[], None] = _nothing
) -> Iterator[None]:
    """Ray for the length of a run: the configured cluster, or one started on this machine.

    A process that is in a cluster already stays in it, and its workers keep their environment.

    Args:
        environment: variables of the workers' processes, besides what they need to open files as this process does.
        meanwhile: imports what is needed next. This process would only wait, for seconds, until Ray's own have started.

    Raises:
        DifffusrError: no cluster answers at `compute.address`, or none can be started on this machine.
    """
    if in_cluster():
        yield
        return
    import ray

    # Ray's core prints remarks on its inner workings as errors; what really fails reaches us as exceptions.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = config.compute.address
    room: AbstractContextManager[dict[str, Any]] = nullcontext({}) if address else room_for_sockets()
    with room as options:
        try:
            with _beside(meanwhile), _sigterm_as_it_was():
                _connect(address, {**environment, **unsigned_environment()}, options)
        except Exception as error:  # Ray has no type of its own for a node that does not start in time
            raise _refused(address, error) from None
        _quieten_ray_data()
        try:
            with last_words(_ENDED.format(address or "this machine")):
                yield
        finally:
            ray.shutdown()


#: What is said where Ray's core, or somebody else, ends this process.
_ENDED = (
    "error: this process was ended from outside: Ray's processes on {} died (see the logs of ray, gcs_server.err and "
    "raylet.err), or it was killed; what is staged is kept: run again to continue"
)

#: Seconds after which Ray's core gives up a head on this machine that does not answer, instead of 60: nobody starts it
#: again.
_HEAD_GONE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "15"}


@contextmanager
def _beside(imports: Callable[[], None]) -> Iterator[None]:
    """Import on a thread meanwhile. What cannot be imported says so where it is used."""

    def run() -> None:
        with suppress(Exception):
            imports()

    thread = threading.Thread(target=run, name="imports")
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def _sigterm_as_it_was() -> Iterator[None]:
    """Put back who handles SIGTERM: Ray's own handler, which stays when Ray has gone, raises SystemExit wherever this
    process is, and what catches that goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _refused(address: str | None, error: Exception) -> DifffusrError:
    """What to do where there is no cluster."""
    if address is None:
        return DifffusrError(
            f"Ray cannot be started on this machine ({first_line(error)}); check that {temporary_folder()} can be "
            "written (RAY_TMPDIR or TMPDIR name another) and that memory, processes and disk suffice"
        )
    return DifffusrError(
        f"compute.address: no Ray cluster answers at {address} ({first_line(error)}); start one there, set "
        "RAY_AUTH_MODE=token where it asks for a token, or leave the key out to run on this machine"
    )


def in_cluster() -> bool:
    """Whether this process is in a Ray cluster. One that has not imported Ray is in none."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def resources() -> Resources:
    """What the cluster in use has now: an autoscaler adds nodes, and takes them away."""
    import ray

    found = ray.cluster_resources()
    return Resources(float(found.get("GPU", 0)), float(found.get("CPU", 1)))


def nodes_alive() -> int:
    """How many nodes the cluster in use has now."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def result_of(task: Any) -> Any:
    """What a Ray task returned.

    Raises:
        DifffusrError: the task raised it; of other errors Ray's own.
    """
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, DifffusrError) else error) from None


def _connect(address: str | None, environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Join the cluster at an address, or start one on this machine; `options` are more of Ray's own.

    Workers on this machine inherit the environment from the process that starts Ray. Those of a cluster that is there
    already get it by a runtime environment of the job, which costs a second or two until its first task.
    """
    import ray

    _check_reachable(address)
    with _without_native_remarks(), _set({**environment, **_HEAD_GONE} if address is None else _NOTHING):
        ray.init(
            # "local": without it Ray would join whatever cluster was last started by hand on this machine
            address=address or "local",
            include_dashboard=False if address is None else None,
            runtime_env={"env_vars": dict(environment)} if address is not None and environment else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )


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
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process's environment that are not set, for the processes that it starts meanwhile."""
    added = {name: value for name, value in environment.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _without_native_remarks() -> Iterator[None]:
    """Keep what Ray's core prints at its start, past Python's streams, off the terminal."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _quieten_ray_data() -> None:
    """No progress bars, no start-up messages: the run has its own."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # A step with fewer blocks than workers, or a last block smaller than the rest, is not worth a warning.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data\..*")
