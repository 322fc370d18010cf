"""The page's own files."""

from __future__ import annotations

from pathlib import Path


def page_files() -> dict[str, Path]:
    """Paths of the page, its style sheets and its scripts, by name."""
    return {path.name: path for path in Path(__file__).with_name("page").iterdir()}
