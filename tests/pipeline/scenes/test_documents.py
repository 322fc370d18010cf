"""Catalogues of any kind and size, busy or plain, give the same items, or one line about what is wrong."""

from __future__ import annotations

import copy
import http.server
import json
import logging
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_http import BadServer, Fault, bad_server
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet
from stac_items import ARCHIVE, ITEMS, PC, collection_file, config, every_item, item, needs_items
from stac_server import free_port, stac_server

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes import requests
from difffusr.pipeline.scenes.documents import items_of
from difffusr.pipeline.scenes.question import Search
from difffusr.pipeline.scenes.search import find_scenes, search_scenes

pytestmark = needs_items


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.02)


# ---- catalogues ------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A copy of the archive's JSON, to be damaged."""
    shutil.copytree(ARCHIVE, tmp_path / "archive", ignore=shutil.ignore_patterns("*.tif"))
    return tmp_path / "archive"


def test_a_broken_link_is_named_with_both_ends(archive: Path) -> None:
    whole = find_scenes(config(static_catalog=str(archive)))
    next(archive.glob("items/S2B_48QUE*/*.json")).unlink()
    found = search_scenes(config(static_catalog=str(archive)))
    assert [scene.id for scene in whole if "S2B_48QUE" not in scene.id] == [scene.id for scene in found.scenes]
    assert found.left_out.to_json()[0]["reason"] == "whose document cannot be read"
    with pytest.raises(CatalogError) as caught:
        find_scenes(config(static_catalog=str(archive), max_left_out=0))
    assert "S2B_48QUE_20200223_0_L2A.json (linked from" in str(caught.value)
    assert "collection.json): cannot be read: No such file" in str(caught.value)


def test_a_catalogue_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{")
    with pytest.raises(CatalogError, match="is not JSON"):
        find_scenes(config(static_catalog=str(tmp_path)))
    (tmp_path / "catalog.json").write_text("[]")
    with pytest.raises(CatalogError, match="is not a STAC document"):
        find_scenes(config(items=str(tmp_path / "catalog.json")))
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "links": []}')
    with pytest.raises(CatalogError, match="found a Catalog, expected a STAC item collection"):
        find_scenes(config(items=str(tmp_path / "catalog.json")))
    with pytest.raises(CatalogError, match="0 items seen"):
        find_scenes(config(static_catalog=str(tmp_path)))
    with pytest.raises(CatalogError, match=r"missing\.json: cannot be read"):
        find_scenes(config(static_catalog=str(tmp_path / "missing.json")))


def test_a_catalogue_that_links_in_a_circle_ends(archive: Path) -> None:
    file = archive / "collection.json"
    collection = json.loads(file.read_text())
    collection["links"].append({"rel": "child", "href": "./catalog.json"})
    file.write_text(json.dumps(collection))
    assert len(find_scenes(config(static_catalog=str(archive)))) == 5


@pytest.fixture
def served(archive: Path) -> Iterator[BadServer]:
    """The copy behind HTTP."""
    with bad_server(archive) as server:
        yield server


def test_a_static_catalogue_behind_http(served: BadServer) -> None:
    documents = [str(path.relative_to(served.folder)) for path in served.folder.rglob("*.json")]
    for path in documents:  # a server that is busy for a moment
        served.misbehave(f"/{path}", Fault("status", 503, times=1))
    scenes = find_scenes(config(days="2020-01-01/2020-12-31", static_catalog=f"{served.url}/catalog.json"))
    assert len(scenes) == 4
    assert scenes[0].assets["B02"].href == f"{served.url}/items/{scenes[0].id}/B02.tif"
    assert served.times_asked("*.json", 503) == len(documents)


def test_a_link_that_stays_broken_is_named(served: BadServer) -> None:
    next(served.folder.glob("items/S2B_48QUE*/*.json")).unlink()
    with pytest.raises(CatalogError, match=r"48QUE.*\(linked from .*collection\.json\): cannot be read: HTTP 404"):
        find_scenes(config(static_catalog=f"{served.url}/catalog.json", max_left_out=0))


# ---- files of items --------------------------------------------------------------------------------------------------


def test_a_file_of_items() -> None:
    file = ITEMS / "planetarycomputer_itemcollection_site2-2020_jun_jul-35MNM_N0212.geojson"
    scenes = find_scenes(config(items=str(file)))
    assert len(scenes) == 13
    assert scenes == sorted(scenes, key=lambda scene: scene.datetime)
    assert {scene.tile for scene in scenes} == {"35MNM"}
    clear = find_scenes(config(items=str(file), max_cloud_cover=1))
    assert all(scene.cloud_cover <= 1 for scene in clear)
    assert 0 < len(clear) < 13
    assert len(find_scenes(config(days="2020-06-01/2020-06-11", items=str(file)))) == 3


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"type": "FeatureCollection"}, "its features are not a list of items"),
        ({"type": "FeatureCollection", "features": None}, "its features are not a list of items"),
        ({"type": "FeatureCollection", "features": ["item"]}, "its features are not a list of items"),
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


