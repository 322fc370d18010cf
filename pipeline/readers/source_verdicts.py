"""Judge the borders between sources, by kind: between dates, between granules of one acquisition, all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from scipy.special import ndtr, stdtrit

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.geo import Lattice
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.readers.seams import seam_ratios
from difffusr.pipeline.readers.source_seams import SourceBorder
from difffusr.pipeline.readers.verdicts import SourceBand, SourceSeams, WorstBorder, shows_nothing

#: Facts of the cube's scenes by number, as in `Cube.scenes`.
SceneFacts = Mapping[int, Mapping[str, Any]]

#: Most time between the granules of one acquisition: not their day, which ends in mid-orbit over the Pacific.
_ONE_PASS: Final = dt.timedelta(hours=12)


def judge_sources(borders: Sequence[SourceBorder], scenes: SceneFacts) -> list[SourceSeams]:
    """The seams of all borders and of each kind, in the order of `SourceSeams.kind`."""
    kinds: dict[str, Callable[[str], bool]] = {
        "dates": lambda kind: kind == "dates",
        "granules": lambda kind: kind == "granules",
        "all": lambda _: True,
    }
    of = [_kind(border, scenes) for border in borders]
    return [
        _judged(name, [border for border, kind in zip(borders, of, strict=True) if belongs(kind)])
        for name, belongs in kinds.items()
    ]


def worst_border(
    borders: Sequence[SourceBorder], scenes: SceneFacts, lattice_of: Callable[[int], Lattice] = Lattice.of_zone
) -> WorstBorder | None:
    """The border whose step in some band is the greatest in steps beside it; short ones only where none is long.

    Args:
        lattice_of: the pixels of a border's zone.
    """
    if not borders:
        return None
    enough = max(border.squares for border in borders) / 2
    border = max((border for border in borders if border.squares >= enough), key=lambda one: float(one.contrast.max()))
    band = int(border.contrast.argmax())
    step, usual = (round(float(steps[band]) / DN_SCALE, 5) for steps in (border.step, border.usual))
    first, other = (str(scenes.get(number, {}).get("id", f"scene {number}")) for number in border.sources)
    lattice = lattice_of(border.epsg)
    lon, lat = lattice.degrees(border.col * lattice.pixel, lattice.origin - border.row * lattice.pixel)
    return WorstBorder(
        BANDS[band], step, usual, (first, other), border.epsg, round(float(lon), 5), round(float(lat), 5)
    )


def _kind(border: SourceBorder, scenes: SceneFacts) -> str:
    """`dates`, `granules`, or an empty string where the time of a scene is not known."""
    first, other = (_moment(scenes.get(number, {}).get("datetime")) for number in border.sources)
    if first is None or other is None:
        return ""
    return "granules" if abs(first - other) < _ONE_PASS else "dates"


def _moment(text: Any) -> dt.datetime | None:
    """A scene's time; UTC where it does not say; None if it cannot be understood."""
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def _judged(kind: str, borders: Sequence[SourceBorder]) -> SourceSeams:
    ratios, errors = seam_ratios([border.steps for border in borders])
    errors = errors * _widening(len(borders))
    bands = [
        SourceBand(band, round(float(ratio), 4), round(float(error), 4), shows_nothing(float(ratio), float(error)))
        for band, ratio, error in zip(BANDS, ratios, errors, strict=True)
    ]
    return SourceSeams(kind, len(borders), bands)


def _widening(borders: int) -> float:
    """What a standard error from few borders is multiplied by, so that two of it are exceeded by chance as rarely as
    from many: Student's t."""
    return float(stdtrit(borders - 1, ndtr(2.0)) / 2) if borders > 1 else 1.0
