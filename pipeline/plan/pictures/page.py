"""A plan as one self-contained HTML page: a map to pan and zoom, and the scenes used."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import Grid
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.pictures.colours import Dates
from difffusr.pipeline.plan.pictures.legend import facts_of, title_of
from difffusr.pipeline.plan.pictures.page_data import pack_plan
from difffusr.pipeline.plan.pictures.template import fill_template
from difffusr.pipeline.plan.tables import Plan, StoredPlan

#: With more chips than this the page shows shards.
MOST_SQUARES: Final = 300_000

#: The page has all of its script in one piece: in this order.
_SCRIPTS: Final = ("cells.js", "painting.js", "controls.js")


def write_page(
    plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, path: Path, most_squares: int = MOST_SQUARES
) -> None:
    """Write a plan as an HTML page that needs no other file and no network.

    Args:
        plan: with at least one chip.
        grid: the plan's.
        area: of the run, EPSG:4326, cut at 180° or not; None draws no outline.
        path: of the page, replaced if it exists.
        most_squares: with more chips than this, shards are shown instead.

    Raises:
        StoreError: the file cannot be written.
    """
    dates = Dates.of(plan)
    page = fill_template(
        _source("page.html"),
        TITLE=escape(title_of(plan)),
        FACTS="".join(f"<li>{escape(fact)}</li>" for fact in facts_of(plan, dates)),
        STYLE=_source("page.css"),
        SCRIPT="\n".join(map(_source, _SCRIPTS)),
        DATA=pack_plan(plan, grid, area, dates, most_squares),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
