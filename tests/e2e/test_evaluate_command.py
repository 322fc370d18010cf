"""`difffusr evaluate`: any weights on any folder, and one line where that cannot be."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
from beside import SHARED
from PIL import Image

from difffusr.kernels.weights.packaged import shipped


@pytest.fixture
def evaluate(command):
    """Call `difffusr evaluate …`; needs no Ray."""
    return partial(command, "evaluate")


@pytest.fixture
def picture(tmp_path):
    """A folder with one 8-bit picture of fields."""
    rng = np.random.default_rng(5)
    pixels = np.full((120, 120, 3), 120, np.uint8)
    for _ in range(60):
        row, col, height, width = rng.integers(0, 120), rng.integers(0, 120), *rng.integers(4, 30, 2)
        pixels[row : row + height, col : col + width] = rng.integers(60, 200, 3)
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "fields.png")
    return folder


def test_the_shipped_weights_are_judged_on_a_folder_of_pictures(evaluate, picture, tmp_path):
    ended = evaluate(
        "sr",
        picture,
        "--gsd",
        "2.5",
        "--size",
        "64",
        "--windows",
        "1",
        "--samples",
        "2",
        "--steps",
        "2",
        "--out",
        tmp_path / "out",
    )
    assert ended.code == 0, ended.err
    assert "diffusion sample + bp" in ended.out
    assert "rank correlation" in ended.out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["facts"]["windows"] == 1
    assert str(picture) not in (tmp_path / "out" / "index.html").read_text()  # no path of this machine


@pytest.mark.slow
def test_weights_at_an_address_are_named_without_what_is_secret_in_it(evaluate, picture, tmp_path):
    shutil.copy(shipped("small", "stage1"), tmp_path / "stage1.safetensors?sig=s3cr3t")
    ended = evaluate(
        "sr", picture, "--gsd", "2.5", "--size", "64", "--windows", "1", "--samples", "0", "--steps", "2",
        "--out", tmp_path / "out",
        "--weights", f"file://{tmp_path}/stage1.safetensors?sig=s3cr3t",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = (tmp_path / "out" / "evaluation.json").read_text()
    assert json.loads(found)["facts"]["weights"] == "stage1.safetensors"
    assert "s3cr3t" not in found + (tmp_path / "out" / "index.html").read_text() + ended.out + ended.err


def test_fusion_is_judged_on_real_scenes(evaluate, tmp_path):
    folder = SHARED / "data" / "l2a_patches" / "bigearthnet"
    if not folder.exists():
        pytest.skip(f"no real scenes: {folder} is not there")
    ended = evaluate("fusion", folder, "--only", "S2A_MSIL2A_20171221*", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "20 m bands, best baseline guided by RGB: ERGAS -" in ended.out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["against_the_best"]["20 m bands"]["guided by RGB"]["ergas_relative"] < -0.1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sr", "nowhere"), "nowhere: no such folder or image"),
        (("sr", "."), "fields.png: how many metres a pixel? State it with --gsd"),
        (("sr", ".", "--gsd", "2.5", "--rgb", "1,2"), "--rgb: '1,2' is not three bands"),
        (("sr", ".", "--gsd", "2.5", "--rgb", "3,4,5"), "has 3 band(s)"),
        (("sr", ".", "--gsd", "2.5", "--steps", "7"), "--steps: 7 is not a number from 2 that divides 1000"),
        (("sr", ".", "--gsd", "2.5", "--degradation", "rain"), "--degradation: 'rain' is neither"),
        (("sr", ".", "--gsd", "2.5", "--size", "100"), "--size: 100 is not a multiple of 8"),
        (("sr", ".", "--gsd", "0.25"), "no image holds a window of 64 × 64 pixels at 2.5 m"),
        (("fusion", "."), "no 12-band scene"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(evaluate, picture, monkeypatch, words, says):
    monkeypatch.chdir(picture)
    ended = evaluate(*words)
    assert ended.code == 2
    assert says in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_weights_that_cannot_be_used_are_named(evaluate, picture, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    ended = evaluate("sr", picture, "--gsd", "2.5", "--weights", tmp_path / "bad.safetensors")
    assert ended.code == 1
    assert "bad.safetensors" in ended.err
    assert "Traceback" not in ended.err
