"""Add what was measured on a GPU to the table that ships: `python -m difffusr.pipeline.run.cost.add_gpu_rates FILE`.

FILE is what a benchmark wrote on a machine with a GPU (JSON): rows with the keys `models`, `preset`, `precision`,
`execution`, `side`, `batch` and `chips_per_s`, wherever in it they are. `gpu`, `measured` and `version` are said by the
row or by the file, the GPU's name also under `machine`. Rows of other kinds are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.run.cost.gpu_rates import GpuRate, GpuRates, gpu_rates, km2_of
from difffusr.pipeline.run.cost.words import digits

#: What a row must say.
KEYS = ("models", "preset", "precision", "execution", "side", "batch", "chips_per_s")

#: Ways to run the networks that a configuration can ask for; plain runs to compare with are not rates of ours.
_EXECUTIONS = ("eager", "fused")


def rates_of(document: Any, measured: str | None = None, version: str | None = None) -> list[GpuRate]:
    """The rates in what a benchmark wrote.

    Args:
        document: its JSON.
        measured, version: day (ISO 8601) and version of this project, where the document does not say them under these
            names.

    Raises:
        ConfigError: there are no rows of rates, or one lacks something or holds what it cannot.
    """
    top = document if isinstance(document, Mapping) else {}
    machine = top["machine"] if isinstance(top.get("machine"), Mapping) else {}
    said = {"gpu": machine.get("gpu"), "measured": measured, "version": version}
    said |= {name: top[name] for name in said if top.get(name) is not None}
    versions = [f"{name} {machine[name]}" for name in ("torch", "cuda") if machine.get(name)]
    source = ", ".join(["one GPU", *versions])
    rates = [_rate_of(row, said, source) for row in _rows(document) if row["execution"] in _EXECUTIONS]
    if not rates:
        raise ConfigError(f"no rows of rates: a row has {', '.join(KEYS)}, execution {' or '.join(_EXECUTIONS)}")
    return rates


def _rows(document: Any) -> Iterator[Mapping[str, Any]]:
    """Mappings that have all keys of a row, wherever they are."""
    if isinstance(document, Mapping):
        if all(key in document for key in KEYS):
            yield document
        else:
            for part in document.values():
                yield from _rows(part)
    elif isinstance(document, list):
        for part in document:
            yield from _rows(part)


def _rate_of(row: Mapping[str, Any], said: Mapping[str, str | None], source: str) -> GpuRate:
    content = {name: row.get(name) or said[name] for name in said} | {key: row[key] for key in KEYS}
    what = " ".join(str(row[key]) for key in KEYS[:6])
    for name in said:
        if content[name] is None:
            raise ConfigError(f"{what}: {name} is not in the row, nor in the file{_OPTIONS.get(name, '')}")
    try:
        per_s = float(f"{float(row['chips_per_s']):.4g}")
        content |= {"chips_per_s": per_s, "km2_per_s": float(f"{per_s * km2_of(int(row['side'])):.6g}")}
        content["measured"] = str(content["measured"])[:10]  # of a moment, the day
        return GpuRate.model_validate({"source": source} | content)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {_reason(error)}") from None


_OPTIONS = {"measured": "; give it with --measured", "version": "; give it with --version"}


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def markdown(rates: GpuRates) -> str:
    """The table of README.md."""
    lines = [
        "| GPU | networks, `sampler` | run | chip | chips/s | km²/s | GPU-hours for 1000 km² | measured |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for rate in rates.rates:
        cells = (
            rate.gpu,
            f"{rate.models}, `{rate.preset}`",
            f"{rate.execution}, {rate.precision}, batch {rate.batch}",
            f"{rate.side} px",
            f"{rate.chips_per_s:.3g}",
            digits(rate.km2_per_s),
            digits(rate.gpu_hours_per_1000_km2),
            f"{rate.measured} ({rate.version})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: write the table anew, print what README.md says of it. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.run.cost.add_gpu_rates", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("file", type=Path, help="what a benchmark wrote")
    parser.add_argument("--measured", help="the day, such as 2026-11-26, where the file does not say it")
    parser.add_argument("--version", help="the version that was measured, where the file does not say it")
    parser.add_argument(
        "--table", type=Path, default=Path(__file__).with_name("gpu_rates.json"), help="the table; the one that ships"
    )
    args = parser.parse_args(argv)
    try:
        before = GpuRates.model_validate_json(args.table.read_bytes()) if args.table.exists() else gpu_rates()
        found = rates_of(json.loads(args.file.read_bytes()), args.measured, args.version)
        after = before.with_later(found)
        args.table.write_text(after.to_json(), encoding="utf-8")
    except (OSError, ValueError, ConfigError) as error:
        print(f"error: {args.file}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(f"{len(found)} rates written to {args.table}; README.md, What it costs:\n\n{markdown(after)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
