"""Requests of a driver that was taken over which arrive while the next one works: the cube is as without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difffusr.pipeline.assemble.shards import ShardStream
from difffusr.pipeline.chips.staging import delete_chip
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.publish.plain import PlainTarget, PlainWriter
from difffusr.pipeline.run.execution import execute
from tests.e2e.conftest import _Silent

Patch = Callable[[pytest.MonkeyPatch], object]


def chips_deleted(some: slice, times: int = 1) -> Patch:
    """The first staged chips are deleted before a shard is blended of them: they were let go by a run before."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        staged, left = ShardStream.staged, [times]

        def late(self: ShardStream, positions: np.ndarray) -> None:
            if left[0] and len(positions):
                left[0] -= 1
                for position in positions[some].tolist():
                    delete_chip(self._staging, self._work.plan.chips[position].object_name)
            staged(self, positions)

        monkeypatch.setattr(ShardStream, "staged", late)

    return patch


def written(level: int, nth: int) -> Patch:
    """Somebody writes an object of a level once this driver has looked at what there is, for the n-th time."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        writer, made = PlainTarget.writer, list[int]()

        def looked(self: PlainTarget, level: int | None = None) -> PlainWriter:
            found = writer(self, level)
            made.append(1)
            if len(made) == nth:
                zone = next(iter(self.draft.zones.values()))
                shards = sorted(self.draft.grid.shards_touching(zone.window), key=str)
                place: Any = zone.position(shards[0], self.draft.grid)
                while place.level < level:
                    place = place.parent
                self.storage.write(self.draft.shard_objects(zone.epsg, place)[1], b"of another")
            return found

        monkeypatch.setattr(PlainTarget, "writer", looked)

    return patch


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize(
    ("late", "said"),
    [
        (chips_deleted(slice(1)), "chips were not what was written"),
        pytest.param(chips_deleted(slice(None)), "chips were not what was written", marks=pytest.mark.slow),
        pytest.param(chips_deleted(slice(1), 3), "chips were not what was written", marks=pytest.mark.slow),
        pytest.param(
            written(0, 1),
            "were written by a driver that this one has taken over; written again",
            marks=pytest.mark.slow,
        ),
        pytest.param(written(1, 2), "somebody else has written it meanwhile", marks=pytest.mark.slow),
    ],
    ids=["a chip deleted", "chips deleted", "chips deleted again and again", "a shard written", "an overview written"],
)
def test_the_cube_is_as_without_them(late, said, configure, finished_run, monkeypatch, caplog):
    path = configure()
    late(monkeypatch)
    with caplog.at_level("WARNING", "difffusr"):
        assert execute(load_config(path), _Silent()).exit_code == 0
    assert said in caplog.text
    assert objects(path) == objects(finished_run)


def objects(path: Path) -> dict[str, bytes]:
    """Of all shards and overviews."""
    cube = path.with_suffix(".zarr")
    return {
        str(file.relative_to(cube)): file.read_bytes()
        for name in ("reflectance", "quality", "source")
        for file in cube.glob(f"*/*/{name}/c/**/*")
        if file.is_file()
    }
