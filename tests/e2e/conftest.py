"""A small generated world, a real Ray on this machine, and the command as a user calls it."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from beside import SHARED

from difffusr.pipeline.commands import cli
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.scenes.synthetic.world import DemoWorld, write_demo_world

SHARED_DATA = SHARED / "data"


@pytest.fixture(scope="session")
def archive() -> Path:
    """The real archive's catalogue."""
    path = SHARED_DATA / "archive" / "catalog.json"
    if not path.exists():
        pytest.skip(f"no real scenes: {path.parent} is not there")
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> DemoWorld:
    """Two tiles, two dates, a cloud, 1.2 × 1.8 km."""
    return write_demo_world(tmp_path_factory.mktemp("world"), seed=11, size_m=(1200, 1800))


@pytest.fixture(scope="session")
def _ray() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGTERM, before)  # else who asks the tests to end only makes one of them fail
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys, monkeypatch) -> Callable[..., Ended]:
    """Call the command line in this process."""

    def call(*words: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["difffusr", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return call


@pytest.fixture
def difffusr(_ray, command) -> Callable[..., Ended]:
    """As `command`; Ray is already running."""
    return command


def write_config(world: DemoWorld, folder: Path, name: str = "run", **sections: Any) -> Path:
    """A configuration for the generated world: small chips, few steps, one actor; sections can be replaced or
    extended."""
    content: dict[str, Any] = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "model": {"sampler_steps": 2},
        "compute": {"actors_max": 1},  # each actor of two cores loads torch and the models
        "store": {"url": f"{name}.zarr"},
    }
    for section, values in sections.items():
        replaced = section in ("area", "source") or not isinstance(values, dict)
        content[section] = values if replaced else {**content.get(section, {}), **values}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def configure(world: DemoWorld, tmp_path: Path) -> Callable[..., Path]:
    """`write_config` into the test's own folder."""
    return lambda name="run", **sections: write_config(world, tmp_path, name, **sections)


class _Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


@pytest.fixture(scope="session")
def finished_run(_ray, world: DemoWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a run that has ended, of two actors; nobody may change what it wrote."""
    path = write_config(world, tmp_path_factory.mktemp("finished"), compute={"actors_max": 2})
    assert execute(load_config(path), _Silent()).exit_code == 0
    return path


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the ended run, to do with as a test likes."""
    shutil.copytree(finished_run.parent, tmp_path / "finished")
    return tmp_path / "finished" / finished_run.name


@pytest.fixture
def loaded(configure) -> Callable[..., RunConfig]:
    """A configuration, loaded."""
    return lambda name="run", **sections: load_config(configure(name, **sections))
