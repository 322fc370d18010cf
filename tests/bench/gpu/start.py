"""How long a fresh process takes to its first chip, with and without what Triton has compiled before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpu.parts import Row, Setting, no_time, tried
from gpu.subject import maker

HERE = Path(__file__).resolve().parent

#: Networks, whether Triton's folder is that of the process before, and seconds that it takes at the most.
CASES = (("published", False, 60.0), ("published", True, 25.0), ("small", False, 25.0), ("small", True, 15.0))
DRY_CASES = (("small", False, 0.0),)

#: The steps that lie between the start and the first chip on the host.
STEPS = ("interpreter", "imports", "context", "loading", "input", "first call", "on the host")


def rows(setting: Setting) -> Iterator[Row]:
    """A row for each case: seconds of each step, and of all to the first chip."""
    files: dict[str, str] = {}
    for models, warm, seconds in DRY_CASES if setting.dry else CASES:
        what = f"{models}, {'with' if warm else 'without'} Triton's cache"
        if not setting.has(seconds):
            yield no_time(what)
            continue
        if models == "published" and not files:
            files = _saved(setting)
        given: dict[str, Any] = {
            "device": setting.device, "models": models, "preset": "draft" if setting.dry else "reference",
            "precision": "float32" if setting.dry else "bfloat16", "side": 12 if setting.dry else 144,
            "batch": 1 if setting.dry else 8, **(files if models == "published" else {}),
        }  # fmt: skip
        yield tried(what, partial(_row, what, given, setting.folder / f"triton-{models}", max(setting.left, 5.0)))


def _row(what: str, given: Mapping[str, Any], cache: Path, seconds: float) -> Row:
    return {"what": what, **row_of(started(given, cache, seconds))}


def started(given: Mapping[str, Any], cache: Path, seconds: float) -> dict[str, float]:
    """Seconds of each step of a fresh process."""
    cache.mkdir(parents=True, exist_ok=True)
    asked = [sys.executable, str(HERE / "first_chip.py"), json.dumps({**given, "begun": time.time()})]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, timeout=min(seconds, 3600.0))
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"the process ended with exit code {done.returncode}: {said[-1] if said else ''}")
    steps: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return steps


def row_of(steps: Mapping[str, float]) -> Row:
    """The steps, and their sum up to the first chip."""
    return {
        "to_first_chip_s": sum(steps[name] for name in STEPS),
        **{f"{name.replace(' ', '_')}_s": seconds for name, seconds in steps.items()},
    }


def _saved(setting: Setting) -> dict[str, str]:
    """Checkpoints of random networks of published sizes: what they hold takes as long to read as what was learnt."""
    files = {}
    for name, network in zip(("stage1", "fusion"), maker(setting)(), strict=True):
        files[name] = str(setting.folder / f"{name}.ckpt")
        torch.save({"state_dict": network.state_dict()}, files[name])
    return files
