"""Catalogues of any kind and size, busy or plain, give the same scenes: one of each acquisition, within the limits."""

from __future__ import annotations

import copy
import datetime as dt
import http.server
import json
import logging
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from beside import SHARED
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.providers import resolve
from difffusr.pipeline.scenes.search import find_scenes

ITEMS = SHARED / "data" / "stac_items"
PROGRAM = Path(sys.executable).with_name("rustac")

pytestmark = pytest.mark.skipif(not ITEMS.is_dir(), reason=f"the real STAC items are not at {ITEMS}")

ES = "earthsearch_v1_sentinel-2-l2a_S2A_31UDQ"
MANY = 250


def config(days: str = "2015-06-23/2030-12-31", /, **source: Any) -> RunConfig:
    start, end = days.split("/")
    return RunConfig.model_validate(
        {
            "name": "test",
            "area": {"bbox": [-180, -90, 180, 90]},
            "period": {"start": start, "end": end},
            "source": source,
            "store": {"url": "/nowhere/cube.zarr"},
        }
    )


def item(name: str) -> dict[str, Any]:
    found = json.loads(next(ITEMS.glob(f"{name}*")).read_text())
    assert isinstance(found, dict)
    return found


def every_item() -> list[dict[str, Any]]:
    documents = [json.loads(file.read_text()) for file in sorted(ITEMS.iterdir())]
    return [one for d in documents for one in (d["features"] if d["type"] == "FeatureCollection" else [d])]


def collection_file(folder: Path, items: list[dict[str, Any]]) -> str:
    file = folder / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(file)


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "dropped"),
    [
        ({"max_nodata": 50}, {"20EPT", "24MXV", "60VUK", "07HFE", "33XWJ"}),
        ({"max_snow_cover": 5}, {"01WCR", "55WFR", "32TPS", "06VVN"}),
        ({"min_sun_elevation": 15}, {"20EPT", "60VUK", "33XWJ"}),
    ],
)
def test_a_limit_drops_what_is_beyond_it_and_keeps_what_does_not_say(
    tmp_path: Path, limit: dict[str, Any], dropped: set[str]
) -> None:
    file = collection_file(tmp_path, every_item())
    before = {scene.tile for scene in find_scenes(config(items=file, collection=None))}
    after = {scene.tile for scene in find_scenes(config(items=file, collection=None, **limit))}
    assert before - after == dropped
    assert "28QCH" in after  # Earth Search v0 says nothing of nodata, snow and sun


def test_dropped_items_are_counted_with_their_reason(tmp_path: Path) -> None:
    one = item("planetarycomputer_S2A_T60VUK")
    file = collection_file(tmp_path, [one])
    for limit, reason in (
        ({"max_nodata": 80}, "1 above 80 % nodata"),
        ({"min_sun_elevation": 10.5}, "1 below 10.5° of sun elevation"),
        ({"max_cloud_cover": 50}, "1 above 50 % cloud"),
    ):
        with pytest.raises(CatalogError, match=re.escape(f"1 items seen: {reason}")):
            find_scenes(config(items=file, **limit))
    one["properties"]["s2:snow_ice_percentage"] = 71
    with pytest.raises(CatalogError, match="1 items seen: 1 above 70 % snow"):
        find_scenes(config(items=collection_file(tmp_path, [one]), max_snow_cover=70))


# ---- duplicates -----------------------------------------------------------------------------------------------------


def other_product(one: dict[str, Any], **properties: str) -> dict[str, Any]:
    other = copy.deepcopy(one)
    other["id"] += "_other"
    other["properties"].update({key.replace("_", ":", 1): value for key, value in properties.items()})
    return other


def without_cogs(one: dict[str, Any]) -> dict[str, Any]:
    """The item with only the originals in the bucket whose readers pay."""
    one["assets"] = {key: value for key, value in one["assets"].items() if key.endswith("-jp2")}
    return one


