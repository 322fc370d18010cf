"""Estimates and calibrations as rows of a table for people."""

from __future__ import annotations

import humanize

from difffusr.pipeline.run.cost.calibration import Calibration, Planning
from difffusr.pipeline.run.cost.figures import Estimate
from difffusr.pipeline.run.cost.gpu_rates import EXECUTION_WORDS, SKETCH_NOTE
from difffusr.pipeline.run.cost.on_gpus import ByGpu, OnGpu


def estimate_rows(made: Estimate) -> list[tuple[str, str]]:
    """(label, value) rows of an estimate."""
    cluster, seconds, costs = made.cluster, made.seconds, made.costs
    scenes = ", ".join(f"{chips:,} from {count}" for count, chips in made.chips_by_scenes.items() if chips)
    rows = [
        ("chips to compute", f"{made.chips - made.done:,}" + (f" of {made.chips:,}" if made.done else "")),
        ("area", f"{digits(made.ground.km2)} km² of cube"),
        ("scenes a chip", scenes or "–"),
        ("shards", f"{made.shards:,}"),
        ("to plan", _planned(made)),
        ("to read", _size(made.bytes_read)),
        ("to write", f"{_size(made.bytes_staged)} staged, {_size(made.bytes_cube)} cube, {made.objects:,} objects"),
        ("on", f"{cluster.actors:,} actors, {cluster.gpus:g} GPUs, {cluster.cpus:,} cores"),
        ("planning", _span(seconds.plan) if made.planning.known else "not known: `difffusr calibrate` measures it"),
        ("start-up", _span(seconds.start_up)),
        ("chips", _span(seconds.chips)),
        ("shards written", _span(seconds.shards)),
        ("overviews", _span(seconds.overviews)),
        ("publish", _span(seconds.publish)),
        ("wall clock", _span(seconds.total)),
        ("GPU-hours", f"{made.gpu_hours:,.2f}"),
        ("CPU-hours", f"{made.cpu_hours:,.2f}"),
    ]
    labels = {
        "gpu": "cost: GPUs",
        "cpu": "cost: cores",
        "read": "cost: reading",
        "written": "cost: writing",
        "storage": "cost: a month of storage",
        "requests": "cost: requests",
    }
    rows += [(label, money(getattr(costs, name), made.currency)) for name, label in labels.items()]
    rows.append(("cost", money(made.total, made.currency)))
    if made.spot is not None:
        rows.append(("cost on spot", money(made.spot.total, made.currency)))
    return [*rows, *_by_area(made)]


def _by_area(made: Estimate) -> list[tuple[str, str]]:
    """Square kilometres a second, and what a thousand of them cost."""
    labels = {"on_demand": "cost per 1000 km²", "spot": "… on spot"}
    costs = [
        (labels[price], _small_money(cost, made.currency))
        for price, cost in made.per_1000_km2.items()
        if cost is not None
    ]
    return [("rate", _rate(made)), *costs]


def _rate(made: Estimate) -> str:
    ground, each = made.ground, made.km2_per_s_of_a_gpu
    if not ground.km2_per_s:
        return "nothing left to compute"
    kind = ground.machine.rpartition(" × ")[2]
    of_each = "" if each is None else f", {digits(each)} a GPU ({kind})"
    return f"{digits(ground.km2_per_s)} km²/s{of_each}"


def _planned(made: Estimate) -> str:
    work = made.planning
    words = [f"{work.scenes:,} scenes"]
    if work.overlaps:
        words.append(f"{work.overlaps:,} overlaps")
    if work.known:
        words += [_size(work.bytes), f"{work.requests:,.0f} requests"]
    return ", ".join(words)


def by_gpu_tables(found: ByGpu) -> list[tuple[str, list[tuple[str, ...]]]]:
    """For every kind of GPU a title and rows: a label, and a value for each way to run the networks."""
    tables = []
    for gpu in dict.fromkeys(kind.rate.gpu for kind in found.kinds):
        columns = [_of_gpu(kind, found.currency) for kind in found.kinds if kind.rate.gpu == gpu]
        rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
        tables.append((f"super-resolution alone on {gpu}", rows))
    return tables


