"""Files damaged at random: cut, emptied, of another kind, with other values, nested otherwise."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: What stands in the place of a JSON value. Python writes the numbers that JSON lacks as NaN and Infinity.
ODD: list[Any] = [
    None, True, False, 0, -1, 3, 0.5, 1e308, 10**30, -(10**30), float("nan"), float("inf"), "", "x", "0", "1e999",
    "2024-13-45", "\x00", "a\nb", "[bold]x", "../../etc", "é" * 300, [], [[]], [None], [1, "a"], {}, {"x": {}},
    {"id": 1}, {"0": None}, [{"chips": []}],
]  # fmt: skip

#: What stands in the place of a whole file.
OTHERS = [
    b"", b" ", b"null", b"[]", b"{}", b'"text"', b"17", b"NaN", b"{", b"[" * 100_000, b'{"a":' * 50_000,
    b"\xff\xfe\x00", b"\x00" * 64, b"<html>404</html>", b"PAR1", b"PAR1\x00\x00\x00\x00PAR1", b'{"a": 1} {"a": 2}',
    '{"é": 1}'.encode("utf-16"),
]  # fmt: skip


def damaged(draw: random.Random, name: str, data: bytes) -> tuple[str, bytes | None]:
    """A file's bytes with something wrong, None where it is gone; and what is."""
    roll = draw.random()
    if roll < 0.05:
        return "gone", None
    if roll < 0.15:
        return "another", draw.choice(OTHERS)
    if roll < 0.25:
        return "cut", data[: draw.randrange(len(data))] if data else b""
    if roll < 0.3 and data:
        torn = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            torn[draw.randrange(len(torn))] = draw.randrange(256)
        return "torn", bytes(torn)
    return _table(draw, data) if name.endswith(".parquet") else _document(draw, data)


def _document(draw: random.Random, data: bytes) -> tuple[str, bytes]:
    """A JSON document with one to three values replaced, dropped, wrapped or moved."""
    document = json.loads(data)
    told = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(places_in(document))
        if not places:
            return "odd", json.dumps(draw.choice(ODD)).encode()
        document = copy.deepcopy(document)
        told.append(_changed(draw, document, draw.choice(places)))
    return ", ".join(told), json.dumps(document).encode()


def _changed(draw: random.Random, document: Any, path: tuple[Any, ...]) -> str:
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    last, value = path[-1], parent[path[-1]]
    how = draw.choice(("put", "put", "put", "drop", "wrap", "nest", "add"))
    if how == "put":
        parent[last] = copy.deepcopy(draw.choice(ODD))
    elif how == "drop":
        del parent[last]
    elif how == "wrap":
        parent[last] = draw.choice(([value], {"value": value}, str(value), [value, value]))
    elif how == "nest":
        for _ in range(60):
            value = [value]
        parent[last] = value
    elif isinstance(parent, dict):
        parent[draw.choice(("unknown", "32699", "0"))] = copy.deepcopy(draw.choice(ODD))
    else:
        parent.append(copy.deepcopy(draw.choice(ODD)))
    return f"{how} {'/'.join(map(str, path))[:120]}"


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places_in(inner, (*path, key))


def _table(draw: random.Random, data: bytes) -> tuple[str, bytes]:
    """A Parquet table with a column dropped, retyped, renamed or emptied, with other rows or other metadata."""
    table = pq.read_table(io.BytesIO(data))
    number = draw.randrange(table.num_columns)
    name, rows = table.column_names[number], len(table)
    how = draw.choice(("drop", "retype", "rename", "nulls", "no rows", "twice", "odd", "other", "metadata"))
    kinds = [pa.array(["x"] * rows), pa.array([-1.5] * rows), pa.array([[None]] * rows), pa.array([b"\x00"] * rows)]
    kinds += [pa.array([2**62] * rows), pa.array([float("nan")] * rows), pa.array([["none"]] * rows)]
    if how == "drop":
        table = table.drop_columns([name])
    elif how == "retype":
        table = table.set_column(number, name, draw.choice(kinds))
    elif how == "rename":
        table = table.rename_columns([other if other != name else "renamed" for other in table.column_names])
    elif how == "nulls":
        table = table.set_column(number, name, pa.nulls(rows, table.schema.field(name).type))
    elif how == "no rows":
        table = table.slice(0, 0)
    elif how == "twice":
        table = pa.concat_tables([table, table])
    elif how == "odd":
        values = table[name].to_pylist()
        values[draw.randrange(rows)] = draw.choice([None, *values])
        table = table.set_column(number, name, pa.array(values, table.schema.field(name).type))
    elif how == "metadata":
        table = table.replace_schema_metadata(draw.choice((None, {"geo": "{}"}, {"geo": "null"}, {"geo": "[1]"})))
    else:
        table = pa.table({"a": [1, 2]})
    out = io.BytesIO()
    pq.write_table(table, out)
    return f"{how} {name}", out.getvalue()


#: What stands in the place of a line's value in a configuration.
ODD_YAML = (
    "", "null", "~", "true", "-1", "0", "1e999", ".inf", ".nan", "-.inf", "10000000000000000000000", "0x1F", "1_000",
    "'x'", '"\\0"', "[]", "{}", "[1, 2]", "{a: b}", "!!python/object:os.system ls", "*a", "&a [*a]", "2023-02-30",
    "http://[::1/v1", "file:///etc/passwd", "s3://", "icechunk+", "../..", "C:\\x", "%", "|", ">", "é" * 300,
    "- a", ": :",
)  # fmt: skip


def damaged_text(draw: random.Random, text: str) -> tuple[str, str]:
    """A configuration's text with one or two lines changed, and what was done."""
    lines = text.splitlines()
    told = []
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(lines))
        key, separator, _ = lines[at].partition(":")
        how = draw.choice(("value", "value", "value", "value", "drop", "twice", "indent", "key", "torn"))
        if how == "value":
            lines[at] = f"{key}{separator or ':'} {draw.choice(ODD_YAML)}"
        elif how == "drop":
            lines[at] = ""
        elif how == "twice":
            lines.insert(at, lines[at])
        elif how == "indent":
            lines[at] = f"{' ' * draw.choice((1, 3, 8))}{lines[at]}"
        elif how == "key":
            lines[at] = lines[at].replace(key.strip(), draw.choice(("unknown", "<<", "?", "\t", "'")), 1)
        else:
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)] + draw.choice(
                ("\t", "\x00", "\udcff", "{", '"', "%")
            )
        told.append(f"{how} {lines[at].strip()[:60]!r}")
    return ", ".join(told), "\n".join(lines) + "\n"
