"""The data that weights are evaluated on: pairs of fine and coarse images, and 12-band scenes."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import rasterio
import torch
from torch import Tensor

from difffusr.kernels.bands import MTF_NYQUIST, RGB, SCALE, TARGET_GSD_M
from difffusr.kernels.images import GAMMA_RGB, bicubic_downsample, blur, isotropic_kernels, power_law
from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.training import (
    SUFFIXES,
    HRImage,
    ImageFile,
    NativeScene,
    read_image,
    read_native,
    resample,
    sensor_axis,
)

Degradation = Literal["sensor", "gaussian"]

#: LR pixels cut off each side of a degraded window, where the degradation has no neighbours.
_MARGIN: Final = 2


@dataclass(frozen=True)
class ImageOptions:
    """How the images of a folder are read if they do not state it themselves.

    Attributes:
        gsd_m: metres a pixel; None takes an ``index.csv`` in the image's folder, or the georeference of a GeoTIFF.
        rgb: which bands are red, green, blue, counted from 1.
        full_scale: the value that means a reflectance of 1; None is 255 for 8 bits and 10 000 otherwise.
        held_out: only images whose name matches one of these globs; all if empty.
    """

    gsd_m: float | None = None
    rgb: tuple[int, int, int] = (1, 2, 3)
    full_scale: float | None = None
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One window: `hr` (3, 4h, 4w) and `lr` (3, h, w), float32 reflectance, R, G, B; `place` is its image's name."""

    name: str
    place: str
    hr: Tensor = field(repr=False)
    lr: Tensor = field(repr=False)


def find_images(folder: Path, options: ImageOptions) -> list[ImageFile]:
    """All images below a folder, or the one given, in the order of their paths.

    Raises ConfigError if there are none, or if the GSD of one is not known.
    """
    if not folder.exists():
        raise ConfigError(f"{folder}: no such folder or image")
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if options.held_out:
        paths = [p for p in paths if any(p.match(pattern) for pattern in options.held_out)]
    if not paths:
        raise ConfigError(f"{folder}: no image to evaluate on; expected GeoTIFF, PNG or JPEG files below it")
    stated = {index.parent: _stated_gsds(index) for index in {p.parent / "index.csv" for p in paths} if index.exists()}
    return [_described(path, options, stated.get(path.parent, {})) for path in paths]


def _described(path: Path, options: ImageOptions, stated: dict[str, float]) -> ImageFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                bands, eight_bits = dataset.count, dataset.dtypes[0] == "uint8"
                metric = dataset.crs is not None and dataset.crs.is_projected
                own = float(dataset.res[0]) * dataset.crs.linear_units_factor[1] if metric else None
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ReadError(f"{path}: cannot be read ({reason})") from None
    if bands < max(options.rgb):
        raise ConfigError(f"{path}: has {bands} band(s), red, green, blue are said to be {options.rgb}; see --rgb")
    gsd = stated.get(path.name, own) if options.gsd_m is None else options.gsd_m
    if gsd is None:
        raise ConfigError(f"{path}: how many metres a pixel? State it with --gsd, or in an index.csv (file, gsd_m)")
    scale = options.full_scale or (255.0 if eight_bits else 10_000.0)
    return ImageFile(path, path.stem, gsd, options.rgb, scale, eight_bits, eight_bits, "target", "data")


def _stated_gsds(index: Path) -> dict[str, float]:
    """GSD by file name; of a range ("2.0-2.5 …") the middle."""
    with index.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, float] = {}
    for row in rows:
        numbers = re.match(r"\s*(\d+\.?\d*)(?:\s*-\s*(\d+\.?\d*))?", row.get("gsd_m") or "")
        if row.get("file") and numbers:
            ends = [float(number) for number in numbers.groups() if number]
            found[row["file"]] = sum(ends) / len(ends)
    return found


