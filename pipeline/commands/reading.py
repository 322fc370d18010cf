"""The commands that read values from a cube: `sample` under points, `mosaic` of an area."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from difffusr.pipeline.commands.common import Verbose, check_folder
from difffusr.pipeline.commands.cube import CubePath, place_of_cube
from difffusr.pipeline.commands.exporting import chosen_area
from difffusr.pipeline.commands.terminal import console, say, set_up_logging
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.urls import first_line

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from difffusr.pipeline.readers import OpenCube

OfPeriods = Annotated[
    list[str] | None, typer.Option("--period", help="A period such as 2024-07; repeat for more. By default all.")
]
OfBands = Annotated[
    list[str] | None, typer.Option("--band", help="A band such as B04; repeat for more. By default all.")
]
Missing = Annotated[
    str,
    typer.Option(
        metavar="raise|nan",
        help="What to do where nobody has written the cube: fail, or write no data.",
    ),
]

#: Files of points that pandas reads; others are read as vector files.
_TABLES = (".parquet", ".csv")

#: Most pixels of a picture.
_PICTURE_PX = 64_000_000


def sample(
    cube: CubePath,
    points: Annotated[
        Path,
        typer.Argument(
            metavar="POINTS",
            help="Parquet or CSV with columns lon and lat, GeoParquet, GeoJSON, GeoPackage, …",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Parquet or CSV file; by default POINTS-sampled.parquet, here."),
    ] = None,
    band: OfBands = None,
    period: OfPeriods = None,
    missing: Missing = "raise",
    verbose: Verbose = False,
) -> None:
    """Write the pixels under some points: a row for each point and period, with the points' own columns.

    Each point is read from the pixel of 2.5 m that holds it, in the UTM zone that it lies in; where that has no data,
    from a neighbour that shows the ground. Reflectance by band, quality, scene and zone.
    """
    set_up_logging(verbose)
    out = output or Path(f"{points.stem}-sampled.parquet")
    if out.suffix.lower() not in _TABLES:
        raise ConfigError(f"--output: found {out}, expected a file that ends with .parquet or .csv")
    check_folder(out, "--output")
    opened, table = _opened(cube), _points_of(points)
    with console.status("reading …"):
        found = opened.sample(table, band or None, period or None, missing=_known(missing))
    rows = _rows(opened, table, found)
    _write_table(rows, out)
    there = int((found["quality"] > 0).sum())
    say(f"{out}  {len(rows):,} rows, {there:,} with data, from {_plural(len(opened.zones), 'zone')}")


def mosaic(
    cube: CubePath,
    output: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="GeoTIFF, or PNG or JPEG of three bands.", show_default=False),
    ],
    area: Annotated[str | None, typer.Option(metavar="FILE", help="Polygons (GeoJSON, GeoPackage, …).")] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="A box in degrees instead of --area.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="EPSG:3035, WKT, …; by default the UTM zone of the area's middle.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Side of a pixel in the CRS's units; by default about 2.5 m.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="A period such as 2024-07. May be left out where there is one alone.")
    ] = None,
    band: OfBands = None,
    variable: Annotated[str, typer.Option(help="reflectance, quality, source, …")] = "reflectance",
    missing: Missing = "raise",
    verbose: Verbose = False,
) -> None:
    """Write an area over all zones as one file in one CRS, zones blended where they meet.

    GeoTIFF has reflectance as float32, labels as they are. A picture is of B04, B03, B02, or three --band. For an area
    of many files there is [bold]export --crs[/], for a whole cube [bold]continent[/].
    """
    set_up_logging(verbose)
    kind = output.suffix.lower()
    if kind not in (".tif", ".tiff", ".png", ".jpg", ".jpeg"):
        raise ConfigError(f"found {output}, expected a file that ends with .tif, .png or .jpg")
    where = chosen_area(area, bbox)
    if where is None:
        raise ConfigError("--bbox or --area: say which area")
    check_folder(output, "FILE")
    is_picture = not kind.startswith(".tif")
    if is_picture and variable == "reflectance" and not band:
        band = ["B04", "B03", "B02"]
    opened = _opened(cube)
    image = opened.mosaic(
        area=where, crs=crs, resolution=resolution, period=period, bands=band or None, variable=variable,
        missing=_known(missing),
    )  # fmt: skip
    if is_picture:
        _write_picture(image, output)
    else:
        _write_tiff(image, output)
    say(f"{output}  {image.sizes['x']:,} × {image.sizes['y']:,} px, {_crs_name(image)}")


def _opened(cube: str) -> OpenCube:
    from difffusr.pipeline.cube import Cube
    from difffusr.pipeline.readers import OpenCube

    return OpenCube(Cube(place_of_cube(cube)))


def _known(missing: str) -> Any:
    if missing not in ("raise", "nan"):
        raise ConfigError(f"--missing: found {missing}, expected raise or nan")
    return missing


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _points_of(path: Path) -> pd.DataFrame:
    """The points of a file, with its other columns."""
    import pandas as pd

    kind = path.suffix.lower()
    if not path.exists():
        raise ConfigError(f"{path}: is not there; expected a file of points")
    try:
        if kind == ".csv":
            return pd.read_csv(path)
        if kind == ".parquet":
            import pyarrow.parquet

            if b"geo" in (pyarrow.parquet.read_schema(path).metadata or {}):
                import geopandas

                return geopandas.read_parquet(path)
            return pd.read_parquet(path)
        import geopandas

        return geopandas.read_file(path)
    except Exception as error:  # of whatever library the format needs
        raise ConfigError(f"{path}: cannot be read as points ({first_line(error)})") from None


def _rows(cube: OpenCube, points: pd.DataFrame, found: xr.Dataset) -> pd.DataFrame:
    """A row for each point and period: the points' columns, then what was found."""
    import numpy as np
    import pandas as pd

    times, count = found.sizes["time"], found.sizes["point"]
    flat = {name: found[name].transpose("point", "time").to_numpy().ravel() for name in ("zone", "quality", "source")}
    names = {int(value): word for value, word in zip(
        found["quality"].attrs["flag_values"], found["quality"].attrs["flag_meanings"].split(), strict=True
    )}  # fmt: skip
    scenes = {number: str(facts.get("id", number)) for number, facts in cube.scenes().items()}
    columns: dict[str, Any] = {
        "period": np.tile(found["period"].to_numpy(), count),
        "zone": flat["zone"],
        "quality": [names.get(int(value), str(value)) for value in flat["quality"]],
        "scene": [scenes.get(int(value)) for value in flat["source"]],
    }
    if "looks" in found:
        columns["looks"] = found["looks"].transpose("point", "time").to_numpy().ravel()
    for name, suffix in (("reflectance", ""), ("reflectance_std", "_std")):
        if name in found:
            values = found[name].transpose("band", "point", "time").to_numpy().reshape(found.sizes["band"], -1)
            columns |= {f"{band}{suffix}": part for band, part in zip(found["band"].to_numpy(), values, strict=True)}
    repeated = points.iloc[np.repeat(np.arange(count), times)].reset_index(drop=True)
    clash = {name: f"{name}_of_point" for name in repeated.columns if name in columns}
    return pd.concat([repeated.rename(columns=clash), pd.DataFrame(columns)], axis=1)


