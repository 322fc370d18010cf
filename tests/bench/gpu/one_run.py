"""One run in a process of its own: prints the seconds of its stages, and when its chips came, as JSON.

`gpu.run` starts it: `python one_run.py CONFIG BEGUN`, BEGUN of `time.time` when it was started.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])


class Marks:
    """A `Progress` that notes when a stage began, and when it came to its first and last step."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self.seen[f"{stage} begun"] = time.time()

    def advance(self, stage: str) -> None:
        self.seen.setdefault(f"{stage} first", time.time())
        self.seen[f"{stage} last"] = time.time()


def main(path: Path, begun: float) -> int:
    """Run a configuration; returns the exit code."""
    from gpu.bare import stand_ins_last

    stand_ins_last()
    from difffusr.pipeline.config import load_config
    from difffusr.pipeline.run import execute

    imported, marks = time.time(), Marks()
    result = execute(load_config(path), marks)
    told = {
        "imports_s": imported - begun, "at": marks.seen, "seconds": result.seconds, "chips": result.computed,
        "failed": list(result.failed.values())[:1], "state": result.state, "ended": time.time(),
    }  # fmt: skip
    print(json.dumps(told), flush=True)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
