"""Finds the images of a source on disk: plain folders, and the data sets SEN2NAIP and WorldStrat as they unpack."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Final

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.ground.errors import ConfigError

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import ImageSource

#: Suffixes of images, in lower case.
SUFFIXES: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class ImageFile:
    """One image on disk and how to read it.

    Attributes:
        place: the ground that it shows; images of one place are held out together.
        gsd_m: metres a pixel.
        rgb: bands that are red, green and blue, counted from 1.
        full_scale, display, nodata_at_ends, resample, rows: see `settings.ImageSource`.
        key: the key of the source in the configuration, for messages.
    """

    path: Path
    place: str
    gsd_m: float
    rgb: tuple[int, int, int]
    full_scale: float
    display: bool
    nodata_at_ends: bool
    resample: str
    key: str
    rows: tuple[float, float] = (0.0, 1.0)


def find_images(source: ImageSource, root: Path, key: str = "data") -> tuple[list[ImageFile], list[ImageFile]]:
    """The images of a source in the order of their names: (for training, held out).

    Raises ConfigError, naming `key`, if the folder is missing or holds no images of the layout.
    """
    found = sorted(_LAYOUTS[source.layout](source, root, key), key=lambda file: file.path)
    if not found:
        raise ConfigError(f"{key}.path: {root / source.path}: {_EXPECTED[source.layout]}")
    places = sorted({file.place for file in found})
    held_out = {place for i, place in enumerate(places) if _is_held_out(place, i, source)}
    return [f for f in found if f.place not in held_out], [f for f in found if f.place in held_out]


def _is_held_out(place: str, position: int, source: ImageSource) -> bool:
    every = source.held_out_every
    turn = every is not None and position % every == every - 1
    return turn or any(fnmatch(place, pattern) for pattern in source.held_out)


def _files_below(source: ImageSource, root: Path, key: str) -> Iterator[Path]:
    """Image files directly in a folder, or of a glob."""
    given = root / source.path
    if any(sign in source.path for sign in "*?["):
        paths = [Path(name) for name in glob(str(given), recursive=True)]
    else:
        paths = list(_folder(given, key).iterdir())
    yield from (path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())


def _images(source: ImageSource, root: Path, key: str) -> Iterator[ImageFile]:
    stated = _stated_gsds(root / source.index, key) if source.index else {}
    for path in _files_below(source, root, key):
        gsd = stated.get(path.name, source.gsd_m)
        if gsd is None:
            raise ConfigError(f"{key}.index: {source.index} states no gsd_m for {path.name}; add it, or give gsd_m")
        yield _file(source, path, path.name, gsd, key)


def _stated_gsds(index: Path, key: str) -> dict[str, float]:
    """GSD by file name where an index states a number; estimates given as a range are left to the source."""
    try:
        with index.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{key}.index: {index}: cannot be read: {error.strerror or error}") from None
    if not rows or not {"file", "gsd_m"} <= set(rows[0]):
        raise ConfigError(f"{key}.index: {index}: expected the columns file and gsd_m")
    return {row["file"]: float(row["gsd_m"]) for row in rows if re.fullmatch(r"\d+(\.\d+)?", row["gsd_m"] or "")}


def _sen2naip(source: ImageSource, root: Path, key: str) -> Iterator[ImageFile]:
    """NAIP at 2.5 m: ROI_*/hr.tif of the cross-sensor part, ROI_*/early|late/*.tif of the synthetic one.

    An ROI is a place: its early and its late image show the same fields.
    """
    for roi in _folder(root / source.path, key).rglob("ROI_*"):
        inside = [roi / "hr.tif", *roi.glob("early/*.tif"), *roi.glob("late/*.tif")]
        for path in (path for path in inside if path.is_file()):
            yield _file(source, path, roi.name, source.gsd_m or TARGET_GSD_M, key)


def _worldstrat(source: ImageSource, root: Path, key: str) -> Iterator[ImageFile]:
    """SPOT 6/7 at 1.5 m: <AOI>/<AOI>_ps.tiff (reflectance × 10⁴), else <AOI>_rgb.png (8 bits).

    The nine AOIs around one point are one place: they touch.
    """
    folder = _folder(root / source.path, key)
    for aoi in {path.parent for name in ("*_ps.tiff", "*_rgb.png") for path in folder.rglob(name)}:
        sharp, picture = aoi / f"{aoi.name}_ps.tiff", aoi / f"{aoi.name}_rgb.png"
        place = re.sub(r"^(.+-\d+)-\d+-\d+$", r"\1", aoi.name)
        gsd = source.gsd_m or 1.5
        if sharp.is_file():
            scale = source.full_scale if "full_scale" in source.model_fields_set else 10_000.0
            yield _file(source, sharp, place, gsd, key, scale, display=False)
        elif picture.is_file():
            yield _file(source, picture, place, gsd, key, 255.0, display=True)


def _folder(path: Path, key: str) -> Path:
    if not path.is_dir():
        raise ConfigError(f"{key}.path: {path}: no such folder")
    return path


def _file(
    source: ImageSource,
    path: Path,
    place: str,
    gsd: float,
    key: str,
    scale: float | None = None,
    display: bool | None = None,
) -> ImageFile:
    return ImageFile(
        path,
        place,
        gsd,
        source.rgb,
        source.full_scale if scale is None else scale,
        source.display if display is None else display,
        source.nodata_at_ends,
        source.resample,
        key,
        source.rows,
    )


_LAYOUTS: Final[dict[str, Callable[[ImageSource, Path, str], Iterator[ImageFile]]]] = {
    "images": _images,
    "sen2naip": _sen2naip,
    "worldstrat": _worldstrat,
}

_EXPECTED: Final = {
    "images": f"no images there (files ending in {', '.join(SUFFIXES)})",
    "sen2naip": "no SEN2NAIP there (folders ROI_… with hr.tif, or with early/*.tif and late/*.tif)",
    "worldstrat": "no WorldStrat there (folders <AOI> with <AOI>_ps.tiff or <AOI>_rgb.png)",
}
