"""Facts of a cube's scenes, by number: a page for each period.

A page is an array that holds one JSON text, `{number: facts}`, and never changes: its name is the digest of the text.
The root's attribute `difffusr:scene_pages` names the page of each period, so that the root stays small however many
scenes there are, and a publication writes the page of its own period alone. A scene of two periods that overlap has one
number, and stands on both pages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import zarr

from difffusr.pipeline.ground.errors import ConfigError

#: The group that holds the pages.
PAGES = "scenes"

#: Attributes of the root: path of each page, the largest number; and all facts, in cubes of earlier versions.
_BY_PERIOD, _COUNT, _EARLIER = "difffusr:scene_pages", "difffusr:scene_count", "difffusr:scenes"

#: What stands for a period at the page of the scenes that a cube of an earlier version has.
_ANY = "earlier"

Facts = Mapping[str, Any]

#: Reads a page.
Reading = Callable[[str], Mapping[int, Facts]]


@dataclass(frozen=True)
class SceneTable:
    """What a root says of scenes.

    Attributes:
        pages: paths by period, such as `2023-01-01/2023-01-31`.
        count: the largest number.
        earlier: facts by number that stand in the root itself: in cubes of earlier versions.
    """

    pages: Mapping[str, str] = field(default_factory=dict)
    count: int = 0
    earlier: Mapping[int, Facts] = field(default_factory=dict)

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> SceneTable:
        """From the attributes of a root, which are known to be a cube's."""
        earlier = {int(number): facts for number, facts in attributes.get(_EARLIER, {}).items()}
        count = max([int(attributes.get(_COUNT, 0)), *earlier])
        return cls(attributes.get(_BY_PERIOD, {}), count, earlier)

    def attributes(self) -> dict[str, Any]:
        """For a root; the facts of earlier versions have to be on a page by then."""
        return {_BY_PERIOD: dict(sorted(self.pages.items())), _COUNT: self.count}

    def facts(self, read: Reading, period: tuple[date, date] | None = None) -> dict[int, Facts]:
        """Facts by number.

        Args:
            read: returns the facts on a page, by its path.
            period: leaves out pages of periods that share no day with it.

        Raises:
            StoreError: a page is not one.
        """
        found = dict(self.earlier)
        for path in self.within(period):
            found |= read(path)
        return dict(sorted(found.items()))

    def within(self, period: tuple[date, date] | None) -> list[str]:
        """Paths of the pages of periods that share a day with one; of all without one."""
        return [path for key, path in sorted(self.pages.items()) if period is None or _overlaps(key, period)]

    def with_scenes(
        self, root: zarr.Group, read: Reading, period: tuple[date, date], scenes: Iterable[Facts] | Mapping[int, Facts]
    ) -> tuple[SceneTable, dict[int, Facts]]:
        """The table with the scenes of a run added to its period's page, which is written below a root; and the facts
        of all scenes that the period's pixels can be of. Those that have a number keep it.

        Args:
            scenes: with the numbers that they must have, where another cube has numbered them.

        Raises:
            StoreError: a page is not one.
            ConfigError: another scene has a number already.
        """
        facts, count = self.facts(read, period), self.count
        numbers = {one["id"]: number for number, one in facts.items()}
        page = self.pages.get(_key(period))
        here = {} if page is None else dict(read(page))
        if isinstance(scenes, Mapping):
            for number, one in scenes.items():
                if facts.get(number, one)["id"] != one["id"]:
                    raise ConfigError(
                        f"source.cube: its scene {number} is {one['id']}, that of the cube to write "
                        f"{facts[number]['id']}: it was made of another one; choose another store.url"
                    )
            numbers |= {one["id"]: number for number, one in scenes.items()}
            count, scenes = max([count, *scenes]), scenes.values()
        for one in scenes:
            count += one["id"] not in numbers
            here[numbers.setdefault(one["id"], count)] = dict(one)
        pages = {**self.pages, _key(period): _write_page(root, here)}
        if self.earlier:
            pages[_ANY] = _write_page(root, self.earlier)
        return SceneTable(pages, count), dict(sorted({**facts, **here}.items()))


def _write_page(root: zarr.Group, facts: Mapping[int, Facts]) -> str:
    text = json.dumps({str(number): facts[number] for number in sorted(facts)}, sort_keys=True)
    path = f"{PAGES}/{hashlib.sha256(text.encode()).hexdigest()}"
    page = root.create_array(path, shape=(), dtype=np.dtypes.StringDType(), dimension_names=(), overwrite=True)
    page[...] = text
    return path


def _key(period: tuple[date, date]) -> str:
    return "/".join(day.isoformat() for day in period)


def _overlaps(key: str, period: tuple[date, date]) -> bool:
    if key == _ANY:
        return True
    first, last = map(date.fromisoformat, key.split("/"))
    return first <= period[1] and period[0] <= last