def _write_table(rows: pd.DataFrame, out: Path) -> None:
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.suffix.lower() == ".csv":
            rows.drop(columns="geometry", errors="ignore").to_csv(partial, index=False)
        else:
            rows.to_parquet(partial, index=False)
        partial.replace(out)
    except OSError as error:
        raise StoreError(f"--output: {out} cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _write_picture(image: xr.DataArray, out: Path) -> None:
    from difffusr.pipeline.readers import picture

    if image.sizes["x"] * image.sizes["y"] > _PICTURE_PX:
        raise ConfigError(
            f"{out}: {image.sizes['x']:,} × {image.sizes['y']:,} pixels are too many for a picture; give a coarser "
            "--resolution, or write a GeoTIFF"
        )
    with console.status("reading …"):
        drawn = picture(image)
    partial = out.with_name(f".{out.name}.partial{out.suffix}")
    try:
        (drawn if out.suffix.lower() == ".png" else drawn.convert("RGB")).save(partial)
        partial.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _write_tiff(image: xr.DataArray, out: Path) -> None:
    """Write a mosaic piece by piece, so that memory holds one."""
    import numpy as np
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window
    from rich.progress import Progress

    bands = [str(name) for name in image["band"].to_numpy()] if "band" in image.dims else [str(image.name)]
    pixel = image.attrs["resolution"]
    left, top = float(image.x[0]) - pixel / 2, float(image.y[0]) + pixel / 2
    floating, (height, width) = image.dtype.kind == "f", image.shape[-2:]
    profile = {
        "driver": "GTiff", "dtype": image.dtype, "count": len(bands), "height": height, "width": width,
        "crs": image.spatial_ref.attrs["crs_wkt"], "transform": rasterio.Affine(pixel, 0, left, 0, -pixel, top),
        "nodata": np.nan if floating else 0, "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        "predictor": 3 if floating else 2, "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS",
    }  # fmt: skip
    side = image.encoding["preferred_chunks"]["y"]
    corners = [(row, col) for row in range(0, height, side) for col in range(0, width, side)]
    partial = out.with_name(f".{out.name}.partial")
    try:
        with rasterio.open(partial, "w", **profile) as file, Progress(console=console, transient=True) as progress:
            file.descriptions = bands
            file.update_tags(PERIOD=str(image["period"].to_numpy()), SOURCE=str(image.attrs.get("long_name", "")))
            for row, col in progress.track(corners, description="reading"):
                part = image[..., row : row + side, col : col + side].to_numpy()
                there = Window(col, row, part.shape[-1], part.shape[-2])
                file.write(part.reshape(len(bands), *part.shape[-2:]), window=there)
        partial.replace(out)
    except (OSError, RasterioError) as error:
        raise StoreError(f"{out}: cannot be written ({first_line(error)})") from None
    finally:
        partial.unlink(missing_ok=True)


def _crs_name(image: xr.DataArray) -> str:
    from pyproj import CRS

    crs = CRS.from_wkt(image.spatial_ref.attrs["crs_wkt"])
    authority = crs.to_authority(min_confidence=100)
    return crs.name if authority is None else ":".join(authority)
