"""HTML templates with places for text."""

from __future__ import annotations

import re


def fill_template(template: str, **parts: str) -> str:
    """Replace each %NAME% by the part of that name. Text that is put in is not searched again."""
    return re.sub(r"%(" + "|".join(parts) + r")%", lambda found: parts[found[1]], template)