def _of_gpu(kind: OnGpu, currency: str) -> dict[str, str]:
    rate = kind.rate
    costs = {
        "cost": kind.cost,
        "cost on spot": kind.spot,
        "cost per 1000 km²": kind.cost_per_1000_km2,
        "… on spot": kind.spot_per_1000_km2,
    }
    if kind.cost is None and kind.spot is None:
        paid = {"cost": "costs.prices.gpu_hour is not set"}
    else:
        paid = {label: _small_money(cost, currency) for label, cost in costs.items() if cost is not None}
    return {
        "networks": f"{rate.models} sizes",
        "run": f"{EXECUTION_WORDS[rate.execution]}, {rate.precision}, batch {rate.batch}",
        "measured": f"{rate.measured}, version {rate.version}",
        "rate": f"{digits(kind.km2_per_s)} km²/s ({rate.chips_per_s:g} chips/s)",
        "GPU-hours": digits(kind.gpu_hours),
        **paid,
    }


def by_gpu_notes(found: ByGpu) -> str:
    """What such figures hold of, and what they leave out."""
    words = (
        f"{found.chips:,} chips to compute, {digits(found.km2)} km² of cube. costs.calibration is not set: these "
        "figures are of the networks alone; reading, staging, shards and waiting come on top, and `difffusr "
        "calibrate` measures them."
    )
    return f"{words} {SKETCH_NOTE}" if any(kind.rate.execution == "sketch" for kind in found.kinds) else words


def calibration_rows(found: Calibration) -> list[tuple[str, str]]:
    """(label, value) rows of a calibration."""
    rows = [("machine", f"{found.machine}, {found.actors} actors")]
    rows += [(f"model, batch {size}", f"{seconds:.2f} s a chip") for size, seconds in found.model.items()]
    rows += [
        ("start-up", f"Ray {found.start_up.ray:.1f} s, actors {found.start_up.actors:.1f} s"),
        *_planning_rows(found.planning),
        ("read", _moved(found.read.bytes, found.read.seconds, "a scene and chip")),
        ("stage", _moved(found.stage.bytes + found.stage.bytes_covered, found.stage.seconds, "a whole chip")),
        ("shard", f"{found.shard.seconds:.2f} s and {found.shard.seconds_per_chip:.2f} s a chip"),
        ("overview", f"{found.overview.seconds_per_shard:.2f} s a shard below"),
        ("publish", f"{found.publish.seconds:.2f} s a zone"),
    ]
    if found.load > 0.3:
        rows.append(("warning", f"the machine was busy (load {found.load:.1f} a core): measure again when it is not"))
    return rows


def _planning_rows(found: Planning | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    rows = [(f"look, masks {found.masks}", _moved(found.look.bytes, found.look.seconds, "a scene"))]
    for label, step in (("angles", found.angles), ("overviews", found.overviews)):
        if step is not None:
            rows.append((label, _moved(step.bytes, step.seconds, "a scene")))
    if found.overlap_seconds is not None:
        rows.append(("compare, solve", f"{1000 * found.overlap_seconds:.1f} ms an overlap"))
    return rows


def _moved(size: float, seconds: float, each: str) -> str:
    rate = f", {_size(size / seconds)}/s" if seconds else ""
    return f"{seconds:.2f} s, {_size(size)} {each}{rate}"


def _size(count: float) -> str:
    return humanize.naturalsize(count, format="%.1f")


def _span(seconds: float) -> str:
    """One unit with a digit. humanize drops the digits that a cost depends on: it says "2 hours" of 2.9."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def digits(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:#.3g}"


def money(amount: float, currency: str) -> str:
    """An amount with its currency, two digits."""
    return f"{amount:,.2f} {currency}"


def _small_money(amount: float, currency: str) -> str:
    """The same, with two digits that are not zeros where it is less than a tenth."""
    return f"{amount:.2g} {currency}" if 0 < amount < 0.1 else money(amount, currency)
