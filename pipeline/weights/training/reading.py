"""Reads the images of a training from files; rasterio is imported only when one is opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.training.imagery import HRImage, image_of
from difffusr.pipeline.weights.training.layouts import ImageFile, find_images

if TYPE_CHECKING:
    from rasterio import DatasetReader
    from rasterio.windows import Window

    from difffusr.pipeline.weights.training.settings import ImageSource


@dataclass(frozen=True)
class ImageOnDisk:
    """A file as a `patches.Image`."""

    file: ImageFile

    @property
    def gsd_m(self) -> float:
        return self.file.gsd_m

    @property
    def resample(self) -> str:
        return self.file.resample

    @cached_property
    def size(self) -> tuple[int, int]:
        return size_of(self.file)

    def read(self) -> HRImage:
        return read_image(self.file)


def find_all(sources: Sequence[ImageSource], root: Path) -> tuple[list[ImageFile], list[ImageFile]]:
    """The images of all sources: (for training, held out). Every file's header is read.

    Raises ConfigError or ReadError, which name the key and the file that cannot be used.
    """
    training: list[ImageFile] = []
    held_out: list[ImageFile] = []
    for i, source in enumerate(sources):
        some, others = find_images(source, root, f"data[{i}]")
        training += some
        held_out += others
    for file in (*training, *held_out):
        size_of(file)
    if not training:
        raise ConfigError("data: every image is held out, none is left to learn from")
    return training, held_out


def on_disk(sources: Sequence[ImageSource], root: Path) -> tuple[list[ImageOnDisk], list[ImageOnDisk]]:
    """As `find_all`, as images that can be read."""
    training, held_out = find_all(sources, root)
    return [ImageOnDisk(file) for file in training], [ImageOnDisk(file) for file in held_out]


def size_of(file: ImageFile) -> tuple[int, int]:
    """(H, W) in pixels of the part that is read, from the header; checks that the file has the bands it should."""
    with _opened(file) as dataset:
        bands = dataset.count
        window = _window_of(dataset, file)
    if bands < max(file.rgb):
        raise ConfigError(f"{file.key}.rgb: {file.path} has {bands} band(s), expected at least {max(file.rgb)}")
    return window.height, window.width


def _window_of(dataset: DatasetReader, file: ImageFile) -> Window:
    from rasterio.windows import Window

    first, last = (round(share * dataset.height) for share in file.rows)
    return Window(0, first, dataset.width, last - first)


def read_image(file: ImageFile) -> HRImage:
    """The pixels of an image. Raises ReadError, which names the file."""
    raw = read_bands(file)
    return image_of(
        raw,
        file.path.name,
        file.gsd_m,
        file.full_scale,
        display=file.display,
        nodata_at_ends=file.nodata_at_ends,
        resample=file.resample,
    )


def read_bands(file: ImageFile, *, whole: bool = False) -> NDArray[Any]:
    """What the file holds of red, green, blue: (3, H, W), of its rows alone unless `whole`."""
    with _opened(file) as dataset:
        raw: NDArray[Any] = dataset.read(file.rgb, window=None if whole else _window_of(dataset, file))
    return raw


@contextmanager
def _opened(file: ImageFile) -> Iterator[DatasetReader]:
    """The file, open; pictures need no georeference."""
    import rasterio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(file.path) as dataset:
                yield dataset
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ReadError(f"{file.key}: {file.path}: cannot be read ({reason})") from None
