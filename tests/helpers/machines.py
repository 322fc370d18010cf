"""A Ray cluster of several machines, each of which is processes of this one: they come, hear that they go, and go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from difffusr.pipeline.engine.notices import FILE_VARIABLE


class Machines:
    """A cluster whose head holds no actor; machines are numbered as they come.

    Attributes:
        address: of its head.
    """

    def __init__(self, folder: Path, log: IO[bytes]) -> None:
        self._folder, self._log, self._port = folder, log, free_port()
        self._begun: list[subprocess.Popen[bytes]] = []
        self.address = f"127.0.0.1:{self._port}"

    def head(self, cpus: int = 0) -> None:
        """The first machine; waits until it can be joined."""
        self._start("--head", f"--num-cpus={cpus}", "--num-gpus=0", f"--port={self._port}", "--include-dashboard=false")
        for _ in range(120):
            with socket.socket() as caller:
                if caller.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(1)
        raise AssertionError("no head has come up")

    def join(self, cpus: int = 2, gpus: int = 1) -> int:
        """One more machine; does not wait for it."""
        self._start(f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}")
        return len(self._begun) - 1

    def notify(self, number: int, seconds: float) -> None:
        """A machine is told, by a file, that it goes in so many seconds."""
        self._notice_of(number).write_text(f"{seconds}")

    def take(self, number: int) -> None:
        """A machine is gone, with all of its processes."""
        process = self._begun[number]
        with suppress(psutil.NoSuchProcess):
            machine = psutil.Process(process.pid)
            for one in (machine, *machine.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait(60)

    def end(self) -> None:
        """All machines stop in order, the head last."""
        for process in reversed(self._begun):
            process.terminate()
            process.wait(60)
        # Ray leaves there where the cluster was: whoever calls `ray.init()` next would look for it.
        left = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
        with suppress(FileNotFoundError):
            if left.read_text().endswith(f":{self._port}"):
                left.unlink()

    def _start(self, *words: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *words]
        notice = self._notice_of(len(self._begun))
        environment = unsigned() | {FILE_VARIABLE: str(notice)}
        self._begun.append(subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log))

    def _notice_of(self, number: int) -> Path:
        return self._folder / f"notice-{number}"


@contextmanager
def machines_in(folder: Path) -> Iterator[Machines]:
    """A cluster without machines as yet; those that come end with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ray.log").open("wb") as log:
        machines = Machines(folder, log)
        try:
            yield machines
        finally:
            machines.end()


def unsigned() -> dict[str, str]:
    """An environment in which Ray's processes do not ask each other for a token."""
    return {**os.environ, "RAY_AUTH_MODE": "disabled"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
