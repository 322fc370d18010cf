"""The tables of a training hold each step once."""

from __future__ import annotations

import pytest
from tiny_training import run

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_lines_after_the_checkpoint_are_written_anew(settings, tmp_path):
    whole = run(settings, tmp_path / "whole")
    out = tmp_path / "out"
    run(settings, out)
    with (out / "losses.csv").open("a") as file:
        file.write("7,nonsense\n8")  # as a killed process may leave it
    assert run(settings, out) == whole
