"""Cubes that grow month by month, their metadata alone: what each month costs."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import xarray as xr
from small_cubes import GRID, WINDOW

from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.publish.door import finish_publishing, open_target
from difffusr.pipeline.publish.kept import EVERYTHING, Scope, mend_documents
from difffusr.pipeline.publish.revisions import was_seen
from difffusr.pipeline.storage.objects import Storage

#: Methods of a store that make one request.
_REQUESTS = ("write", "put", "create", "exchange", "tag", "modified", "read", "exists", "names", "delete")


class Month(NamedTuple):
    """What a month cost.

    Attributes:
        number: how many there are.
        seconds: of its publication, from the draft on.
        requests, read, written: requests to cube and staging folder, bytes by them. Of an Icechunk repository, what is
            beside it.
        root, history: bytes of the root's document, and of the history.
        of_reader: requests of who opens a level with xarray, for documents and coordinates; 0 for a repository.
    """

    number: int
    seconds: float
    requests: int
    read: int
    written: int
    root: int
    history: int
    of_reader: int


class Growth:
    """A cube without pixels, and its history.

    Args:
        scenes: of each zone and month.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        zones: int,
        monkeypatch: pytest.MonkeyPatch,
        grid: Grid = GRID,
        window: PixelWindow = WINDOW,
        scenes: int = 12,
        balanced: bool = True,
    ) -> None:
        self.storage = Storage(f"{'icechunk+' if kind == 'icechunk' else ''}{folder}/cube")
        self.staging = Storage(f"{folder}/staging")
        self._folder, self._grid, self._scenes, self._balanced = folder, grid, scenes, balanced
        self._extents = {32631 + n: window for n in range(zones)}
        self._months = 0
        self._made: list[tuple[int, int]] = []
        for name in _REQUESTS:
            monkeypatch.setattr(Storage, name, self._counted(name, getattr(Storage, name)))

    def month(self, *, as_reader: bool = True) -> Month:
        """The next month is published, as a run does it once its shards are written.

        Args:
            as_reader: whether to open it with xarray then.
        """
        first = dt.date(2015 + self._months // 12, self._months % 12 + 1, 1)
        last = (first + dt.timedelta(31)).replace(day=1) - dt.timedelta(1)
        self._months += 1
        label = f"{first:%Y-%m}"
        self._made.clear()
        began = time.perf_counter()
        finish_publishing(self.storage, self.staging)
        draft = draft_cube(
            self.storage, self._grid, self._extents, (first, last), self._facts(first), {"made": "by a test"}
        )
        for epsg, zone in draft.zones.items():
            assert not was_seen(self.staging, epsg, zone.revision, zone.step)
        target = open_target(self.storage, self.staging, draft, label)
        target.begin()
        target.close()
        target.settle(set(), set())
        done = target.publish(shards_written=0, keep=1)
        seconds = time.perf_counter() - began
        assert done.number == self._months
        made = list(self._made)
        return Month(
            self._months,
            seconds,
            len(made),
            sum(read for read, _ in made),
            sum(written for _, written in made),
            len(self.root()),
            sum(path.stat().st_size for path in Path(self.staging.url, "history").rglob("*") if path.is_file()),
            self.reader() if as_reader else 0,
        )

    def looked_at(self, everything: bool = False) -> tuple[int, int]:
        """Requests and bytes read of who compares the documents of a cube with its history: as a run of the last month
        does, or as `verify` of all months."""
        self._made.clear()
        first = dt.date(2015 + (self._months - 1) // 12, (self._months - 1) % 12 + 1, 1)
        scope = EVERYTHING if everything else Scope((first, first))
        assert mend_documents(self.storage, self.staging, None, scope) == []
        return len(self._made), sum(read for read, _ in self._made)

    def root(self) -> bytes:
        """The root's document."""
        place = Path(self.storage.url, "zarr.json")
        return place.read_bytes() if place.exists() else b""

    def reader(self) -> int:
        """Requests of who opens the first zone with xarray, as LocalStore sees them."""
        if self.storage.url.startswith("icechunk"):
            return 0
        from zarr.storage import LocalStore

        asked: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            get = LocalStore.get

            async def counted(self: LocalStore, key: str, *args: Any, **more: Any) -> Any:
                asked.append(key)
                return await get(self, key, *args, **more)

            patch.setattr(LocalStore, "get", counted)
            group = f"{next(iter(self._extents))}/0"
            cube = xr.open_zarr(open_store(self.storage), group=group, zarr_format=3, chunks=None)
            assert cube.sizes["time"] == self._months
        return len(asked)

    def _facts(self, first: dt.date) -> Sequence[dict[str, Any]]:
        bands = [0.98765] * 12
        balance = {
            "gain": bands, "offset": [[12.25] * 4] * 12, "factor": bands, "square": [3e5, 5e6, 1.1e5], "shift": bands,
            "before": bands, "after": bands, "angles": "granule", "hazy": False,
        }  # fmt: skip
        return [
            {
                "id": f"S2A_{epsg - 32600}UNU_{first:%Y%m}{n:02d}_0_L2A",
                "datetime": f"{first}T10:30:31.024000+00:00",
                "tile": f"{epsg - 32600}UNU",
                "baseline": "05.09",
                "collection": "sentinel-2-l2a",
                "product": f"S2A_MSIL2A_{first:%Y%m}{n:02d}T103031_N0509_R108_T{epsg - 32600}UNU_20230615T163758.SAFE",
                **({"balance": balance} if self._balanced else {}),
            }
            for epsg in self._extents
            for n in range(self._scenes)
        ]

    def _counted(self, name: str, method: Any) -> Any:
        def counted(storage: Storage, *args: Any, **more: Any) -> Any:
            result = method(storage, *args, **more)
            sent = len(args[1]) if name in ("write", "create", "exchange") else 0
            self._made.append((len(result) if name == "read" else 0, sent))
            return result

        return counted
