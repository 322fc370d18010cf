"""How fast everything is, as a table and as JSON: `make bench`, or `python tests/bench [PART …]`.

Parts: models (chips a second by preset, precision and batch, against a plain run; where a GPU's time goes), counted
(what a chip costs a GPU, counted without one), limits (reading, staging, assembly beside what their libraries do
alone), busy (one actor's time), scaling (1 to 8 actors).
With a GPU, `models` measures it and not the CPU. Figures depend on the machine: it is described in the JSON. What must
hold on any machine are ratios within one run; the tests marked `bench` hold them (`make bench-guards`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from tables import Rows, table_of

Tables = Iterator[tuple[str, Rows]]

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "helpers"))


def models(folder: Path) -> Tables:
    """See `model_speed`."""
    import model_speed

    return model_speed.on_gpu() if torch.cuda.is_available() else model_speed.on_cpu()


def counted(folder: Path) -> Tables:
    """See `counted_speed`."""
    import counted_speed

    return counted_speed.tables()


def limits(folder: Path) -> Tables:
    """See `limits`."""
    import limits as module

    yield "limits: MB of pixels a core second", module.measure(folder)


def busy(folder: Path) -> Tables:
    """See `test_busy`."""
    import test_busy

    found = test_busy.measure(folder)
    states = [
        {"what": state, "share": share, "ms_of_a_call_thread": found["thread_ms_of_a_chip"][state]}
        for state, share in {"model": found["busy"], **found["idle"]}.items()
    ]
    steps = [{"what": f"{step}", "ms": found[f"{step}_ms_of_a_chip"]} for step in ("read", "stage", "core")]
    yield f"busy: one actor, the model sleeps {found['model_ms']} ms a chip", states
    yield "busy: core ms of a chip", steps


def scaling(folder: Path) -> Tables:
    """See `test_scaling`."""
    import test_scaling

    yield "scaling: logical GPUs, the model's time slept", test_scaling.measure(folder)


PARTS: Mapping[str, Callable[[Path], Tables]] = {
    "models": models,
    "counted": counted,
    "limits": limits,
    "busy": busy,
    "scaling": scaling,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python tests/bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them if none is given")
    parser.add_argument("--json", type=Path, default=HERE / "speed.json", help="where the figures go")
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is called {min(unknown)}; there are {', '.join(PARTS)}")
    console = Console()
    facts = machine()
    console.print(*(f"{name} {value}" for name, value in facts.items()), sep=", ", highlight=False)
    before = json.loads(args.json.read_text()) if args.json.exists() else {}
    found: dict[str, Rows] = before.get("tables", {}) if before.get("machine") == facts else {}
    for part in args.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for title, rows in PARTS[part](Path(folder)):
                console.print(table_of(title, rows))
                found[title] = rows
                args.json.write_text(json.dumps({"machine": facts, "tables": found}, indent=1) + "\n")
    console.print(f"written: {args.json}")


if __name__ == "__main__":
    main()
