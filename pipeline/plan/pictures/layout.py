"""Where the parts of a plan's picture are, in its own pixels."""

from __future__ import annotations

from typing import Final

#: The picture is drawn this many times larger and then averaged, so that lines and letters come out smooth.
FINE: Final = 2

#: Width of the picture, its margin, the legend, the title above and the room below the map.
WIDTH, MARGIN, SIDE, HEAD, FOOT = 1680, 44, 372, 112, 70

MAP_WIDTH: Final = WIDTH - 3 * MARGIN - SIDE - 20

#: Least and greatest height of the map.
MAP_HEIGHTS: Final = (720, 1320)

#: Height of a line of the legend, and the most dates that it lists.
LINE, LISTED = 27, 12
