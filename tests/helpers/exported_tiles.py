"""What an export of tiles has left in a folder."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

#: Where the cube lies that tests export: on a border between zones.
PLACE = (12.0, 48.0)


def tiles_in(folder: Path) -> dict[str, Path]:
    """The files by name."""
    return {path.name: path for path in sorted(folder.glob("*.tif"))}


def described(document: Path) -> list[str]:
    """What a VRT, or what lies beside a file, calls the numbers of the first band."""
    return [element.text or "" for element in ElementTree.parse(document).getroot().iter("Category")]
