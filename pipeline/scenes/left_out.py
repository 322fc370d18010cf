"""Items that a search leaves out because something is wrong with them, counted by reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import one_line

log = logging.getLogger("difffusr.catalog")

#: Items of a reason that are named.
_NAMED = 3

#: By default: the share of items that may be left out, and how many always may.
_SHARE, _ALWAYS = 0.1, 10


class ItemError(CatalogError):
    """Something is wrong with an item. The message names the item; `reason` is the same for all items of its kind."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class MissingBandError(ItemError):
    """An item has no file of a band that the run needs."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "without a band")
        self.args = (message,)


def shown_name(value: object) -> str:
    """An item's id, or whatever stands in its place, as it may be shown."""
    text = value if isinstance(value, str) else "" if value is None else repr(value)[:200]
    return one_line(text if text.isprintable() else ascii(text), 100) or "without id"


@dataclass
class _Reason:
    """How many items have a reason, the names of the first, and the whole message of the first."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    first: str = ""

    @property
    def named(self) -> str:
        """The names, with a mark where there are more."""
        return ", ".join(self.names) + (", …" if self.count > len(self.names) else "")


@dataclass
class LeftOut:
    """The items that are left out, by reason."""

    reasons: dict[str, _Reason] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of items."""
        return sum(reason.count for reason in self.reasons.values())

    def add(self, item_id: object, error: ItemError) -> None:
        """Count an item."""
        reason = self.reasons.setdefault(error.reason, _Reason(first=one_line(str(error), None)))
        reason.count += 1
        if len(reason.names) < _NAMED:
            reason.names.append(shown_name(item_id))

    def ordered(self) -> list[tuple[str, _Reason]]:
        """The reasons, the most frequent first."""
        return sorted(self.reasons.items(), key=lambda pair: (-pair[1].count, pair[0]))

    def table(self) -> str:
        """The reasons with counts and names, and the first item's message, in one line."""
        told = [f"{reason.count} {name} ({reason.named})" for name, reason in self.ordered()]
        return f"left out by reason: {'; '.join(told)}. The first: {self.ordered()[0][1].first}"

    def to_json(self) -> list[dict[str, Any]]:
        """Reason, number of items, names of the first and message of the first, the most frequent reason first."""
        return [
            {"reason": name, "items": reason.count, "named": list(reason.names), "first": reason.first}
            for name, reason in self.ordered()
        ]

    def warn(self) -> None:
        """Log each reason once, after all of them in short where there are several."""
        if len(self.reasons) > 1:
            told = ", ".join(f"{reason.count} {name}" for name, reason in self.ordered())
            log.warning("%d items are left out by reason: %s", self.count, told)
        for name, reason in self.ordered():
            if reason.count == 1:
                log.warning("left out: %s", reason.first)
            else:
                log.warning("left out: %d items %s (%s); the first: %s", reason.count, name, reason.named, reason.first)

    def check(self, understood: int, allowed: float | None) -> None:
        """Raise CatalogError where more is left out than the configuration allows.

        Args:
            understood: number of the other items that were wanted.
            allowed: `source.max_left_out`.
        """
        bound = max(_ALWAYS, _SHARE * (self.count + understood))
        if allowed is not None:
            bound = allowed * (self.count + understood)
        if self.count > bound + 1e-9:
            limit = "10 % (and at least ten), the default of" if allowed is None else f"{100 * allowed:g} %,"
            raise CatalogError(
                f"{self.count} of {self.count + understood} items of area and period are left out, more than {limit} "
                f"source.max_left_out: {self.table()}. Correct the items, or set source.max_left_out higher"
            )
