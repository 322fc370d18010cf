"""Small files in a store, JSON and Parquet: read in one way, and with one error for whatever may be wrong with them.

Whoever reads one says what it has to hold and what to do where it does not: a file that was cut, emptied or changed by
hand ends in one line, never in whatever error its reader happens to run into later.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.storage.objects import Storage

if TYPE_CHECKING:  # whoever reads nothing need not load them
    import pyarrow as pa
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

#: The most bytes that a JSON document of a store may have. The largest is the root of a cube, whose metadata grow with
#: its zones and periods: tens of megabytes where they are many.
LARGEST_JSON = 1 << 30


def read_document(storage: Storage, name: str, kind: type[T], todo: str) -> T:
    """A JSON document of a folder.

    Args:
        kind: what it has to hold: anything that pydantic can check, such as a dataclass or `list[str]`. Fields that a
            dataclass does not know are ignored: of a later version.
        todo: what to do where it does not, to stand at the end of the error.

    Raises:
        StoreError: there is none, it cannot be read, or it holds something else.
    """
    return parse_document(storage.read(name), kind, f"{storage.url}/{name}", todo)


def parse_document(data: bytes, kind: type[T], where: str, todo: str) -> T:
    """As `read_document`, for its bytes; `where` names it in the error."""
    try:
        if len(data) > LARGEST_JSON:
            raise ValueError(f"it has {len(data):,} bytes, at most {LARGEST_JSON:,} are read")
        document = json.loads(data, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"not JSON: {one_line(error)}" if data.strip() else "it is empty", todo) from None
    return as_kind(document, kind, where, todo)


def as_kind(document: object, kind: type[T], where: str, todo: str) -> T:
    """A JSON value as what it has to be. Raises StoreError where it is something else."""
    from pydantic import ValidationError

    any_kind: Any = kind  # classes can be hashed, which mypy does not know of type variables
    try:
        found: T = _checker(any_kind).validate_python(document)
        return found
    except (ValidationError, RecursionError) as error:
        raise _damaged(where, _first_fault(error), todo) from None


def read_table(storage: Storage, name: str, columns: Sequence[str], todo: str) -> pa.Table:
    """The columns of a Parquet file of a folder, in this order.

    Raises:
        StoreError: there is none, it cannot be read, or it lacks a column.
    """
    return parse_table(storage.read(name), columns, f"{storage.url}/{name}", todo)


def parse_table(data: bytes, columns: Sequence[str] | None, where: str, todo: str) -> pa.Table:
    """As `read_table`, for its bytes; None reads every column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        lacking = [name for name in columns or () if name not in file.schema_arrow.names]
        if lacking:
            raise ValueError(f"it has no column {', '.join(lacking)}")
        return file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(where, one_line(error) if data else "it is empty", todo) from None


@lru_cache(maxsize=64)
def _checker(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _damaged(where: str, why: str, todo: str) -> StoreError:
    return StoreError(f"{where}: cannot be understood ({why}); {todo}")


def _first_fault(error: ValidationError | RecursionError) -> str:
    """Where the first fault lies and what it is."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    first, count = error.errors(include_url=False)[0], error.error_count()
    place = ".".join(str(part) for part in first["loc"])
    more = f", and {count - 1} more" if count > 1 else ""
    return one_line(f"{f'{place}: ' if place else ''}{first['msg']}{more}")


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value
