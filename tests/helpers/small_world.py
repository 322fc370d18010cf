"""A made-up world that is quickly made, and its scenes."""

from __future__ import annotations

from difffusr.pipeline.scenes.synthetic.sensor import RenderedScene

#: Height and width in metres.
SMALL_M = (1200, 1800)


def scene_on(scenes: list[RenderedScene], date: str, tile: str) -> RenderedScene:
    """The scene of a tile on a date."""
    return next(scene for scene in scenes if scene.date == date and scene.tile == tile)
