"""A reported cube, its report, and the command."""

from __future__ import annotations

from typing import Any

import pytest
from reported_cubes import REFLECTANCE, publish, staging_of
from small_cubes import label

from difffusr.pipeline.commands import cli
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.report.facts import CubeReport


@pytest.fixture(scope="session")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """Two months of the same pixels."""
    return publish(tmp_path_factory.mktemp("report"), REFLECTANCE, (1, 2))


@pytest.fixture(scope="session")
def told(cube: Cube) -> CubeReport:
    """The report of the first month."""
    return collect_report(cube, staging_of(cube), None, [label(1)])


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command: its exit code, what it prints, its errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "report", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run