def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    """A better product, a worse one, and why."""
    one = item(ES)
    newer = other_product(one, s2_processing_baseline="05.10")
    lacking = other_product(newer, s2_processing_baseline="05.10")
    for key in ("scl", "scl-jp2"):
        lacking["assets"].pop(key, None)
    later = other_product(one)
    later["properties"]["updated"] = "2024-01-01T00:00:00Z"
    return {
        "bands before baseline": (one, lacking, "which has more bands"),
        "baseline": (newer, one, "which has the newer baseline 05.10"),
        "baseline before cost": (without_cogs(copy.deepcopy(newer)), one, "which has the newer baseline 05.10"),
        "cost": (one, without_cogs(copy.deepcopy(later)), "which is cheaper to read (COG)"),
        "last updated": (later, one, "which was updated later"),
    }


@pytest.mark.parametrize("case", ["bands before baseline", "baseline", "baseline before cost", "cost", "last updated"])
@pytest.mark.parametrize("turned", [False, True])
def test_of_an_acquisition_the_best_product_is_taken_and_why_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str, turned: bool
) -> None:
    better, worse, why = cases()[case]
    file = collection_file(tmp_path, [worse, better] if turned else [better, worse])
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        (kept,) = find_scenes(config(items=file))
    assert kept.id == better["id"]
    (line,) = [record.getMessage() for record in caplog.records if "same acquisition" in record.getMessage()]
    assert line.startswith(f"left out: {worse['id']}: ")
    assert why in line


def test_an_acquisition_at_midnight_is_one(tmp_path: Path) -> None:
    before, after = item(ES), other_product(item(ES))
    for one, when in ((before, "2023-06-16T23:59:58Z"), (after, "2023-06-17T00:00:05Z")):
        one["properties"]["datetime"] = when
        one["properties"]["s2:product_uri"] = None
    assert len(find_scenes(config(items=collection_file(tmp_path, [before, after])))) == 1


def test_a_thousand_acquisitions_of_one_tile_are_told_apart_quickly(tmp_path: Path) -> None:
    one = item(ES)
    one["assets"] = {key: value for key, value in one["assets"].items() if not key.endswith("-jp2")}
    items = []
    for day in range(1000):
        items.append(other_product(one, s2_product_uri=None))  # type: ignore[arg-type]
        items[-1]["id"] = f"one_31UDQ_{day}"
        items[-1]["properties"]["datetime"] = f"{dt.date(2017, 1, 1) + dt.timedelta(day)}T10:46:31Z"
    file = collection_file(tmp_path, items)
    began = time.perf_counter()
    assert len(find_scenes(config(items=file))) == 1000
    assert time.perf_counter() - began < 10


# ---- stac-geoparquet ------------------------------------------------------------------------------------------------


def parquet_of(folder: Path, items: list[dict[str, Any]]) -> str:
    file = folder / "items.parquet"
    to_parquet(parse_stac_items_to_arrow(items), file)
    return str(file)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_table_of_items_gives_the_scenes_of_the_same_items(tmp_path: Path, prefix: str) -> None:
    items = every_item()
    plain = find_scenes(config(items=collection_file(tmp_path, items), collection=None))
    table = find_scenes(config(items=prefix + parquet_of(tmp_path, items), collection=None))
    assert table == plain
    assert [scene.version_key() for scene in table] == [scene.version_key() for scene in plain]


def test_a_parquet_file_that_holds_no_items_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    for content, said in ((b"", "is not a Parquet file"), (b"PAR1 no more", "is not a Parquet file")):
        file.write_bytes(content)
        with pytest.raises(CatalogError, match=said) as caught:
            find_scenes(config(items=str(file)))
        assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"id": ["a"], "geometry": ["b"]}), file)
    with pytest.raises(CatalogError, match="is not stac-geoparquet: it has no column assets"):
        find_scenes(config(items=str(file)))
    pq.write_table(pa.table({"id": ["a"], "geometry": [b"b"], "assets": ["c"]}), file)
    with pytest.raises(CatalogError, match="is not stac-geoparquet") as caught:
        find_scenes(config(items=str(file)))
    assert "\n" not in str(caught.value)
    with pytest.raises(CatalogError, match=r"none\.parquet: cannot be read"):
        find_scenes(config(items=str(tmp_path / "none.parquet")))


# ---- a real server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> list[dict[str, Any]]:
    """More items than two pages hold, of 25 days."""
    items = []
    for k in range(MANY):
        one = item("planetarycomputer_S2B_T06VVN")
        one["id"] = f"one_06VVN_{k}"  # no product's name: that would tell of one datatake
        one["properties"]["datetime"] = f"2018-06-{1 + k // 10:02d}T{10 + k % 10}:00:00Z"
        one["properties"]["s2:product_uri"] = None
        one["properties"]["eo:cloud_cover"] = k % 100
        items.append(one)
    return items


