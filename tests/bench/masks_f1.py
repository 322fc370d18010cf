"""How good masks are and what they cost: `make masks`, or `python tests/bench/masks_f1.py`.

F1 of shadow against shadows that people have drawn, of cloud against labels where there are some; seconds of a scene
and of a whole plan. Leaves masks-f1.json beside this file. Data: `tests/helpers/labelled_masks.py`. Without ukis-csmask
the network's rows are left out.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

from full_tile import full_tile  # noqa: E402
from labelled_masks import ALBERTA_M, Counts, Day, alberta, coarser, finer, labelled  # noqa: E402
from machine import machine  # noqa: E402
from planned_areas import config  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from difffusr.pipeline.geo.grid import grid_of  # noqa: E402
from difffusr.pipeline.plan.looks import look_at_all  # noqa: E402
from difffusr.pipeline.plan.planner import make_plan  # noqa: E402
from difffusr.pipeline.scenes.csmask import network_version, run_network  # noqa: E402
from difffusr.pipeline.scenes.item import Scene  # noqa: E402
from difffusr.pipeline.scenes.mask_classes import MaskClass  # noqa: E402
from difffusr.pipeline.scenes.masks import MAKERS, classes_of_scl, grown, with_probability  # noqa: E402
from difffusr.pipeline.scenes.network_mask import _fetched, made_mask  # noqa: E402
from difffusr.pipeline.scenes.rules import ChipRules  # noqa: E402

Rows = list[dict[str, Any]]

#: Factors between 31 m, where `alberta` is, and what the network is shown.
_FACTORS = {30: 1, 60: 2, 120: 4}

#: Dates of the plan whose time is measured.
_DATES = 12


def f1_of_masks() -> Rows:
    """F1 of shadow and of cloud, by maker."""
    rows = [
        _alberta_row(f"scl, {metres} m", lambda day, m=metres: grown(classes_of_scl(day.scl), ALBERTA_M, m, m))
        for metres in (0, 20, 60, 100, 200)
    ]
    for percent in (20.0, 40.0, 60.0):
        rules = ChipRules(masks="asset", max_cloud_probability=percent)
        rows.append(
            _alberta_row(
                f"asset, {percent:g} %",
                lambda day, rules=rules: with_probability(classes_of_scl(day.scl), day.cld, rules),
            )
        )
    if not network_version():
        return rows
    for metres, factor in _FACTORS.items():
        row = _alberta_row(f"csmask, {metres} m", lambda day, f=factor: _by_network(day.image, f))
        rows.append(row | _labelled(factor))
    return rows


def _alberta_row(name: str, classes: Callable[[Day], NDArray[np.uint8]]) -> dict[str, Any]:
    found = {day.name: classes(day) for day in alberta()}
    shadow = {day.name: Counts.of(found[day.name] == MaskClass.SHADOW, day.shadow) for day in alberta()}
    # Clouds are not drawn: this is how far two algorithms agree. On 25 June SCL calls all of it thin cirrus.
    cloud = [Counts.of(found[day.name] == MaskClass.CLOUD, day.clp > 40) for day in alberta()]
    return {
        "mask": name,
        "shadow": round(reduce(add, shadow.values()).f1, 3),
        **{f"shadow {day[5:]}": round(count.f1, 3) for day, count in shadow.items()},
        "cloud like s2cloudless": round(reduce(add, cloud).f1, 3),
    }


def _by_network(image: Any, factor: int) -> NDArray[np.uint8]:
    shape = next(iter(image.values())).shape
    ours = np.array([MaskClass.CLEAR, MaskClass.CLOUD, MaskClass.SHADOW], np.uint8)
    return finer(ours[run_network(coarser(image, factor))], factor, shape)


def _labelled(factor: int) -> dict[str, Any]:
    truth = labelled()
    found = _by_network(truth.image, factor)
    return {
        "labelled cloud": round(Counts.of(found == MaskClass.CLOUD, truth.cloud).f1, 3),
        "labelled shadow": round(Counts.of(found == MaskClass.SHADOW, truth.shadow).f1, 3),
    }


def seconds_of_masks(folder: Path) -> Iterator[tuple[str, Rows]]:
    """Seconds of a look at one scene of full size, and of a plan of twelve dates of it."""
    scene = full_tile(folder)
    looks: Rows = []
    for name, rules in _makers().items():
        looks.append({"mask": name, "s a scene": round(_look_seconds(folder, scene, rules), 2)})
    if network_version():
        for metres in _FACTORS:
            begun = time.perf_counter()
            made_mask(scene, metres)
            looks.append({"mask": f"csmask, {metres} m, made", "s a scene": round(time.perf_counter() - begun, 2)})
    for row in looks:
        row["of scl"] = round(row["s a scene"] / looks[0]["s a scene"], 2)
    yield "seconds of one scene of a whole tile, on one core", looks
    yield f"seconds of a plan: one tile, {_DATES} dates, {os.cpu_count()} cores", seconds_of_plans(folder, scene)


def seconds_of_plans(folder: Path, scene: Scene, network: bool = True) -> Rows:
    """Seconds of a plan of twelve dates of a scene, by maker: the fastest of three, without what only a first one does;
    of the network's masks also while they are made."""
    makers = {name: rules for name, rules in _makers().items() if network or rules.masks != "csmask"}
    plans: Rows = []
    _plan_seconds(folder, scene, ChipRules())
    for name, rules in makers.items():
        if rules.masks == "csmask":
            plans.append({"mask": f"{name}, made", "s": _plan_seconds(folder, scene, rules)})
        plans.append({"mask": name, "s": min(_plan_seconds(folder, scene, rules) for _ in range(3))})
    return [
        {"mask": row["mask"], "s": round(row["s"], 2), "of scl": round(row["s"] / plans[0]["s"], 2)} for row in plans
    ]


