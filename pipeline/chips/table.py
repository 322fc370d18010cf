"""What readers need to know of the chips, as one table; and reading one of them as a row of a batch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.geo import NAME_BYTES, ChipIndex, Grid, PlaceName, grid_of
from difffusr.pipeline.ground.errors import DifffusrError, ReadError
from difffusr.pipeline.ground.pixels import CLOUD_CLASSES, WATER_CLASSES, Quality
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.scenes import ChipRules, Scene, read_chip, unreadable
from difffusr.pipeline.storage import staging_of

if TYPE_CHECKING:  # only the driver makes a table: readers import neither plans nor what they are made with
    from difffusr.pipeline.config import RunConfig
    from difffusr.pipeline.plan import Plan


@dataclass(frozen=True, eq=False)
class ChipTable:
    """What readers need to know of the chips, one column an attribute.

    Attributes:
        epsg, row, col: (n,) int32.
        scenes: (n, m) int32 positions in `every_scene`, best first, −1 after the last.
        key: (n, 10) uint8, the part of the content key that a staged object's name holds.
        every_scene: the plan's scenes.
        grid, rules: as the configuration says.
        skip: classes of the scene classification; a chip that shows only these skips the networks.
    """

    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    scenes: NDArray[np.int32]
    key: NDArray[np.uint8]
    every_scene: tuple[Scene, ...]
    grid: Grid
    rules: ChipRules
    skip: tuple[int, ...]

    @classmethod
    def of(cls, config: RunConfig, plan: Plan) -> ChipTable:
        """The table of a plan."""
        c, key = plan.chips, plan.chips.key[:, :NAME_BYTES]
        skip = WATER_CLASSES * config.skip.water + CLOUD_CLASSES * config.skip.cloud
        rules = ChipRules.of(config.canonical()["scenes"], staging_of(config))
        return cls(c.epsg, c.row, c.col, c.scenes, key, plan.scenes, grid_of(config), rules, skip)

    def name(self, position: int) -> str:
        """As `ChipPlan.name`."""
        return str(self._place(position))

    def _place(self, position: int) -> PlaceName:
        return PlaceName(int(self.epsg[position]), int(self.row[position]), int(self.col[position]))

    def facts(self, position: int) -> dict[str, Any]:
        """What actor and stager need to know of a chip: columns `position`, `name`, `object`, `epsg`, `pixel_row`,
        `pixel_col`."""
        window = self.grid.chip_window(ChipIndex(int(self.row[position]), int(self.col[position])))
        return {
            "position": position,
            "name": self.name(position),
            "object": self._place(position).staged(self.key[position].tobytes().hex()),
            "epsg": int(self.epsg[position]),
            "pixel_row": window.row,
            "pixel_col": window.col,
        }

    def read(self, position: int) -> dict[str, Any]:
        """Read one chip: columns of `facts` and `read_row`, and `read_s`, the seconds that it took."""
        begun = time.perf_counter()
        index = ChipIndex(int(self.row[position]), int(self.col[position]))
        scenes = [self.every_scene[number] for number in self.scenes[position] if number >= 0]
        row = {**self.facts(position), **read_row(self.grid, index, scenes, self.rules, self.skip)}
        return {**row, "read_s": time.perf_counter() - begun}


def read_row(
    grid: Grid, index: ChipIndex, scenes: Sequence[Scene], rules: ChipRules, skip: Sequence[int] = ()
) -> dict[str, Any]:
    """Read one chip.

    Args:
        scenes: best first.
        skip: classes of the scene classification; a chip that shows only these skips the networks.

    Returns:
        `dn10`, `dn20`, `dn60`, `valid10`, `valid20`, `valid60`, `quality`, `source`, of a composite
        `looks`, as in `scenes.chip.Chip`; `error`:
        empty, or why the chip could not be read (the arrays then are zero); `unread`: a JSON list of the scenes (id,
        band, why) that trying again will not make readable, else empty; and `skipped`: whether it skips the networks,
        in which case `quality` says so.
    """
    window = grid.chip_window(index)
    error = unread = ""
    try:
        chip = read_chip(window, scenes, rules)
    except ReadError as failure:
        error = str(failure)
        broken = unreadable(window, scenes, rules)
        unread = json.dumps(broken) if broken else ""
    except DifffusrError as failure:
        error = str(failure)
    except Exception as failure:  # the one place where any failure becomes a chip's recorded failure
        error = f"{type(failure).__name__}: {one_line(failure)}"
    if error:
        chip = read_chip(window, [], rules)
    skipped, quality = chip.shows_only(skip), chip.quality
    if skipped:
        of_data = np.where(quality == Quality.CLOUDY, Quality.INTERPOLATED_CLOUD, Quality.INTERPOLATED)
        quality = np.where(quality == Quality.NO_DATA, Quality.NO_DATA, of_data).astype(np.uint8)
    out: dict[str, Any] = {"error": error, "unread": unread, "skipped": skipped}
    out |= {"quality": quality, "source": chip.source, **({} if chip.looks is None else {"looks": chip.looks})}
    for gsd in GROUPS:
        out[f"dn{gsd}"] = chip.dn[gsd]
        out[f"valid{gsd}"] = chip.valid[gsd].astype(np.uint8)
    return out
