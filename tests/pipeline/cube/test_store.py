"""What keeps a cube: the kind of store follows from the URL, and costs nothing where it is not asked for."""

from __future__ import annotations

import pkgutil
from urllib.parse import quote

import pytest
from fresh_python import loaded_by, run_python
from odd_names import ODD_NAMES
from small_cubes import EPSG, GROUP, published

import difffusr.pipeline.cube
import difffusr.pipeline.publish
from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.cube.icechunk import IcechunkStore
from difffusr.pipeline.cube.store import PlainStore, store_of
from difffusr.pipeline.storage.objects import Storage

ROOMS = (difffusr.pipeline.cube, difffusr.pipeline.publish)
MODULES = [f"{room.__name__}.{found.name}" for room in ROOMS for found in pkgutil.iter_modules(room.__path__)]
KINDS = {"plain": ("", PlainStore), "icechunk": ("icechunk+", IcechunkStore)}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path) -> Storage:
    """Where a cube of one month is."""
    prefix, kind = KINDS[request.param]
    storage = Storage(f"{prefix}{tmp_path}/cube")
    assert isinstance(store_of(storage), kind)
    published(storage, Storage(str(tmp_path / "staging")), 1, 11)
    return storage


def test_every_store_tells_the_same_of_a_cube(place):
    store = store_of(place)
    group = store.group(GROUP)
    assert group["attributes"]["difffusr:periods"] == '[["2023-01-01", "2023-01-31"]]'
    assert store.group("32601/0") is None
    read = store.objects()
    assert read("nowhere/zarr.json") is None
    assert read(f"{EPSG}/0/quality/c/0/0/0") is not None
    assert metadata(place, "zarr.json")["attributes"]["difffusr:zones"] == [EPSG]


def test_a_plain_store_is_listed_and_a_repository_of_many_snapshots_is_not(place):
    size = store_of(place).stored_bytes()
    assert (size is None) == isinstance(store_of(place), IcechunkStore)
    assert size is None or size > 10_000


@pytest.mark.parametrize("name", ODD_NAMES[:5])
@pytest.mark.parametrize("prefix", ["", "icechunk+", "icechunk+file://"])
def test_a_cube_may_lie_in_a_folder_of_any_name(tmp_path, prefix, name):
    folder = f"{tmp_path}/{name}"
    storage = Storage(prefix + (quote(folder) if "file" in prefix else folder) + "/cube")
    published(storage, Storage(f"{folder}/staging"), 1, 11)
    assert "2023-01-31" in str(store_of(storage).group(GROUP)["attributes"]["difffusr:periods"])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["cube", "staging"]


def test_where_nothing_was_published_there_is_nothing(tmp_path):
    for prefix, _ in KINDS.values():
        store = store_of(Storage(f"{prefix}{tmp_path}/none"))
        assert (store.group(GROUP), store.objects()("zarr.json"), dict(store.consolidated())) == (None, None, {})


def test_reading_and_publishing_load_neither_networks_nor_ray_nor_tables():
    assert loaded_by(f"import {', '.join(MODULES)}", ("torch", "ray", "geopandas", "rasterio", "pystac")) == []


def test_icechunk_is_loaded_by_its_urls_alone(tmp_path):
    plain = [name for name in MODULES if not name.endswith((".icechunk", ".snapshots"))]
    code = (
        f"import {', '.join(plain)}\nfrom difffusr.pipeline.storage.objects import Storage\n"
        f"difffusr.pipeline.cube.store.store_of(Storage('{tmp_path}/cube')).objects()('zarr.json')"
    )
    assert loaded_by(code, ("icechunk",)) == []


def test_without_icechunk_plain_stores_work_and_its_urls_name_the_extra(tmp_path):
    code = (
        "import sys; sys.modules['icechunk'] = None\n"
        "from difffusr.pipeline.cube.documents import metadata\n"
        "from difffusr.pipeline.ground.errors import ConfigError\n"
        "from difffusr.pipeline.publish.door import finish_publishing, publisher_of\n"
        "from difffusr.pipeline.storage.objects import Storage\n"
        f"print(metadata(Storage('{tmp_path}'), 'zarr.json'))\n"
        "for use in (publisher_of, lambda place: metadata(place, 'zarr.json')):\n"
        "    try:\n        use(Storage('icechunk+s3://bucket/cube'))\n"
        "    except ConfigError as error:\n        print(error)\n"
    )
    line = "icechunk+s3://bucket/cube: needs the package icechunk: pip install 'difffusr[icechunk]'"
    assert run_python(code).splitlines() == ["None", line, line]