def _makers() -> dict[str, ChipRules]:
    found = {
        "scl": ChipRules(),
        "scl, 200 m": ChipRules(dilate_cloud_m=200, dilate_shadow_m=200),
        "asset": ChipRules(masks="asset"),
        "asset, 200 m": ChipRules(masks="asset", dilate_cloud_m=200, dilate_shadow_m=200),
    }
    if network_version():
        found["csmask"] = ChipRules(masks="csmask")
    assert {rules.masks for rules in found.values()} <= set(MAKERS)
    return found


def _look_seconds(folder: Path, scene: Scene, rules: ChipRules) -> float:
    """Of three looks the fastest: a first one finds files cold. The network's mask is there by then."""
    grid = grid_of(config(folder))
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        list(look_at_all([scene], grid, ChipRules.of(_settings(rules))))
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _plan_seconds(folder: Path, scene: Scene, rules: ChipRules) -> float:
    days = [scene.datetime.replace(day=1 + n) for n in range(_DATES)]
    scenes = [replace(scene, id=f"{scene.id}-{day:%d}", datetime=day) for day in days]
    settings = config(folder, area={"bbox": list(scene.footprint.bounds)}, scenes=_settings(rules))
    _fetched.cache_clear()
    begun = time.perf_counter()
    make_plan(settings, scenes, "model")
    return time.perf_counter() - begun


def _settings(rules: ChipRules) -> dict[str, Any]:
    names = ("masks", "max_cloud_probability", "dilate_cloud_m", "dilate_shadow_m")
    return {name: getattr(rules, name) for name in names}


def main() -> None:
    """Measure everything, print it, write it."""
    console = Console(width=160)
    logging.getLogger("difffusr").setLevel(logging.ERROR)
    tables: dict[str, Rows] = {}

    def show(title: str, rows: Rows) -> None:
        tables[title] = rows
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = Table(title=title, title_justify="left", box=None)
        for name in columns:
            table.add_column(name, justify="left" if name == "mask" else "right")
        for row in rows:
            table.add_row(*(str(row.get(name, "–")) for name in columns))
        console.print(table)

    show(
        "F1: shadow against drawn ones (alberta); cloud against s2cloudless there, against labels elsewhere",
        f1_of_masks(),
    )
    with tempfile.TemporaryDirectory() as folder:
        for title, rows in seconds_of_masks(Path(folder)):
            show(title, rows)
    facts = {"machine": machine(), "network": network_version(), "tables": tables}
    (HERE / "masks-f1.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