@pytest.fixture(scope="module")
def server(many: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not PROGRAM.is_file():
        pytest.skip("rustac is not installed")
    file = collection_file(tmp_path_factory.mktemp("server"), many)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as free:
        address = f"127.0.0.1:{free.server_port}"
    process = subprocess.Popen(
        [PROGRAM, "serve", "--addr", address, "--create-collections", file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a server, and refuses the first of each path with the given answers."""

    server_url: str
    refusals: tuple[int, ...] = ()
    asked: Counter[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked[path] += 1
        if self.asked[path] <= len(self.refusals):
            self.answer(self.refusals[self.asked[path] - 1], b"busy")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(self.server_url + self.path, body, headers, method=self.command)
            with urllib.request.urlopen(request) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())
            return
        mine = f"http://{self.headers['Host']}"
        self.answer(200, text.replace(self.server_url.encode(), mine.encode()))

    do_POST = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy(server: str) -> Iterator[tuple[str, type[Proxy]]]:
    handler = type("OneProxy", (Proxy,), {"server_url": server, "asked": Counter()})
    front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{front.server_port}", handler
    front.shutdown()
    front.server_close()


def test_every_page_of_a_server_is_read(proxy: tuple[str, type[Proxy]], tmp_path: Path, many: list[Any]) -> None:
    url, handler = proxy
    scenes = find_scenes(config(stac_api=url))
    assert len(scenes) == MANY
    assert handler.asked["/search"] >= 3
    plain = find_scenes(config(items=collection_file(tmp_path, many)))
    assert [scene.version_key() for scene in scenes] == [scene.version_key() for scene in plain]


@pytest.mark.parametrize("refusals", [(503,), (429, 503)])
def test_a_server_that_is_busy_at_first_is_asked_again(
    proxy: tuple[str, type[Proxy]], refusals: tuple[int, ...]
) -> None:
    url, handler = proxy
    handler.refusals = refusals
    assert len(find_scenes(config("2018-06-03/2018-06-03", stac_api=url))) == 10
    assert handler.asked["/search"] > len(refusals)


def test_a_server_that_stays_busy_is_one_line(proxy: tuple[str, type[Proxy]]) -> None:
    url, handler = proxy
    handler.refusals = (503,) * 10
    with pytest.raises(CatalogError, match=r"stac_api http://127\.0\.0\.1:\d+: answers with HTTP 503$"):
        find_scenes(config(stac_api=url))


def test_without_query_extension_clouds_are_filtered_here(
    proxy: tuple[str, type[Proxy]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        scenes = find_scenes(config(stac_api=proxy[0], max_cloud_cover=9))
    assert len(scenes) == 30
    assert "has no query extension" in caplog.text


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"type": "FeatureCollection"}, "its features are no list of items"),
        ({"type": "FeatureCollection", "features": None}, "its features are no list of items"),
        ({"type": "FeatureCollection", "features": ["item"]}, "its features are no list of items"),
        ({"type": "Feature", "id": "a", "properties": "none"}, "item a: its properties are a str, expected an object"),
        ({"type": "Feature", "id": "a", "assets": [1]}, "item a: its assets are a list, expected an object"),
    ],
)
def test_a_malformed_document_is_one_line(tmp_path: Path, document: dict[str, Any], said: str) -> None:
    (tmp_path / "items.json").write_text(json.dumps(document))
    content = {
        "name": "a",
        "area": {"bbox": [0, 0, 1, 1]},
        "period": {"start": "2023-06-01", "end": "2023-06-30"},
        "source": {"items": "items.json"},
        "store": {"url": "a.zarr"},
    }
    with pytest.raises(CatalogError, match=re.escape(said)):
        find_scenes(RunConfig.model_validate(content, context={"folder": tmp_path}))


def test_a_signature_that_came_with_an_item_is_not_kept() -> None:
    href = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/B04.tif?st=2023&sig=SECRET"
    assert resolve(href, "/items.json", False, "item a") == href.partition("?")[0]