# ---- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stac_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A STAC API with the items of Planetary Computer and Earth Search, and more of one month than a page holds."""
    features = [one for one in every_item() if one.get("collection") == "sentinel-2-l2a"]
    for k in range(150):
        features.append(copy.deepcopy(item(PC)))
        features[-1]["id"] += f"_{k}"
        features[-1]["properties"]["datetime"] = f"2018-06-01T21:{k // 60:02d}:{k % 60:02d}Z"
        features[-1]["properties"]["s2:product_uri"] = None
        features[-1]["properties"]["eo:cloud_cover"] = k % 100
    with stac_server(collection_file(tmp_path_factory.mktemp("api"), features), "--create-collections") as url:
        yield url


def test_a_stac_api_is_searched(stac_api: str) -> None:
    scenes = find_scenes(config({"bbox": [26.5, -16, 28.5, -7]}, "2020-06-01/2020-07-31", stac_api=stac_api))
    assert len(scenes) == 9 + 13 - 1
    assert all(scene.provider == "planetary-computer" for scene in scenes)
    one_day = config({"bbox": [26.5, -16, 28.5, -12]}, "2020-06-06/2020-06-06", stac_api=stac_api)
    assert {scene.tile for scene in find_scenes(one_day)} == {"35LNG", "35LNF", "35LNE", "35LND"}


def test_a_stac_api_without_query_extension_is_filtered_here(stac_api: str) -> None:
    tiles = {"tiles": ["35MNM", "35LNK"]}
    scenes = find_scenes(config(tiles, "2020-06-01/2020-07-31", stac_api=stac_api, max_cloud_cover=1))
    assert {scene.tile for scene in scenes} == {"35MNM", "35LNK"}
    assert all(scene.cloud_cover <= 1 for scene in scenes)


def test_all_pages_are_read(stac_api: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        find_scenes(config(days="2018-06-01/2018-06-30", stac_api=stac_api))
    assert "of 150 items" in caplog.text


def test_a_stac_api_that_has_nothing_says_so(stac_api: str) -> None:
    with pytest.raises(CatalogError, match=r"no scene found: stac_api http://127.*0 items seen$"):
        find_scenes(config({"bbox": [0, 0, 1, 1]}, stac_api=stac_api))
    with pytest.raises(CatalogError):
        find_scenes(config(stac_api=stac_api, collection="unknown"))


def test_a_stac_api_across_180_degrees_is_asked_on_both_sides(stac_api: str) -> None:
    scenes = find_scenes(config({"bbox": [170, 50, -140, 70]}, "2019-01-01/2019-12-31", stac_api=stac_api))
    assert {scene.tile for scene in scenes} == {"60VUK", "06VVN"}


def test_an_unreachable_stac_api_is_one_line() -> None:
    address = f"http://user:SECRET@127.0.0.1:{free_port()}"
    with pytest.raises(CatalogError, match=r"stac_api http://127\.0\.0\.1:\d+: cannot be reached") as caught:
        find_scenes(config(stac_api=address))
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_what_is_no_stac_api_is_told_apart(served: BadServer) -> None:
    (served.folder / "index.html").write_text("<html>a page for people</html>")
    for name in ("catalog.json", "collection.json", "index.html", "nothing", ""):
        address = f"{served.url}/{name}".rstrip("/")
        with pytest.raises(CatalogError, match=r"stac_api http://127.*source\.static_catalog") as caught:
            find_scenes(config(stac_api=address))
        assert "\n" not in str(caught.value)


# ---- a server that is busy -------------------------------------------------------------------------------------------


MANY = 250


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
    with stac_server(collection_file(tmp_path_factory.mktemp("server"), many), "--create-collections") as url:
        yield url


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
    assert len(find_scenes(config(days="2018-06-03/2018-06-03", stac_api=url))) == 10
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


# ---- documents on disk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-8"])
@pytest.mark.parametrize("kind", ["items", "static_catalog"])
def test_a_document_may_be_coded_as_json_can_be(tmp_path: Path, coding: str, kind: str) -> None:
    near = item("earthsearch_v1_sentinel-2-l2a_S2A_12RWT")
    catalogue = {"type": "Catalog", "id": "c", "links": [{"rel": "item", "href": "läuft #2/item ?.json"}]}
    (tmp_path / "läuft #2").mkdir()
    for name, document in (("läuft #2/item ?.json", near), ("catalog.json", catalogue)):
        (tmp_path / name).write_bytes(json.dumps(document, ensure_ascii=False).encode(coding))
    first = "catalog.json" if kind == "static_catalog" else "läuft #2/item ?.json"
    found = Search.of(config(days="2000-01-01/2030-12-31", **{kind: str(tmp_path / first)}))
    assert [(one["id"], base) for one, base in items_of(found)] == [
        (near["id"], str(tmp_path / "läuft #2/item ?.json"))
    ]
