"""What others wrote is data: catalogues, rasters, weights, settings stay in place and do not run; secrets are kept."""

from __future__ import annotations

import ast
import datetime as dt
import json
import pickle
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import torch
from small_rasters import SQUARE, raster, scene_of

from difffusr import kernels, pipeline
from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.kernels.model import load_model, model_fingerprint
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.errors import WeightsError as KernelWeightsError
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.globe import tile_footprint
from difffusr.pipeline.geo.grid import grid_of
from difffusr.pipeline.ground.errors import CatalogError, ConfigError, ReadError, StoreError, WeightsError
from difffusr.pipeline.plan.files import write_plan
from difffusr.pipeline.plan.networks import read_weights
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes.item import Asset, Scene, scene_from_item, tile_of
from difffusr.pipeline.scenes.providers import resolve
from difffusr.pipeline.scenes.search import find_scenes
from difffusr.pipeline.scenes.windows import read_window
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.weights.training.checkpoint import read_checkpoint

SECRET = "s3cr3tv4lue"
SIGNED = f"?sv=2022&sig={SECRET}"


def one_line(error: BaseException) -> str:
    message = str(error)
    assert message.isprintable(), ascii(message)
    return message


# ---- catalogues name no place of this machine -----------------------------------------------------------------------


def item(name: str = "S2A_48QUE_20210601_0_L2A", place: str = "https://archive.example/t", **properties: Any) -> dict:
    """A STAC item of a product without radiometric offset, its files at a place."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": shapely.geometry.mapping(tile_footprint("48QUE")),
        "properties": {
            "datetime": "2021-06-01T03:30:00Z",
            "grid:code": "MGRS-48QUE",
            "s2:processing_baseline": "03.00",
            "proj:epsg": 32648,
            **properties,
        },
        "assets": {band: {"href": f"{place}/{band}.tif", "type": "image/tiff", "gsd": GSD_M[band]} for band in BANDS},
        "links": [],
    }


def searching(source: dict[str, Any], folder: Path, **sections: Any) -> RunConfig:
    content: dict[str, Any] = {
        "name": "test",
        "area": {"tiles": ["48QUE"]},
        "period": {"start": "2021-06-01", "end": "2021-06-30"},
        "source": source,
        "store": {"url": str(folder / "cube.zarr")},
    }
    return RunConfig.model_validate(content | sections, context={"folder": folder})


def found_in(folder: Path, *items: dict[str, Any]) -> list[Scene]:
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return find_scenes(searching({"items": str(folder / "items.json")}, folder))


def test_the_item_itself_is_a_scene(tmp_path):
    (scene,) = found_in(tmp_path, item())
    assert scene.id == "S2A_48QUE_20210601_0_L2A"


@pytest.mark.parametrize(
    "name",
    [
        "../../outside",
        "/etc/passwd",
        "a/../../b",
        "..\\..\\outside",
        "null\0byte",
        "two\nlines",
        "\x1b[2Jgone",
        "x" * 300,
    ],
    ids=ascii,
)
def test_an_id_that_could_be_a_path_or_more_than_a_word_is_refused(tmp_path, name):
    with pytest.raises(CatalogError) as caught:
        found_in(tmp_path, item(name))
    assert "id" in one_line(caught.value)


@pytest.mark.parametrize(
    "code", ["MGRS-../../48QUE", "../48QUE", "48QUE/../..", "/48QUE", "48QUE\n", "48que", "99QUE/"]
)
def test_a_tile_is_five_letters_and_digits_or_none(code):
    hostile = item("no-tile-in-the-id", **{"grid:code": code})
    try:
        tile = tile_of(hostile)
    except CatalogError as error:
        one_line(error)
    else:
        assert re.fullmatch(r"\d{2}[A-Z]{3}", tile)


@pytest.mark.parametrize("name", ["..", ".", "~", "-rf", "CON", "$HOME", "a b", "%2e%2e%2f"])
def test_whatever_a_scene_is_called_its_chips_are_named_by_numbers_and_hashes(tmp_path, name):
    plan = planned(tmp_path, name)
    for written in plan.chips.object_names():
        assert re.fullmatch(r"[0-9]{5}/-?\d+_-?\d+-[0-9a-f]+(\.\w+)?|[\w.-]+(/[\w.-]+)*", written)
        assert ".." not in written.split("/")
        assert name not in written.split("/")
    for name_of_shard in (shard.name for shard in plan.shards):
        assert re.fullmatch(r"[\w./-]+", name_of_shard)


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "File:///etc/passwd",
        "file:/etc/passwd",
        "file://localhost/etc/passwd",
        "file:///%65tc/passwd",
        "local:///etc/passwd",
        "vrt:///etc/passwd",
        "zip+file:///tmp/a.zip!x.tif",
        "memory://x.tif",
        "simplecache::file:///etc/passwd",
        "GTIFF_DIR:1:/etc/passwd",
        "C:/windows/x.tif",
        "javascript:alert(1)",
    ],
)
def test_a_remote_item_names_no_file_of_this_machine(href):
    remote = item()
    remote["assets"]["B04"]["href"] = href
    with pytest.raises(CatalogError) as caught:
        scene_from_item(remote, "https://archive.example/items/a.json", remote=True)
    assert "B04" in one_line(caught.value)


@pytest.mark.parametrize(
    "href",
    [
        "../../../../etc/passwd",
        "..\\x.tif",
        "%2e%2e/%2e%2e/x.tif",
        "./B04.tif",
        "/etc/passwd",
        "///etc/passwd",
        "/vsizip//tmp/a.zip/x.tif",
        "/vsicurl/http://10.0.0.1/x.tif",
    ],
)
def test_a_relative_href_of_a_remote_item_stays_on_its_server(href):
    assert resolve(href, "https://archive.example/items/a.json", True, "item").startswith("https://archive.example/")


def test_an_item_that_an_operator_keeps_may_name_local_files(tmp_path):
    (scene,) = found_in(tmp_path, item(place="rasters"))
    assert scene.assets["B04"].href == str(tmp_path / "rasters" / "B04.tif")


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder and its address on a server that counts as another machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setattr("difffusr.pipeline.scenes.question.is_remote", lambda href: href.startswith("http"))
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("href", ["file://{outside}", "{outside}", "FILE://{outside}"])
def test_a_remote_catalogue_does_not_lead_into_this_machine(served, tmp_path, href):
    folder, address = served
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(item()))
    link = {"rel": "item", "href": href.format(outside=outside)}
    catalogue = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "", "links": [link]}
    (folder / "catalog.json").write_text(json.dumps(catalogue))
    with pytest.raises(CatalogError) as caught:
        find_scenes(searching({"static_catalog": f"{address}/catalog.json"}, tmp_path))
    assert "link" in one_line(caught.value)


def test_items_of_a_remote_file_name_no_local_rasters(served, tmp_path):
    folder, address = served
    local = item(place="file:///etc")
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [local]}))
    with pytest.raises(CatalogError) as caught:
        find_scenes(searching({"items": f"{address}/items.json"}, tmp_path))
    assert "local file" in one_line(caught.value)


# ---- rasters are pixels ---------------------------------------------------------------------------------------------


def test_a_raster_that_is_one_is_read(tmp_path):
    assert (read_window(scene_of(str(raster(tmp_path / "B04.tif", 7))), "B04", SQUARE) == 7).all()


def test_a_file_that_leads_to_other_files_is_no_raster(tmp_path):
    """GDAL takes a file for what its content says: a .tif may be a virtual raster that names files of this machine."""
    private = raster(tmp_path / "private.tif", 4711)
    (tmp_path / "B04.tif").write_text(
        '<VRTDataset rasterXSize="60" rasterYSize="60"><SRS>EPSG:32648</SRS>'
        "<GeoTransform>600000,10,0,1200000,0,-10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{private}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ReadError) as caught:
        read_window(scene_of(str(tmp_path / "B04.tif")), "B04", SQUARE)
    one_line(caught.value)


# ---- weights and settings are data ----------------------------------------------------------------------------------


class Hostile:
    """A pickle that writes a file when a careless reader loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


