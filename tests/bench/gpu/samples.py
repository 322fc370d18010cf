"""What the GPU is at while something else runs: its utilisation and memory, several times a second."""

from __future__ import annotations

import importlib
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

#: Seconds between two samples.
EVERY_S = 0.2


class Sample(NamedTuple):
    """Of `time.time`, the share of the last moments in which a kernel ran, and megabytes that are taken."""

    at: float
    busy: float
    memory_mb: float


class Samples:
    """Samples for as long as the block runs.

    Attributes:
        taken: so far.
        why_none: why there are none, where that is known before.
    """

    def __init__(self, read: Callable[[], tuple[float, float]] | None = None) -> None:
        self.taken: list[Sample] = []
        self.why_none = ""
        self._read, self._over = read, threading.Event()
        if self._read is None:
            self._read, self.why_none = reader()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30.0)

    def busy(self, begun: float, ended: float) -> float | None:
        """The mean share between two times of `time.time`; None without a sample there."""
        shares = [sample.busy for sample in self.taken if begun <= sample.at <= ended]
        return sum(shares) / len(shares) if shares else None

    def memory_gb(self) -> float | None:
        """The most that was taken at any time."""
        return max((sample.memory_mb for sample in self.taken), default=0.0) / 1e3 or None

    def _sample(self) -> None:
        while self._read is not None and not self._over.is_set():
            try:
                self.taken.append(Sample(time.time(), *self._read()))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self.why_none = f"nvidia-smi: {error}"
                return
            except Exception as error:  # NVML's own, which has no common module
                self.why_none = f"NVML: {error}"
                return
            self._over.wait(EVERY_S)


def reader() -> tuple[Callable[[], tuple[float, float]] | None, str]:
    """What reads the first GPU's share and megabytes; None and the reason where nothing does."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetUtilizationRates(handle)
    except Exception:  # it is not installed, or there is no such GPU, or it does not say (MIG)
        pass
    else:

        def by_nvml() -> tuple[float, float]:
            used = nvml.nvmlDeviceGetMemoryInfo(handle).used
            return nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, used / 1e6

        return by_nvml, ""
    try:
        by_command()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return None, f"neither pynvml nor nvidia-smi tell how busy the GPU is ({error})"
    return by_command, ""


def by_command() -> tuple[float, float]:
    """By nvidia-smi. Raises what `subprocess.run` raises, or ValueError."""
    asked = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    return parsed(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout)


def parsed(said: str) -> tuple[float, float]:
    """Share and megabytes of the first GPU in the command's lines ("97, 40321"). Raises ValueError for others."""
    line = next((line for line in said.splitlines() if line.strip()), "")
    values = [value.strip().removesuffix("%").removesuffix("MiB").strip() for value in line.split(",")]
    try:
        share, mebibytes = map(float, values)
    except ValueError:
        raise ValueError(f"it says {line.strip()[:80]!r}") from None
    return share / 100, mebibytes * 1.048576
