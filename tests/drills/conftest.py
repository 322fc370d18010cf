"""What drills stand on: processes to fork, and grounds of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cube_commands import Workshop
from drill_places import Ground
from whole_runs import SIZE_M

from difffusr.pipeline.scenes.synthetic.world import DemoWorld, write_demo_world


@pytest.fixture(scope="session")
def smallest_world(tmp_path_factory: pytest.TempPathFactory) -> DemoWorld:
    """Two dates of 600 × 600 m: four chips, sixteen shards."""
    return write_demo_world(tmp_path_factory.mktemp("world"), seed=11, size_m=SIZE_M)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """Processes that end with the test."""
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.end()


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Ground]:
    """A ground of a kind; S3's server begins with the first that needs it."""

    def of(kind: str) -> Ground:
        folder = tmp_path / kind.replace(" ", "-")
        if not kind.endswith("S3"):
            return Ground(kind, folder)
        options: dict[str, Any] = request.getfixturevalue("s3_options")
        return Ground(kind, folder, request.getfixturevalue("bucket"), options)

    return of
