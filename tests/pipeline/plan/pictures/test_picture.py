"""The picture shows every chip in the colour of its date."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_plans import EQUATOR, GRID, TWO_ZONES, plan, stored
from PIL import Image

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.pictures.colours import PALETTE, rgb
from difffusr.pipeline.plan.pictures.page import write_page
from difffusr.pipeline.plan.pictures.picture import draw_map


def test_the_picture_is_the_same_every_time_and_from_disk(tmp_path: Path) -> None:
    made = plan(TWO_ZONES)
    draw_map(made, GRID, TWO_ZONES, tmp_path / "one.png")
    draw_map(stored(made), GRID, TWO_ZONES, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.width == 1680
        shown = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {rgb(colour) for colour in PALETTE[:3]} <= shown


@pytest.mark.parametrize("dates", [1, 12, 13, 40])
def test_any_number_of_dates_can_be_drawn(tmp_path: Path, dates: int) -> None:
    draw_map(plan(TWO_ZONES, dates), GRID, None, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    made = plan(EQUATOR)
    with pytest.raises(StoreError, match="cannot be written"):
        draw_map(made, GRID, EQUATOR, tmp_path / "nowhere" / "map.png")
    with pytest.raises(StoreError, match="cannot be written"):
        write_page(made, GRID, EQUATOR, tmp_path / "nowhere" / "map.html")
