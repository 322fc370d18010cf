"""Areas from GeoPackage, Shapefile, FlatGeobuf, GeoParquet and other vector files."""

from __future__ import annotations

import difflib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from difffusr.pipeline.config import AreaSection
from difffusr.pipeline.geo.drawn import Drawn, horizontal
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import one_line, shown_url


def read_vector_file(area: AreaSection) -> Drawn:
    """The geometries of `area.file`: of `area.layer`, of features that match `area.where`. Raises ConfigError."""
    file = str(area.file)
    place = f"area.file: {shown_url(file)}"
    if not Path(file).exists():
        raise ConfigError(f"{place}: cannot be read: no such file here")
    frame = _read_geoparquet(file, area, place) if file.endswith(".parquet") else _read_with_ogr(file, area, place)
    if frame.empty:
        nothing = "it holds nothing" if area.where is None else f"nothing matches area.where {area.where!r}"
        raise ConfigError(f"{place}: {nothing}, expected a Polygon or MultiPolygon")
    geometries = [geometry for geometry in frame.geometry if geometry is not None]
    # GeoPackage's two codes for an unknown CRS become CRS with such names.
    if frame.crs is None or frame.crs.name.startswith("Undefined"):
        raise ConfigError(
            f"{place}: has no CRS; set the one that its coordinates are in, in QGIS or with ogr2ogr -a_srs"
        )
    return Drawn(geometries, horizontal(frame.crs, place), place)


def _read_with_ogr(file: str, area: AreaSection, place: str, attributes: bool = False) -> gpd.GeoDataFrame:
    """The features of a file that GDAL reads (GeoPackage, Shapefile, zipped or not, FlatGeobuf, GeoJSON, …).

    Args:
        attributes: with all their attributes.
    """
    with _named_plainly(Path(file)) as plain:
        try:
            kinds = dict(gpd.list_layers(plain).itertuples(index=False))
        except (RuntimeError, OSError) as error:  # pyogrio's errors are RuntimeErrors
            raise ConfigError(f"{place}: not a vector file that GDAL reads: {one_line(error, None)}") from None
        return _select(plain, _layer(kinds, area, place), area.where, place, attributes)


#: Attributes that boundaries files name countries by, the best first.
_NAMING = (
    "iso_a3", "adm0_a3", "iso_a3_eh", "shapeiso", "shapegroup", "gid_0", "iso_a2", "cntr_id", "cntr_code", "nuts_id",
    "admin", "name", "name_long", "name_en", "cntr_name", "shapename",
)  # fmt: skip


def condition_for(area: AreaSection, wanted: str) -> str:
    """The condition, for `area.where`, of the features of `area.file` that some attribute names so, in capital or small
    letters.

    Raises:
        ConfigError: the file cannot be read, or no text attribute has this value.
    """
    file = str(area.file)
    place = f"area.file: {shown_url(file)}"
    if not Path(file).exists():
        raise ConfigError(f"{place}: cannot be read: no such file here")
    frame = (
        _read_geoparquet(file, area, place) if file.endswith(".parquet") else _read_with_ogr(file, area, place, True)
    )
    texts = {
        str(name): {value for value in frame[name] if isinstance(value, str)}
        for name in frame.columns
        if name != frame.geometry.name and '"' not in str(name)  # formats differ in how it would have to be written
    }
    found = {
        name: value
        for name, values in texts.items()
        for value in sorted(values)
        if value.casefold() == wanted.casefold()
    }
    if not found:
        near = difflib.get_close_matches(wanted, set().union(*texts.values()), n=1)
        raise ConfigError(f"{place}: nothing is called {wanted!r}{f', did you mean {near[0]!r}?' if near else ''}")
    best = min(found, key=lambda name: _NAMING.index(name.lower()) if name.lower() in _NAMING else len(_NAMING))
    value = found[best].replace("'", "''")
    return f"\"{best}\" = '{value}'"


@contextmanager
def _named_plainly(file: Path) -> Iterator[str]:
    """A path of a file by which pyogrio finds it and its companions: it takes what stands before a ! for an archive."""
    if "!" not in str(file):
        yield str(file)
        return
    with tempfile.TemporaryDirectory(prefix="area-") as folder:
        for one in file.parent.iterdir():
            if one.name.startswith(file.name.partition(".")[0]):
                Path(folder, one.name.replace("!", "_")).symlink_to(one)
        yield str(Path(folder, file.name.replace("!", "_")))


def _layer(kinds: dict[str, str | None], area: AreaSection, place: str) -> str:
    """The layer to read: the one asked for, else the only one, else the only one that may have polygons."""
    names = ", ".join(repr(name) for name in kinds) or "none"
    if area.layer is not None:
        if area.layer not in kinds:
            raise ConfigError(f"{place}: no layer {area.layer!r} (area.layer), found {names}")
        return area.layer
    # A layer without a type of its own may hold polygons.
    words = ("Polygon", "Surface", "Unknown", "GeometryCollection")
    choice = [name for name, kind in kinds.items() if any(word in (kind or "") for word in words)]
    if len(kinds) == 1 or len(choice) == 1:
        return next(iter(choice or kinds))
    if not choice:
        raise ConfigError(f"{place}: found the layers {names}, expected one with polygons")
    several = ", ".join(repr(name) for name in choice)
    raise ConfigError(f"{place}: found polygons in several layers, expected one of them as area.layer: {several}")


def _select(
    source: str | io.BytesIO, layer: str | None, where: str | None, place: str, attributes: bool = False
) -> gpd.GeoDataFrame:
    """The features of a layer that match a condition in OGR SQL."""
    # Without attributes it is faster, but a condition needs them.
    columns: dict[str, Any] = {"where": where} if where is not None else {} if attributes else {"columns": []}
    try:
        return gpd.read_file(source, layer=layer, engine="pyogrio", **columns)
    except (RuntimeError, ValueError) as error:
        if where is not None:
            raise ConfigError(
                f"{place}: area.where {where!r} is not understood, expected a condition on its attributes such as "
                f"\"ISO_A3 = 'LUX'\": {one_line(error, None)}"
            ) from None
        raise ConfigError(f"{place}: cannot be read: {one_line(error, None)}") from None


def _read_geoparquet(file: str, area: AreaSection, place: str) -> gpd.GeoDataFrame:
    """The features of a GeoParquet file; GDAL in wheels does not read it."""
    if area.layer is not None:
        raise ConfigError(f"{place}: no layer {area.layer!r} (area.layer), GeoParquet has none")
    try:
        frame = gpd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{place}: not a GeoParquet file: {one_line(error, None)}") from None
    if area.where is None:
        return frame
    # The condition is OGR SQL, so OGR applies it: to a copy in memory with the columns that its formats can hold.
    words = ("string", "integer", "floating", "boolean", "datetime64", "date", "mixed-integer-float")
    plain = [name for name in frame.columns if pd.api.types.infer_dtype(frame[name], skipna=True) in words]
    copy = io.BytesIO()
    frame[[*plain, frame.geometry.name]].to_file(copy, driver="FlatGeobuf", engine="pyogrio", SPATIAL_INDEX="NO")
    return _select(copy, None, area.where, place)
