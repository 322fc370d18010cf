"""Numbers as people read them: counts, shares, sizes, spans of time."""

from __future__ import annotations

import humanize


def counted(number: int, noun: str) -> str:
    """`1 chip`, `1,200 chips`; for nouns whose plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share_words(share: float) -> str:
    """`33.3 %` of a share from 0 to 1."""
    return f"{share:.1%}".replace("%", " %")


def careful_share_words(share: float) -> str:
    """As `share_words`, but only 0 is shown as 0 % and only 1 as 100 %."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return share_words(share) if 0 < share < 1 else f"{share:.0%}".replace("%", " %")


def size_words(count: float) -> str:
    """Bytes in decimal units: `532 Bytes`, `1.4 GB`."""
    return humanize.naturalsize(count, format="%.1f")


def span_words(seconds: float) -> str:
    """Seconds in the largest unit that fits: `12 s`, `12.3 min`, `2.2 h`.

    Not humanize's: its short form drops the digits that a cost depends on (`2 hours` for 2.9), its exact one takes
    three units.
    """
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def ago_words(seconds: float) -> str:
    """How long ago: `12 seconds ago`, `an hour ago`."""
    return humanize.naturaltime(max(seconds, 0.0))
