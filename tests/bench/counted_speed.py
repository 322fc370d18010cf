"""What a chip costs a GPU, counted without one: launches, bytes, operations, and the time they take at a GPU's rates.

The models run as they are, on PyTorch's meta device, which knows shapes and no values, under a mode that sees every
operator. Nothing is listed by hand: what the code does is what is counted.

What is assumed: an operator is one kernel, which reads its inputs and writes its outputs once, from and to the memory;
a convolution adds its bias in a kernel of its own, as PyTorch's does with cuDNN; work takes the longer of the two times
that its bytes and its operations take; launches wait for nothing. Real kernels are slower: of cuDNN's convolutions two
thirds of the rate here were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from model_speed import Case, case_of, chips, model_of, published_networks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from difffusr.kernels.model import SuperResolution

Kind = Literal["convolutions and products", "fused kernels", "other kernels"]

#: An H100's rates as measured: bytes a second, and what good convolutions reach of operations a second, by precision.
BYTES_PER_S = 2.9e12
FLOP_PER_S = {torch.bfloat16: 500e12, torch.float32: 54e12}

#: What one H100 took for a chip of 144 px with the published sizes and `reference`, batches of 8, before (26 November
#: 2026, torch 2.11): seconds.
MEASURED = {
    "eager, bfloat16": 1 / 4.75,
    "compiled, bfloat16": 1 / 11.9,
    "first sketch of fused kernels, bfloat16": 1 / 9.3,
}

#: Operations a second of convolutions and products in that sketch: 13 TFLOP in 41 ms.
MEASURED_FLOP_PER_S = 315e12

#: Operators that launch nothing.
_FREE = ("empty", "new_empty", "empty_strided", "empty_like", "detach", "lift_fresh", "_unsafe_view")

#: Operators that are one kernel on a GPU, though PyTorch can take them apart; beginnings of their names.
_WHOLE = ("upsample", "scaled_dot_product_attention")

#: Operators of several kernels, and how often they read their input.
_PASSES = {"native_group_norm": (3, 2), "_native_batch_norm_legit_no_training": (1, 1)}

#: Fused kernels that read what they overwrite.
_IN_PLACE = ("difffusr::depthwise",)


@dataclass
class Cost:
    """Launches, bytes, operations and seconds of some work."""

    launches: float = 0
    bytes: float = 0
    flop: float = 0
    seconds: float = 0

    def add(self, other: Cost) -> None:
        for name in ("launches", "bytes", "flop", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Counter(TorchDispatchMode):
    """Counts what runs under it, by part of the model and kind of kernel; and bytes by operator."""

    parts: dict[tuple[str, Kind], Cost] = field(default_factory=dict)
    operators: dict[str, Cost] = field(default_factory=dict)
    part: str = "the rest"

    def __post_init__(self) -> None:
        super().__init__()

    def during(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose work is counted as that of a part."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            before, self.part = self.part, part
            try:
                return function(*args, **kwargs)
            finally:
                self.part = before

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if not name.startswith(_WHOLE):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if func.is_view or name in _FREE or func.namespace == "prim":
            return out
        if name == "convolution" and any(x.is_contiguous(memory_format=torch.channels_last) for x in args[:2]):
            out = torch.empty_like(
                out, memory_format=torch.channels_last
            )  # as of cuDNN; the meta device has its own way
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" for x in given + made):  # constants, computed on the host
            return out
        launches, passes = _PASSES.get(name, (1, 1))
        written = [x for x in made if all(x is not y for y in given)]  # in place: among what is given
        total = sum(map(_bytes, given)) * passes + sum(map(_bytes, written))
        if name.endswith("_") or name in _IN_PLACE:  # it reads, too, what it writes
            total += _bytes(given[0])
        flop = _flop(func, name, args, kwargs, out)
        kind: Kind = "convolutions and products" if flop else "other kernels"
        if func.namespace == "difffusr":
            kind = "fused kernels"
        self._count(name, kind, Cost(launches, total, flop), (given + made)[0].dtype)
        if name == "convolution" and args[2] is not None:
            self._count("bias of a convolution", "other kernels", Cost(1, 2 * _bytes(made[0])))
        return out

    def _count(self, name: str, kind: Kind, cost: Cost, dtype: torch.dtype = torch.bfloat16) -> None:
        cost.seconds = max(cost.bytes / BYTES_PER_S, cost.flop / FLOP_PER_S[dtype] if cost.flop else 0.0)
        self.parts.setdefault((self.part, kind), Cost()).add(cost)
        self.operators.setdefault(f"{self.part}: {name}", Cost()).add(cost)


def counted(case: Case) -> Counter:
    """One batch of a case, counted."""
    meta = torch.device("meta")
    with meta:
        networks = published_networks()
    model = model_of(case, meta, networks)
    given = chips(case.batch, case.side, meta)
    model(*given)  # what is made at the first call is kept
    with Counter() as counter:
        _watched(model, counter)(*given)
    return counter


def _watched(model: SuperResolution, counter: Counter) -> SuperResolution:
    """The model, whose parts say when they run."""
    stage1, fusion = model.stage1, model.fusion
    stage1.encode = counter.during("encoders", stage1.encode)  # type: ignore[method-assign]
    stage1.ema.prepare = counter.during("encoders", stage1.ema.prepare)  # type: ignore[method-assign]
    stage1.ema.denoise = counter.during("diffusion network", stage1.ema.denoise)  # type: ignore[method-assign]
    fusion.forward = counter.during("fusion network", fusion.forward)  # type: ignore[method-assign]
    return model


def _flop(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> float:
    """Operations of matrix products, convolutions and attention."""
    if name == "scaled_dot_product_attention":
        (batch, heads, queries, width), keys = args[0].shape, args[1].shape[2]
        return 4.0 * batch * heads * queries * keys * width
    if name == "difffusr::convolve":
        given, weight = args[3], args[5]
        return 2.0 * given[..., 0].numel() * weight.numel()
    known = flop_registry.get(func._overloadpacket)
    return float(known(*args, **kwargs, out_val=out)) if known else 0.0


def _bytes(x: Tensor) -> int:
    """Bytes of a tensor's elements; of one that repeats, those that are there."""
    distinct = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        distinct *= size if stride else 1
    return distinct * x.element_size()


