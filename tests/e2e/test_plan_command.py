"""`difffusr plan` as a user calls it: the plan, its picture, what changed, and in one line what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import geopandas as gpd
import pytest
from PIL import Image

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.storage.places import staging_of


def plan_of(path: Path) -> Path:
    """The folder of the plan of a configuration."""
    return Path(staging_of(load_config(path)).url) / "plan"


def test_a_plan_is_shown_and_lies_on_disk(command, configure):
    path = configure("shown")
    ended = command("plan", path)
    assert ended.code == 0
    assert "borders" in ended.out
    folder = plan_of(path)
    chips = gpd.read_parquet(folder / "chips.parquet")
    assert f"{len(chips):,} (about" in ended.out
    assert sorted(file.name for file in folder.iterdir()) == [
        "chips.parquet", "manifest.json", "scenes.parquet", "shards.parquet",
    ]  # fmt: skip


def test_planning_twice_gives_the_same_bytes(command, configure):
    path = configure("twice")
    assert command("plan", path).code == 0
    folder = plan_of(path)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert command("plan", path).code == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_a_map_is_a_picture_and_a_page(command, configure):
    path = configure("mapped")
    ended = command("plan", path, "--map", path.parent / "plan.png")
    assert ended.code == 0
    with Image.open(path.parent / "plan.png") as picture:
        assert min(picture.size) > 400
    page = (path.parent / "plan.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "plan.html" in ended.out


def test_a_difference_says_why_and_leaves_the_plan_alone(command, configure):
    path = configure("changed")
    assert command("plan", path).code == 0
    same = command("plan", path, "--diff", "--json", path.parent / "same.json")
    assert same.code == 0
    manifest = plan_of(path) / "manifest.json"
    before = manifest.read_bytes()
    configure("changed", model={"seed": 9})
    other = command("plan", path, "--diff", "--json", path.parent / "other.json")
    assert other.code == 0
    assert "seed" in other.out
    assert manifest.read_bytes() == before
    touched = [json.loads((path.parent / f"{name}.json").read_text())["diff"] for name in ("same", "other")]
    assert touched[0] != touched[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "--diff"], "there is no plan to compare with"),
        (["plan", "--estimate"], "costs.calibration is not set"),
        (["calibrate", "--batches", "1,x"], "--batches: found '1,x', expected numbers from 1"),
        (["calibrate", "--batches", "0"], "--batches: found '0', expected numbers from 1"),
    ],
)
def test_what_cannot_be_said_is_one_line(command, configure, words, said):
    ended = command(words[0], configure("wrong"), *words[1:])
    assert ended.code in (1, 2)
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_a_budget_without_a_calibration_is_refused(command, configure):
    ended = command("run", configure("poor", budget=10))
    assert ended.code == 2
    assert "budget: found 10.0, expected null, or costs.calibration as well" in " ".join(ended.err.split())


def test_what_is_left_out_is_shown_by_reason(command, configure):
    path = configure("odd")
    catalog = Path(load_config(path).source.static_catalog)
    item = next(catalog.parent.glob("items/*/*.json"))
    folder = path.parent / "archive"
    shutil.copytree(catalog.parent, folder)
    document = json.loads(item.read_text())
    document["properties"]["s2:processing_baseline"] = "99.33"
    document["properties"].pop("s2:product_uri", None)
    (folder / item.relative_to(catalog.parent)).write_text(json.dumps(document))
    path = configure("odd", source={"static_catalog": str(folder / catalog.name)})
    ended = command("plan", path, "--json", path.parent / "told.json")
    assert ended.code == 0
    assert "left out by reason" in ended.out
    assert "radiometry unknown" in ended.out
    (reason,) = json.loads((path.parent / "told.json").read_text())["plan"]["items"]["left_out"]
    assert (reason["reason"], reason["items"], reason["named"]) == ("radiometry unknown", 1, [document["id"]])
    assert "baseline 99.33" in reason["first"]
