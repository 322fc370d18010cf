"""The reasons for which a plan touches chips, and the settings behind them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

#: Sections of the configuration that decide what is planned; the others do not change a pixel.
_SECTIONS: Final = ("area", "period", "source", "grid", "model", "scenes", "skip")

#: Longest value shown of a setting, in characters.
_SHOWN: Final = 40


class Reason(IntEnum):
    """Why a chip or shard is touched, most important first: of several reasons the first one is the primary one."""

    GRID = 0
    ALGORITHM = 1
    MODEL = 2
    SEED = 3
    UNCERTAINTY = 4
    CLOUDY = 5
    RULES = 6
    SKIPPED = 7
    BASELINE = 8
    VERSION = 9
    NEW_SCENE = 10
    LOST_SCENE = 11
    ORDER = 12
    BALANCE = 13
    OTHER = 14
    AREA = 15
    COVERED = 16
    OUTSIDE = 17
    UNCOVERED = 18

    @property
    def words(self) -> str:
        """The reason in words."""
        return _WORDS[self]


_WORDS: Final[Mapping[Reason, str]] = {
    Reason.GRID: "another grid",
    Reason.ALGORITHM: "new version of the algorithm",
    Reason.MODEL: "new weights or sampling",
    Reason.SEED: "another seed",
    Reason.UNCERTAINTY: "another number of uncertainty samples",
    Reason.CLOUDY: "other setting for clouds",
    Reason.RULES: "other settings for masks, balance or composites",
    Reason.SKIPPED: "other chips skip the networks",
    Reason.BASELINE: "scene has a new processing baseline",
    Reason.VERSION: "scene has a new version",
    Reason.NEW_SCENE: "new scene used",
    Reason.LOST_SCENE: "scene no longer used (withdrawn or outranked)",
    Reason.ORDER: "scenes in another order",
    Reason.BALANCE: "scene is balanced otherwise",
    Reason.OTHER: "unknown cause",
    Reason.AREA: "new in the area",
    Reason.COVERED: "newly covered",
    Reason.OUTSIDE: "no longer in the area",
    Reason.UNCOVERED: "no longer covered",
}


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of the sections that decide what is planned, as "section.key: before → now"."""
    found: list[str] = []
    for section in _SECTIONS:
        before, now = old.get(section) or {}, new.get(section) or {}
        found += [
            f"{section}.{key}: {_short(before.get(key))} → {_short(now.get(key))}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
    return tuple(found)


def named_settings(settings: tuple[str, ...], *keys: str) -> tuple[str, ...]:
    """Of the texts that `changed_settings` gave, those of some keys such as "model.seed"."""
    return tuple(text for text in settings if text.partition(":")[0] in keys)


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