def rows_of(case: Case) -> list[dict[str, Any]]:
    """A row for each part and kind, and one for all: launches a batch, and gigabytes, TFLOP and milliseconds a chip."""
    counter = counted(case)
    total = Cost()
    rows = []
    for (part, kind), cost in sorted(counter.parts.items()):
        total.add(cost)
        rows.append(_row(f"{part}: {kind}", cost, case.batch))
    return [*rows, _row("all", total, case.batch)]


def _row(what: str, cost: Cost, batch: int) -> dict[str, Any]:
    return {
        "what": what, "launches_a_batch": int(cost.launches), "gb_a_chip": cost.bytes / batch / 1e9,
        "tflop_a_chip": cost.flop / batch / 1e12, "ms_a_chip": 1e3 * cost.seconds / batch,
    }  # fmt: skip


def tables(batch: int = 8) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Tables by title: each preset and side by part, then all beside what was measured before."""
    summary = [
        {"what": f"measured before, 144 px reference, {how}", "ms_a_chip": 1e3 * seconds}
        for how, seconds in MEASURED.items()
    ]
    for side, preset in ((144, "reference"), (144, "fast"), (192, "reference"), (192, "fast")):
        case = case_of("published", preset, "bfloat16", "fused", batch, side)
        eager = rows_of(replace(case, execution="eager"))[-1]
        rows = rows_of(case)
        yield f"counted: published sizes, {preset}, {side} px, batches of {batch}", rows
        for how, row in (("fused", rows[-1]), ("eager", eager)):
            summary.append({**row, "what": f"counted, {side} px {preset}, {how}"})
        slower = rows[-1]["ms_a_chip"] + rows[-1]["tflop_a_chip"] * (1e15 / MEASURED_FLOP_PER_S - 1e15 / 500e12)
        summary.append(
            {"what": f"fused, {side} px {preset}, products at the rate measured before", "ms_a_chip": slower}
        )
    yield "counted and measured: milliseconds a chip", summary


def largest(counter: Counter, count: int = 25) -> Iterable[tuple[str, Cost]]:
    """The operators that take most of the time."""
    return sorted(counter.operators.items(), key=lambda item: -item[1].seconds)[:count]
