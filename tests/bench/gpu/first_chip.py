"""A process from its start to its first chip on the host: prints the seconds of each step as JSON.

`gpu.start` runs it. The weights are those that ship, or the checkpoints that are given.
"""

from __future__ import annotations

import time

ENTERED = time.time()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[0] = str(Path(__file__).resolve().parents[1])


def main(given: dict) -> None:
    """`given`: begun (of `time.time`), device, preset, precision, side, batch, and perhaps stage1 and fusion."""
    marks = {"interpreter": ENTERED}
    from gpu.bare import stand_ins_last

    stand_ins_last()
    import torch

    from difffusr.kernels.model import load_model
    from difffusr.kernels.sampling import ground_noise

    marks["imports"] = time.time()
    import model_speed

    model_speed.exact()
    device = torch.device(given["device"])
    torch.zeros(1, device=device).add_(1)
    _finish(device)
    marks["context"] = time.time()
    sampling = model_speed.sampling(given["models"], given["preset"], given["precision"])
    files = {name: given[name] for name in ("stage1", "fusion") if name in given}
    model = load_model("published" if files else "small", **files, sampling=sampling, device=device, execution="fused")
    _finish(device)
    marks["loading"] = time.time()
    bands, valid, _ = model_speed.chips(given["batch"], given["side"], device)
    side = given["side"] * 4
    on_gpu = device.type == "cuda"
    noise = torch.stack(
        [ground_noise(1, 32632, 0, side * i, side, side, device=device, kernel=on_gpu) for i in range(given["batch"])]
    )
    _finish(device)
    marks["input"] = time.time()
    out = model(bands, valid, noise)
    _finish(device)
    marks["first call"] = time.time()
    out.cpu()
    marks["on the host"] = time.time()
    model(bands, valid, noise)
    _finish(device)
    marks["second call"] = time.time()
    names = list(marks)
    before = dict(zip(names, [given["begun"], *(marks[name] for name in names)], strict=False))
    print(json.dumps({name: marks[name] - before[name] for name in names}))


def _finish(device: object) -> None:
    import torch

    if str(device) != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
