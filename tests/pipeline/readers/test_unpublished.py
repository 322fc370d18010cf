"""What is asked of a period or a cube that is not there, or is damaged, ends in one line before anything is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from configs import written
from damaged_files import OTHERS
from small_cubes import published

from difffusr.pipeline.assemble.ledger import Entry, write_entry
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.publish.door import rollback
from difffusr.pipeline.readers.verify import _read, verify_run
from difffusr.pipeline.storage.objects import Storage


@pytest.fixture
def cube(tmp_path) -> Storage:
    storage = Storage(str(tmp_path / "cube.zarr"))
    for number in (1, 3):
        published(storage, Storage(str(tmp_path / "cube.staging")), number, number)
    return storage


@pytest.mark.parametrize("period", ["2023-02", "2023", "2022-01", "2023-01-02_2023-01-31", "2024-03"])
def test_a_period_that_is_not_published_cannot_be_verified(cube, tmp_path, period):
    config = load_config(written(tmp_path, store={"url": cube.url}), {"period": period})
    with pytest.raises(ConfigError, match=rf"has no {period}; it has 2023-01, 2023-03: name one of them") as caught:
        verify_run(config)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("data", OTHERS, ids=lambda data: repr(data[:12]))
def test_a_root_that_is_damaged_is_one_line_and_rolling_back_writes_it_anew(cube, tmp_path, data):
    root = Path(cube.url, "zarr.json")
    before = json.loads(root.read_bytes())
    root.write_bytes(data)
    with pytest.raises(StoreError) as caught:
        Cube(cube)
    assert "\n" not in str(caught.value)
    assert cube.url in str(caught.value)
    rollback(cube, Storage(str(tmp_path / "cube.staging")), 2)
    after = json.loads(root.read_bytes())
    assert after["attributes"].pop("difffusr:publication") == before["attributes"].pop("difffusr:publication") + 1
    assert after == before


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("zarr.json", lambda root: root["attributes"].update({"difffusr:zones": [1]})),
        ("zarr.json", lambda root: root["attributes"].update({"difffusr:zones": "32648"})),
        ("zarr.json", lambda root: root["attributes"].update({"difffusr:scenes": {"a": {}}})),
        ("zarr.json", lambda root: root["consolidated_metadata"]["metadata"].pop("32648/0")),
        ("zarr.json", lambda root: root["consolidated_metadata"].update(metadata=[1])),
        ("zarr.json", lambda root: root["consolidated_metadata"]["metadata"].update({"32648/0/quality": [1]})),
        ("zarr.json", lambda root: root["consolidated_metadata"]["metadata"]["32648/0/quality"].update(codecs=[])),
        ("zarr.json", lambda root: root["consolidated_metadata"]["metadata"]["32648/0/quality"].update(shape=[1])),
        ("zarr.json", lambda root: root["consolidated_metadata"]["metadata"]["32648/0/source"].update(data_type=7)),
    ],
)
def test_metadata_that_are_not_a_cubes_are_one_line(cube, path, change):
    file = Path(cube.url, path)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(StoreError) as caught:
        Cube(cube)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(cube.url)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"objects": 7}', b'{"objects": {"a": 1}}', b'{"missing": []}'])
def test_an_entry_whose_content_is_lost_is_not_known_to_be_right(tmp_path, data, caplog):
    staging, entry = Storage(str(tmp_path)), Entry("32648/-2_5", "0123456789abcdef0123", "r0")
    write_entry(staging, entry, {"objects": {"a": "b"}, "missing": ["c"]})
    found = _read(staging, entry)
    assert found is not None
    assert (dict(found.objects), list(found.missing)) == ({"a": "b"}, ["c"])
    staging.write(entry.object_name, data)
    assert _read(staging, entry) is None
    assert "writes the shard again" in caplog.text
