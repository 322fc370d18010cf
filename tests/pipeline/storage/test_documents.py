"""A small file that is not what it should be ends in one line that says what, where, and what to do."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_files import OTHERS

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.documents import parse_document, read_document, read_table
from difffusr.pipeline.storage.objects import Storage


@dataclass(frozen=True)
class Kept:
    name: str
    count: int
    share: float = 1.0
    zones: Mapping[int, int] = field(default_factory=dict)
    chips: tuple[str, ...] = ()


@pytest.fixture
def place(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def refused(place: Storage, name: str, read) -> str:
    with pytest.raises(StoreError) as caught:
        read()
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{place.url}/{name}: ")
    assert said.endswith("; make it again") or "cannot be read" in said
    assert len(said) < 600
    return said


def test_a_document_comes_back_as_what_it_is(place):
    place.write("a.json", b'{"name": "x", "count": 3, "zones": {"32632": 1}, "chips": ["a"], "of a later version": 1}')
    assert read_document(place, "a.json", Kept, "make it again") == Kept("x", 3, 1.0, {32632: 1}, ("a",))


@pytest.mark.parametrize("data", OTHERS, ids=lambda data: repr(data[:12]))
def test_another_file_in_its_place_is_refused(place, data):
    place.write("a.json", data)
    assert "cannot be understood" in refused(
        place, "a.json", lambda: read_document(place, "a.json", Kept, "make it again")
    )


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ('{"count": 1}', "name: "),
        ('{"name": null, "count": 1}', "name: "),
        ('{"name": "x", "count": "many"}', "count: "),
        ('{"name": "x", "count": 1.5}', "count: "),
        ('{"name": "x", "count": 1, "zones": [1]}', "zones: "),
        ('{"name": "x", "count": 1, "zones": {"north": 1}}', "zones.north"),
        ('{"name": "x", "count": 1, "chips": [1, 2, 3]}', "and 2 more"),
        ('{"name": "x", "count": 1, "share": NaN}', "NaN is no number"),
        ('{"name": "x", "count": 1, "share": 1e999}', "1e999 is too large"),
        ('{"name": "x", "count": -Infinity}', "-Infinity is no number"),
        ('[{"name": "x", "count": 1}]', ""),
    ],
)
def test_the_line_says_which_value_is_wrong(place, data, where):
    place.write("a.json", data.encode())
    assert where in refused(place, "a.json", lambda: read_document(place, "a.json", Kept, "make it again"))


def test_a_document_that_is_gone_is_said(place):
    refused(place, "a.json", lambda: read_document(place, "a.json", Kept, "make it again"))


def test_a_login_in_a_value_is_not_shown():
    with pytest.raises(StoreError) as caught:
        parse_document(b'{"name": 1, "count": "s3://me:secret@host/x"}', Kept, "there", "make it again")
    assert "secret" not in str(caught.value)


def table(**columns: list) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_columns_come_in_the_order_asked_for(place):
    place.write("a.parquet", table(b=[1], a=["x"], c=[None]))
    assert read_table(place, "a.parquet", ["a", "b"], "make it again").column_names == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [*OTHERS, table(a=[1]), table(a=["x"], b=[1])[:-30], table(a=["x"], b=[1])[8:], table(A=["x"], B=[1])],
    ids=lambda data: repr(data[:12]),
)
def test_another_table_in_its_place_is_refused(place, data):
    place.write("a.parquet", data)
    refused(place, "a.parquet", lambda: read_table(place, "a.parquet", ["a", "b"], "make it again"))