def image_pairs(
    files: Iterable[ImageFile], size_px: int = 256, per_image: int = 4, degradation: Degradation = "sensor"
) -> list[Pair]:
    """Fixed windows of images at 2.5 m, darkened to Sentinel-2's radiometry where they were made for the eye.

    `size_px`: side of a window in fine pixels, a multiple of 4. Windows lie on a regular grid, without gaps in the
    data, at most `per_image` each, spread over the image. An image smaller than a window gives what it holds, if that
    is at least 64 pixels. "sensor": Sentinel-2's MTF by band and noise of 0.001 reflectance; "gaussian": a round
    Gaussian of 1.2 pixels and bicubic reduction, as the published validation has it.
    """
    pairs: list[Pair] = []
    for file in files:
        image = resample(read_image(file), TARGET_GSD_M)
        windows = list(_windows(image, size_px))
        if not windows:
            continue
        spread = np.unique(np.linspace(0, len(windows) - 1, per_image).round().astype(int))
        for row, col, size in (windows[i] for i in spread):
            pairs.append(_pair(image, f"{file.place}@{row},{col}", file.place, row, col, size, degradation))
    if not pairs:
        raise ConfigError("data: no image holds a window of 64 × 64 pixels at 2.5 m without gaps")
    return pairs


def _windows(image: HRImage, size_px: int) -> Iterator[tuple[int, int, int]]:
    """(row, column, side) of windows with the margin that the degradation needs around them."""
    margin = SCALE * _MARGIN
    side = min(size_px, (min(image.valid.shape) - 2 * margin) // 8 * 8)
    if side < 64:
        return
    rows, cols = ((n - 2 * margin) // side for n in image.valid.shape)
    for row in range(rows):
        for col in range(cols):
            r, c = row * side, col * side
            if image.valid[r : r + side + 2 * margin, c : c + side + 2 * margin].all():
                yield r, c, side


def _pair(image: HRImage, name: str, place: str, row: int, col: int, size: int, degradation: Degradation) -> Pair:
    margin = SCALE * _MARGIN
    outer = size + 2 * margin
    hr = torch.from_numpy(image.pixels[:, row : row + outer, col : col + outer].copy())
    if image.display:
        hr = power_law(hr, GAMMA_RGB)
    if degradation == "sensor":
        m = torch.stack([sensor_axis(outer // SCALE, MTF_NYQUIST[band]) for band in RGB])
        generator = torch.Generator().manual_seed(row * 65536 + col)
        lr = m @ hr @ m.mT
        lr = lr + 0.001 * torch.randn(lr.shape, generator=generator)
    else:
        lr = bicubic_downsample(blur(hr[None], isotropic_kernels(torch.tensor([1.2]))), SCALE)[0]
    inner, fine = slice(_MARGIN, -_MARGIN), slice(margin, -margin)
    return Pair(name, place, hr[:, fine, fine].contiguous(), lr[:, inner, inner].contiguous())


def find_scenes(folders: Sequence[Path], held_out: Sequence[str] = ()) -> list[NativeScene]:
    """12-band scenes on native grids below some folders: one GeoTIFF a band (B01.tif …), or DSen2's stacks.

    `held_out`: globs of folder names; only those, if given. Scenes with gaps are left out. Values are taken
    as they come, offset and all. Raises ConfigError where nothing is left.
    """
    scenes: list[NativeScene] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        for path in sorted({p.parent for name in ("B12.tif", "im60.tif") for p in folder.rglob(name)}):
            if held_out and not any(path.match(pattern) for pattern in held_out):
                continue
            scene = read_native(path, "data")
            if all(bool((band > 0).all()) for band in scene.bands.values()):
                scenes.append(scene)
    if not scenes:
        raise ConfigError(
            f"{', '.join(map(str, folders))}: no 12-band scene without gaps there; expected folders with B01.tif … "
            "B12.tif on native grids, or im10.tif, im20.tif, im60.tif"
        )
    return scenes
