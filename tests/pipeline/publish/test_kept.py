"""A published cube's documents and coordinates are known by its history: damage is found, and put back as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from earlier_history import make_earlier
from plain_cubes import opened, revised
from small_cubes import EPSG, drafted, month, published, seen

from difffusr.pipeline.cube.documents import texts_of
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import documents_of, keep_documents
from difffusr.pipeline.publish.door import rollback
from difffusr.pipeline.publish.kept import AsPublished, Scope, damaged_documents, damaged_history, mend_documents
from difffusr.pipeline.publish.publications import history
from difffusr.pipeline.storage.objects import Storage

COORDINATES = ("x", "y", "time", "time_bnds", "band", "wavelength", "spatial_ref")


def torn(data: bytes, at: float) -> bytes:
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


#: What becomes of an object; None where it is gone.
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a bit at the end": lambda data: torn(data, 0.999),
    "a bit in the middle": lambda data: torn(data, 0.5),
    "zeros": lambda data: b"\0" * len(data),
    "another": lambda _: b'{"zarr_format": 3, "node_type": "group", "attributes": {}}',
}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Storage, Storage]:
    """A cube of three months, one of which was written again."""
    folder = tmp_path_factory.mktemp("kept")
    places = Storage(str(folder / "cube.zarr")), Storage(str(folder / "staging"))
    for number in (1, 2, 3):
        published(*places, number, number)
    revised(*places, 2, 4)
    return places


def contents(storage: Storage) -> dict[str, bytes]:
    """Documents and coordinates by path."""
    files = (path for path in Path(storage.url).rglob("*") if path.is_file())
    found = {str(path.relative_to(storage.url)): path.read_bytes() for path in files}
    return {
        path: data
        for path, data in found.items()
        if path.endswith("zarr.json") or path.startswith("scenes/") or path.split("/")[2] in COORDINATES
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_document_and_coordinate_is_found_damaged_and_put_back(places, damage):
    storage, staging = places
    before = contents(storage)
    # Chunks under the keys of an earlier revision are not what readers read.
    read = {path: before[path] for path in expected(storage, staging)}
    assert {path.split("/")[2] for path in read if path.count("/") > 2} >= {*COORDINATES, "quality"} - {"spatial_ref"}
    assert len(read) > 35
    assert sum(path.startswith("scenes/") and path.endswith("/c") for path in read) == 3
    assert damaged_documents(storage, staging, exactly=True) == {}
    for path, data in read.items():
        file, new = Path(storage.url, path), DAMAGES[damage](data)
        file.unlink() if new is None else file.write_bytes(new)
    assert damaged_documents(storage, staging) == read
    assert mend_documents(storage, staging, None) == sorted(read)
    assert contents(storage) == before


def expected(storage: Storage, staging: Storage) -> set[str]:
    """What readers read, found by taking everything away."""

    class Empty(Storage):
        def read(self, name: str) -> bytes:
            raise StoreError(name)

        def exists(self, name: str) -> bool:
            return False

    return set(damaged_documents(Empty(storage.url), staging))


def test_a_cube_whose_documents_are_all_gone_is_whole_again(places, tmp_path):
    storage, staging = Storage(str(tmp_path / "cube.zarr")), places[1]
    shutil.copytree(places[0].url, storage.url)
    before = seen(opened(storage))
    for path in contents(storage):
        Path(storage.url, path).unlink()
    mend_documents(storage, staging, None)
    assert seen(opened(storage)) == before
    # Nor does a draft take it for a new cube while it is damaged.
    Path(storage.url, "zarr.json").unlink()
    right = AsPublished(storage.url, storage.options, right=damaged_documents(storage, staging))
    assert len(drafted(right, 5).zones[EPSG].periods) == 4


def test_coordinates_of_another_version_of_the_codec_are_right(places, tmp_path):
    """Their values count; the next run writes them as it would now."""
    storage, staging = Storage(str(tmp_path / "cube.zarr")), places[1]
    shutil.copytree(places[0].url, storage.url)
    path = f"{EPSG}/0/x/c/0"
    data = Path(storage.url, path).read_bytes()
    import numcodecs

    other = numcodecs.Zstd(level=19).encode(numcodecs.Zstd().decode(data))
    assert other != data
    Path(storage.url, path).write_bytes(other)
    assert damaged_documents(storage, staging) == {}
    assert mend_documents(storage, staging, None) == [path]
    assert Path(storage.url, path).read_bytes() == data


@pytest.mark.parametrize("kind", ["icechunk", "plain"])
def test_a_cube_with_a_history_does_not_begin_anew(tmp_path, kind):
    url = f"icechunk+{tmp_path}/cube" if kind == "icechunk" else f"{tmp_path}/cube"
    storage, staging = Storage(url), Storage(str(tmp_path / "staging"))
    published(storage, staging, 1, 5)
    if kind == "plain":  # as in histories of earlier versions
        record = staging.read("history/000001.json")
        staging.write("history/000001.json", json.dumps({**json.loads(record), "parts": {}}).encode())
    shutil.rmtree(tmp_path / "cube")
    with pytest.raises(
        StoreError, match=r"there is no cube, but publication 1 of .*/history; check store\.url"
    ) as caught:
        mend_documents(storage, staging, None)
    assert "\n" not in str(caught.value)


def test_where_nothing_was_published_nothing_is_damaged(tmp_path):
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    assert damaged_documents(storage, staging) == {}
    assert mend_documents(storage, staging, None) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_an_earlier_version_has_written_is_put_back_as_it_was(tmp_path, damage):
    """Its documents are texts in the record itself, its time a chunk a step, its scenes in the root."""
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    for number in (1, 2):
        published(storage, staging, number, number)
    make_earlier(storage, staging)
    before = contents(storage)
    assert damaged_documents(storage, staging, exactly=True) == {}
    for path in ("zarr.json", f"{EPSG}/0/zarr.json", f"{EPSG}/0/time/c/1", f"{EPSG}/1/y/c/0"):
        file, new = Path(storage.url, path), DAMAGES[damage](before[path])
        file.unlink() if new is None else file.write_bytes(new)
    assert len(mend_documents(storage, staging, None)) == 4
    assert contents(storage) == before


def test_time_keeps_the_steps_of_later_states_while_it_is_whole(places, tmp_path):
    """Readers may have them open still; where it is damaged, what readers see from now on counts."""
    shutil.copytree(Path(places[0].url).parent, tmp_path, dirs_exist_ok=True)
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    rollback(storage, staging, to=1)
    path = f"{EPSG}/0/time/c/0"
    longer = storage.read(path)
    assert damaged_documents(storage, staging, exactly=True) == {}
    assert mend_documents(storage, staging, None) == []
    assert storage.read(path) == longer
    storage.write(path, longer[: len(longer) // 2])
    assert damaged_documents(storage, staging).keys() == {path}
    assert mend_documents(storage, staging, None) == [path]
    assert seen(opened(storage)) == {"2023-01": {1}}
    assert storage.read(path) != longer


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_the_history_keeps_is_put_back_from_the_cube(places, tmp_path, damage):
    shutil.copytree(Path(places[0].url).parent, tmp_path, dirs_exist_ok=True)
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    latest = history(staging)[0]
    digests = {*latest.parts.values(), *(path.split("/")[1] for path in contents(storage) if path.endswith("/c"))}
    assert len(digests) >= 6
    whole = {f"documents/{digest}.json.gz": staging.read(f"documents/{digest}.json.gz") for digest in digests}
    for name, data in whole.items():
        file, new = Path(staging.url, name), DAMAGES[damage](data)
        file.unlink() if new is None else file.write_bytes(new)
    lost = damaged_history(storage, staging)
    assert lost.keys() == whole.keys()
    assert damaged_documents(storage, AsPublished(staging.url, staging.options, right=lost), exactly=True) == {}
    assert mend_documents(storage, staging, None) == sorted(whole)
    assert {name: staging.read(name) for name in whole} == whole


def test_a_page_that_is_damaged_in_both_places_is_said(places, tmp_path):
    shutil.copytree(Path(places[0].url).parent, tmp_path, dirs_exist_ok=True)
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    page = next(path for path in contents(storage) if path.startswith("scenes/") and path.endswith("/c"))
    staging.delete(f"documents/{page.split('/')[1]}.json.gz")
    storage.delete(page)
    assert damaged_history(storage, staging) == {}
    with pytest.raises(StoreError, match=page.split("/")[1]) as caught:
        damaged_documents(storage, staging)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"data_type": "uint8"}, {"shape": [3]}, {"codecs": []}])
def test_a_coordinate_that_an_earlier_version_wrote_otherwise_stays(tmp_path, change):
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    published(storage, staging, 1, 5)
    (record,) = history(staging)
    documents = documents_of(staging, record)
    documents[f"{EPSG}/0/band"] |= change
    staging.write("history/000001.json", replace(record, parts=keep_documents(staging, documents)).to_json())
    for path, data in texts_of(documents).items():
        storage.write(path, data)
    before = contents(storage)
    assert not mend_documents(storage, staging, None)
    assert contents(storage) == before


@pytest.fixture
def copied(places, tmp_path) -> tuple[Storage, Storage]:
    """The cube of three months, to do with as a test likes."""
    shutil.copytree(Path(places[0].url).parent, tmp_path, dirs_exist_ok=True)
    return Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))


def page_of(storage: Storage, number: int) -> str:
    """Path of a month's page of scenes."""
    pages = json.loads(storage.read("zarr.json"))["attributes"]["difffusr:scene_pages"]
    return str(pages["/".join(day.isoformat() for day in month(number))])


