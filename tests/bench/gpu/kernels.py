"""Where the time of a batch goes: by kind of kernel, and the kernels that take most."""

from __future__ import annotations

from collections.abc import Iterator

import model_speed

from gpu.parts import Row, Setting, no_time
from gpu.subject import device_of, maker

#: Preset, side and batch; then those of a dry run.
CASES = (("reference", 144, 8), ("fast", 192, 8))
DRY_CASES = (("draft", 12, 1),)

#: How many kernels are named, and how many letters of a name are shown.
MOST, LETTERS = 15, 90


def rows(setting: Setting) -> Iterator[Row]:
    """For each case the kinds of kernels, then the kernels."""
    device, networks = device_of(setting), maker(setting)()
    precision: model_speed.Precision = "float32" if setting.dry else "bfloat16"
    for preset, side, batch in DRY_CASES if setting.dry else CASES:
        case = model_speed.case_of("published", preset, precision, "fused", batch, side)
        of = f"{preset} {side} px batch {batch}"
        if not setting.has(15):
            yield no_time(of)
            continue
        spent, took = model_speed.profiled(case, device, networks)
        model_speed.free(device)
        if not spent:
            raise RuntimeError(f"{of}: the profiler saw no kernels: has this process the right to profile the GPU?")
        for row in model_speed.by_kind(spent, took, batch):
            yield {"of": of, **row}
        for name, (seconds, count) in sorted(spent.items(), key=lambda item: -item[1][0])[:MOST]:
            yield {
                "of": of, "what": shortened(name), "ms_per_chip": 1e3 * seconds / batch, "share": seconds / took,
                "launches": count,
            }  # fmt: skip


def shortened(name: str) -> str:
    """A kernel's name without what every name has, and not longer than a line."""
    name = name.removeprefix("void ").replace("at::native::", "")
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
