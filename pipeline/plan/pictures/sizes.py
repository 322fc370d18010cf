"""Sizes of the parts of a plan's picture, in its own pixels."""

from __future__ import annotations

from typing import Final

#: Drawn so many times larger and then averaged: every line and letter comes out smooth.
FINE: Final = 2


WIDTH, MARGIN, SIDE, HEAD, FOOT = 1680, 44, 372, 112, 70


MAP_WIDTH: Final = WIDTH - 3 * MARGIN - SIDE - 20


MAP_HEIGHTS: Final = (720, 1320)


#: Pixels a line of the legend takes, and the most dates that it lists.
LINE, LISTED = 27, 12
