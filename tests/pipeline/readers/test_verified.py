"""What verify found is shown by status, with its date and whether the cube has been published since."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.readers.verdicts import BandReport, SourceBand, SourceSeams, WorstBorder
from difffusr.pipeline.readers.verified import keep_verdict, read_verdict, seam_words, verdict_words
from difffusr.pipeline.readers.verify import Report
from difffusr.pipeline.run.named import Damaged, note_damaged
from difffusr.pipeline.storage.objects import Storage

NAN, INF = float("nan"), float("inf")


def seams(kind: str, borders: int, off: tuple[str, ...] = (), ratio: float = 1.02, error: float = 0.03) -> SourceSeams:
    bands = [SourceBand(band, 1.31 if band in off else ratio, error, band not in off) for band in BANDS]
    return SourceSeams(kind, borders, bands)


GOOD = Report(
    4, 1, [], [], [], 1.0, {"clear": 1.0}, [BandReport(band, 1.0, 0.02, 0.0003, True) for band in BANDS],
    [seams("dates", 120), seams("granules", 0, ratio=NAN, error=NAN), seams("all", 120)],
    WorstBorder("B02", 0.008, 0.002, ("one", "other"), 32633, 14.5, -46.5),
)  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Storage, Storage]:
    return Storage(str(tmp_path / "cube.staging" / "runs" / "2023-08")), Storage(str(tmp_path / "cube.staging"))


def publish(staging: Storage, number: int, **more: Any) -> None:
    record = {
        "number": number, "when": "2023-09-01T00:00:00+00:00", "kind": "period", "period": "2023-08-01 – 2023-08-31",
        "zones": {}, "steps": {}, "shards_written": 4, "state": "published",
    }  # fmt: skip
    staging.write(f"history/{number:06d}.json", json.dumps({**record, **more}).encode())


def kept(folders: tuple[Storage, Storage], found: Report, publication: int = 1) -> dict[str, Any]:
    keep_verdict(folders[0], found.to_dict(), publication)
    verdict = read_verdict(*folders)
    assert verdict is not None
    return verdict


def test_nothing_is_known_before_verify(folders):
    assert read_verdict(*folders) is None


def test_what_is_kept_is_json_without_nan(folders):
    alone = replace(GOOD, sources=[seams("dates", 1, error=INF), *GOOD.sources[1:]])
    kept(folders, alone)
    said = json.loads(folders[0].read("verified.json"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {band["error"] for band in said["sources"][0]["bands"]} == {None}
    assert {band["ratio"] for band in said["sources"][1]["bands"]} == {None}
    assert said["clean"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "clean"),
        ({"missing": ["a", "b"]}, "not clean (2 shards missing)"),
        ({"documents": ["zarr.json"]}, "not clean (1 documents and coordinates damaged)"),
        ({"damaged": ["a"], "chips": ["b", "c"]}, "not clean (1 shards damaged; 2 staged chips damaged)"),
        ({"damaged": ["a"], "bands": [], "sources": [], "worst_border": None}, "not clean (1 shards damaged)"),
        ({"incomplete": ["a"] * 1500}, "not clean (1,500 shards incomplete)"),
        ({"bands": [BandReport("B05", 1.3, 0.02, 0.0003, False)]}, "not clean (off: B05)"),
        ({"sources": [seams("dates", 9, ("B02", "B08")), seams("granules", 2), seams("all", 11, ("B08",))]},
         "not clean (seams between dates in B02, B08)"),
        ({"sources": [seams("dates", 9), seams("granules", 2, ("B01",)), seams("all", 11)]},
         "not clean (seams between granules in B01)"),
        ({"sources": [seams("dates", 9), seams("granules", 2), seams("all", 11, ("B8A",))]},
         "not clean (seams between scenes in B8A)"),
    ],
)  # fmt: skip
def test_every_fault_is_said_in_one_line(folders, more, expected):
    publish(folders[1], 1)
    found = replace(GOOD, **more)
    verdict = kept(folders, found)
    assert verdict["clean"] == found.clean == (expected == "clean")
    assert verdict_words(verdict).split(" UTC: ")[1] == expected


def test_kinds_that_there_are_not_are_not_spoken_of(folders):
    assert seam_words(kept(folders, GOOD)) == [("seams between dates", "1.02 to 1.02 over 120 borders")]
    both = replace(GOOD, sources=[seams("dates", 9, ("B02",)), seams("granules", 2), seams("all", 11)])
    assert [kind for kind, _ in seam_words(kept(folders, both))] == ["seams between dates", "seams between granules"]


def test_a_publication_since_is_told_and_one_that_never_ended_is_none(folders):
    publish(folders[1], 1)
    assert not kept(folders, GOOD, 1)["published_since"]
    publish(folders[1], 2, state="publishing")
    assert not kept(folders, GOOD, 1)["published_since"]
    publish(folders[1], 2)
    verdict = kept(folders, GOOD, 1)
    assert verdict["published_since"]
    assert verdict_words(verdict).endswith("clean; published again since")
    assert not kept(folders, GOOD, 2)["published_since"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"publication": 1}', '{"publication": 1, "when": "x", "clean": true}', "\udcff"]
)
def test_what_cannot_be_understood_is_one_line(folders, text):
    folders[0].write("verified.json", text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=r"verified\.json: cannot be understood .*; delete it$"):
        read_verdict(*folders)


def test_a_folder_that_cannot_be_written_to_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        keep_verdict(Storage(str(tmp_path / "file")), GOOD.to_dict(), 1)
    assert "status and the next run will not know what verify found" in caplog.text


def test_seams_between_scenes_alone_make_a_cube_not_clean():
    assert GOOD.clean
    off = replace(GOOD, sources=[seams("dates", 9, ("B02",)), *GOOD.sources[1:]])
    assert not off.clean
    assert off.to_dict()["clean"] is False


@pytest.mark.parametrize(
    ("lat", "lon", "place"),
    [(46.5, 14.5, "46.5000° N, 14.5000° E"), (-46.5, -0.25, "46.5000° S, 0.2500° W"), (0, 0, "0.0000° N, 0.0000° E")],
)
def test_the_place_of_the_most_visible_border_is_said(lat, lon, place):
    worst = WorstBorder("B02", 0.008, 0.002, ("one", "other"), 32633, lon, lat)
    assert worst.words == (
        f"most visible: a step of 0.0080 in B02 where 0.0020 is usual, at {place}, between one and other"
    )


@pytest.mark.parametrize("fault", ["missing", "damaged", "documents", "chips"])
def test_that_a_run_has_written_again_what_was_damaged_is_said(folders, fault):
    publish(folders[1], 1)
    verdict = kept(folders, replace(GOOD, **{fault: ["a"]}))
    assert not verdict["mended"]
    note_damaged(folders[0], Damaged())
    verdict = read_verdict(*folders)
    assert verdict is not None
    assert verdict_words(verdict).endswith("; damage written again since")
