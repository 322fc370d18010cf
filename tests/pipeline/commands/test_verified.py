"""What `verify` shows: verdicts by band, and warnings that do not make a cube unclean."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from configs import written

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.commands import cli
from difffusr.pipeline.readers.verdicts import BandReport, BandShift, SceneShift
from difffusr.pipeline.readers.verify import Report

BAND = BandReport("", 1.002, 0.013, 0.00123, True, 0.0009, 2e-5)
CLEAN = Report(4, 1, [], [], [], 1.0, {"clear": 1.0}, [replace(BAND, band=band) for band in BANDS])
SHIFT = SceneShift("S2B_[43]RCP", 3, (BandShift("B01", 30.0, 40.0, "B02"), BandShift("B09", -60.0, 0.0, "B8A")))


@pytest.fixture
def verify(tmp_path, capsys, monkeypatch):
    """Call the command with what it finds: exit code, output, document."""

    def call(found: Report) -> tuple[int, str, dict]:
        monkeypatch.setattr("difffusr.pipeline.readers.verify_run", lambda config, everything: found, raising=False)
        config = written(tmp_path, period="2023-06", store={"url": "cube.zarr"})
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr("sys.argv", ["difffusr", "verify", str(config), "--json", str(tmp_path / "found.json")])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())

    return call


def woven(*names: str) -> list[BandReport]:
    return [
        replace(band, gridness=0.0527, grid_amplitude=0.00132, grid=True) if band.band in names else band
        for band in CLEAN.bands
    ]


def test_without_a_fault_there_is_no_warning(verify):
    code, out, told = verify(CLEAN)
    assert code == 0
    assert "warning" not in out
    assert out.strip().endswith("clean")
    assert told["clean"]
    assert told["shifted"] == []
    assert all(not band["grid"] for band in told["bands"])


@pytest.mark.parametrize("names", [("B01",), ("B02", "B8A"), BANDS])
def test_a_grid_is_a_warning_that_names_the_bands(verify, names):
    code, out, told = verify(replace(CLEAN, bands=woven(*names)))
    assert code == 0
    assert f"warning: a grid of 4 pixels shows in {', '.join(names)}," in out
    assert out.count("5.27 %") == len(names)
    assert [band["band"] for band in told["bands"] if band["grid"]] == list(names)
    assert max(len(line) for line in out.splitlines() if line.startswith(("│", "┃"))) <= 80


def test_a_scene_whose_bands_are_shifted_is_one_line(verify):
    code, out, told = verify(replace(CLEAN, shifted=[SHIFT, replace(SHIFT, scene="other")]))
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 2
    assert "S2B_[43]RCP: bands are shifted (B01 by 50 m against B02; B09 by 60 m against B8A)" in lines[0]
    assert "leave the scene out" in lines[0]
    assert told["shifted"][0]["bands"][0] == {"band": "B01", "down_m": 30.0, "right_m": 40.0, "against": "B02"}


def test_a_band_that_is_off_is_off_whatever_its_grid(verify):
    bands = [replace(band, ok=band.band != "B05") for band in woven("B05", "B06")]
    code, out, _ = verify(replace(CLEAN, bands=bands))
    assert code == 1
    assert "not clean" in out
    assert "shows in B06," in out
    (row,) = [line for line in out.splitlines() if "B05" in line and "│" in line]
    assert "off" in row


def test_what_is_not_known_is_a_dash(verify):
    bands = [replace(band, gridness=None, grid_amplitude=None) for band in CLEAN.bands]
    code, out, told = verify(replace(CLEAN, bands=bands))
    assert code == 0
    assert out.count("–") >= 12
    assert told["bands"][0]["gridness"] is None