def zipped(path: Path, content: Any) -> None:
    torch.save(content, path)


def legacy(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("written", [zipped, legacy, plain])
@pytest.mark.parametrize("name", ["last.ckpt", "weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("stage", ["stage1", "fusion"])
def test_weights_with_code_are_refused_and_nothing_runs(tmp_path, written, name, stage):
    written(tmp_path / name, {"state_dict": {"a": torch.zeros(1), "b": Hostile(tmp_path / "ran")}})
    given = {"stage1": None, "fusion": None, stage: str(tmp_path / name)}
    for load in (model_fingerprint, load_model):
        with pytest.raises(KernelWeightsError) as caught:
            load("small", given["stage1"], given["fusion"], Sampling())
        assert name in one_line(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("written", [zipped, legacy, plain])
def test_a_training_s_checkpoint_with_code_is_refused_and_nothing_runs(tmp_path, written):
    (tmp_path / "checkpoint").mkdir()
    written(tmp_path / "checkpoint" / "state.pt", {"step": 1, "learning": Hostile(tmp_path / "ran")})
    network = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError) as caught:
        read_checkpoint(tmp_path, network, network, torch.optim.SGD(network.parameters()))
    assert "state.pt is damaged, or holds more than tensors" in one_line(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_hostile_pickle_does_write_where_a_careless_reader_loads_it(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


GOOD = """
area: {tiles: [48QUE]}
period: {start: 2021-06-01, end: 2021-06-30}
source: {items: items.json}
store: {url: cube.zarr}
"""


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.write_text [!!python/object/apply:pathlib.Path [{ran}], ran]",
        "!!python/object/apply:os.system ['touch {ran}']",
        "!!python/object/new:os.system ['touch {ran}']",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [a]",
    ],
)
def test_a_tag_of_python_in_the_settings_is_refused_and_nothing_runs(tmp_path, value):
    (tmp_path / "run.yaml").write_text(GOOD + "name: " + value.format(ran=tmp_path / "ran"))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.yaml")
    assert "not valid YAML" in one_line(caught.value)
    assert not (tmp_path / "ran").exists()


def test_aliases_that_multiply_do_not_fill_the_memory(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
    ]
    (tmp_path / "run.yaml").write_text(GOOD + "\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.yaml")
    assert len(one_line(caught.value)) < 10_000


#: What runs text or bytes as code, and what makes each harmless.
_DANGEROUS = {
    "eval": None,
    "exec": None,
    "compile": None,
    "os.system": None,
    "os.popen": None,
    "pickle.load": None,
    "pickle.loads": ("", "pickle.dumps"),
    "torch.load": ("weights_only", True),
    "yaml.load": ("Loader", "UniqueKeyLoader"),
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "np.load": ("allow_pickle", False),
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    return ((ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_harmless(call: ast.Call, wanted: tuple[str, object] | None) -> bool:
    if wanted == ("", "pickle.dumps"):  # a copy of an object that this process made
        return ast.unparse(call.args[0]).startswith("pickle.dumps(")
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    return wanted is not None and given.get(wanted[0]) == str(wanted[1])


@pytest.mark.parametrize(
    "path",
    [path for package in (kernels, pipeline) for path in sorted(Path(package.__path__[0]).rglob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_no_module_runs_what_it_reads(path):
    for name, call in calls(ast.parse(path.read_text())):
        if name in _DANGEROUS:
            assert is_harmless(call, _DANGEROUS[name]), f"line {call.lineno}: {ast.unparse(call)}"
        assert "True" not in [ast.unparse(word.value) for word in call.keywords if word.arg == "shell"]


def test_the_yaml_loader_is_a_safe_one():
    import yaml

    from difffusr.pipeline.config.reading import UniqueKeyLoader

    assert issubclass(UniqueKeyLoader, yaml.SafeLoader)


# ---- secrets --------------------------------------------------------------------------------------------------------


def planned(folder: Path, name: str = "S2A_48QUE", **sections: Any) -> Plan:
    """A plan over one small scene whose bands lie at signed addresses."""
    path = folder / "scl.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=300, count=1, dtype="uint8", crs="EPSG:32648",
        transform=rasterio.Affine(20, 0, 600_000, 0, -20, 1_800_000),
    ) as file:  # fmt: skip
        file.write(np.full((300, 300), 4, np.uint8), 1)
    bands = {
        band: Asset(f"https://account.example/{band}.tif{SIGNED}", GSD_M[band], 0, 0, None, None, "GTiff")
        for band in BANDS
    }
    scl = Asset(str(path), 20, 0, 0, None, None, "GTiff")
    scene = Scene(
        id=name, collection="c", datetime=dt.datetime(2021, 6, 1, tzinfo=dt.UTC), tile="48QUE", epsg=32648,
        baseline="03.00", cloud_cover=0.0, provider="other", footprint=tile_footprint("48QUE"), assets=bands, scl=scl,
        product_uri=None, datatake=None, created=None, updated=None, sequence=None,
    )  # fmt: skip
    west, south = 105.94, 16.24
    config = searching(
        {"items": f"https://account.example/items.json{SIGNED}"},
        folder,
        area={"bbox": [west, south, west + 0.02, south + 0.02]},
        store={"url": str(folder / "cube.zarr"), "storage_options": {"key": "AKIAEXAMPLE", "secret": SECRET}},
        **sections,
    )
    plan = make_plan(config, [scene], "model")
    write_plan(plan, grid_of(config), Storage(config.store.staging, config.store.storage_options))
    return plan


def test_no_secret_is_in_what_a_plan_leaves_on_disk(tmp_path):
    weights = f"https://weights.example/last.ckpt{SIGNED}"
    planned(tmp_path, model={"stage1": weights}, costs={"calibration": f"https://x:{SECRET}@c.example/c.json"})
    written = [path for path in (tmp_path / "cube.staging").rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"manifest.json", "scenes.parquet", "chips.parquet"}
    for path in written:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path.name
        assert b"AKIAEXAMPLE" not in content, path.name


def test_no_secret_is_in_what_a_configuration_or_a_store_shows_of_itself(tmp_path):
    options = {"key": "AKIAEXAMPLE", "secret": SECRET, "client_kwargs": {"aws_session_token": SECRET}}
    config = searching(
        {"items": "i.json"}, tmp_path, store={"url": "s3://bucket/cube.zarr", "storage_options": options}
    )
    storage = Storage(config.store.url, config.store.storage_options)
    for shown in (repr(config), str(config), json.dumps(config.canonical()), repr(storage), repr(storage.child("x"))):
        assert SECRET not in shown
        assert "AKIAEXAMPLE" not in shown


@pytest.mark.parametrize(
    "address", [f"https://{SECRET}@catalogue.example/v1", f"https://a:{SECRET}@catalogue.example/v1"]
)
def test_who_asks_a_catalogue_is_not_in_the_manifest(tmp_path, address):
    assert SECRET not in json.dumps(searching({"stac_api": address}, tmp_path).canonical())


@pytest.mark.parametrize(
    "change",
    [
        ("store: {url: cube.zarr}", f"store: {{url: 's3://key:{SECRET}@bucket/cube.zarr'}}"),
        ("store: {url: cube.zarr}", f"store: {{url: 's3://bucket/cube.zarr{SIGNED}'}}"),
        ("store: {url: cube.zarr}", f"store: {{url: cube.zarr, storage_options: {SECRET}}}"),
        ("store: {url: cube.zarr}", f"store: {{url: cube.zarr, storage_options: [{SECRET}]}}"),
        ("store: {url: cube.zarr}", f"store: {{url: cube.zarr, storage_option: {{secret: {SECRET}}}}}"),
        ("{items: items.json}", f"{{items: 'https://a:{SECRET}@h/i.json', stac_api: 'https://h/{SIGNED}'}}"),
        ("{items: items.json}", f"{{stac_api: 'ftp://a:{SECRET}@h/{SIGNED}'}}"),
    ],
)
def test_no_secret_is_in_an_error_of_the_settings(tmp_path, change):
    assert change[0] in GOOD
    (tmp_path / "run.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.yaml")
    assert SECRET not in one_line(caught.value)


@pytest.mark.parametrize(
    "address",
    [f"http://127.0.0.1:1/last.ckpt{SIGNED}", f"http://user:{SECRET}@127.0.0.1:1/last.ckpt", f"memory://no{SIGNED}"],
)
def test_no_secret_is_in_an_error_of_weights(address):
    with pytest.raises(WeightsError) as caught:
        read_weights(address)
    assert SECRET not in one_line(caught.value)


def test_no_secret_is_in_an_error_of_a_catalogue(served, tmp_path):
    with pytest.raises(CatalogError) as caught:
        find_scenes(searching({"items": f"{served[1]}/gone.json{SIGNED}"}, tmp_path))
    assert "/gone.json" in one_line(caught.value)
    assert SECRET not in str(caught.value)


def test_no_secret_is_in_an_error_of_a_raster(served):
    with pytest.raises(ReadError) as caught:
        read_window(scene_of(f"{served[1]}/gone.tif{SIGNED}"), "B04", SQUARE)
    assert "/gone.tif" in one_line(caught.value)
    assert SECRET not in str(caught.value)


def test_no_secret_is_in_an_error_of_a_store():
    options = {
        "key": "AKIAEXAMPLE",
        "secret": SECRET,
        "endpoint_url": "http://127.0.0.1:1",
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
    }
    with pytest.raises(StoreError) as caught:
        Storage("s3://bucket/cube.zarr", options).write("x", b"")
    assert "s3://bucket/cube.zarr/x" in one_line(caught.value)
    assert SECRET not in str(caught.value)
    assert "AKIAEXAMPLE" not in str(caught.value)