def objects_of_a_page(storage: Storage, staging: Storage, number: int) -> dict[str, Path]:
    """All that there is of a month's page, by what names it."""
    page = page_of(storage, number)
    kept = f"documents/{page.split('/')[1]}.json.gz"
    return {
        name: Path(at.url, name)
        for at, name in ((storage, f"{page}/c"), (storage, f"{page}/zarr.json"), (staging, kept))
    }


@pytest.mark.parametrize("which", [0, 1, 2], ids=["page", "its document", "in the history"])
@pytest.mark.parametrize(
    ("damage", "number", "named", "found"),
    [
        ("a bit in the middle", 2, False, True),
        ("empty", 2, False, True),
        ("gone", 1, False, True),
        ("a bit in the middle", 1, False, False),
        ("cut", 3, False, False),
        ("a bit in the middle", 1, True, True),
        ("zeros", 3, True, True),
    ],
)
def test_a_run_looks_at_its_own_period_s_page_and_at_those_that_are_gone_or_named(
    copied, which, damage, number, named, found
):
    before = {name: path.read_bytes() for name, path in objects_of_a_page(*copied, number).items()}
    name = list(before)[which]
    file, new = objects_of_a_page(*copied, number)[name], DAMAGES[damage](before[name])
    file.unlink() if new is None else file.write_bytes(new)
    scope = Scope(month(2), [name, f"{EPSG}/0/x/c/0"] if named else [])
    assert {*damaged_documents(*copied, scope), *damaged_history(*copied, scope)} == ({name} if found else set())
    assert mend_documents(*copied, None, scope) == ([name] if found else [])
    assert (file.exists() and file.read_bytes() == before[name]) == found
    assert mend_documents(*copied, None) == ([] if found else [name])
    assert file.read_bytes() == before[name]
