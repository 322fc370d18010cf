"""Packs the data and settings of both trainings into one small file, for a machine that has torch and little else.

    python -m difffusr.pipeline.weights.training.packing --data DIR --out base.zip

JPEG stays as it is, other pictures of 8 bits become WebP without loss, and all else compressed arrays. Reading a pack
needs neither rasterio nor pydantic.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from difffusr.kernels.networks import Stage1Config
from difffusr.kernels.networks.fusion import FusionConfig
from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.training.imagery import HRImage, image_of
from difffusr.pipeline.weights.training.layouts import ImageFile
from difffusr.pipeline.weights.training.reading import find_all, read_bands
from difffusr.pipeline.weights.training.scenes import NativeScene, load_scenes

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import FusionSettings, SuperResolutionSettings

#: Of this many DN a reflectance of 1 is.
_DN = 10_000

#: The longest side that WebP knows.
_WEBP_PX = 16383

#: Pictures larger than this are meant, not an attack on memory.
Picture.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class PackedImage:
    """A `patches.Image` in a pack: `member` is a picture, or an array (3, H, W); the rest as in `layouts.ImageFile`."""

    pack: Path
    member: str
    name: str
    size: tuple[int, int]
    gsd_m: float
    full_scale: float
    display: bool
    nodata_at_ends: bool
    resample: str
    rows: tuple[float, float]

    def read(self) -> HRImage:
        """Its pixels. Raises ReadError, which names the pack."""
        try:
            with zipfile.ZipFile(self.pack) as pack:
                raw = _decoded(pack.read(self.member), self.member)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ReadError(f"data: {self.pack}: {self.member} cannot be read ({error})") from None
        first, last = (round(share * raw.shape[1]) for share in self.rows)
        return image_of(
            raw[:, first:last],
            self.name,
            self.gsd_m,
            self.full_scale,
            display=self.display,
            nodata_at_ends=self.nodata_at_ends,
            resample=self.resample,
        )


@dataclass(frozen=True)
class Pack:
    """What is in a pack: settings by name of the training, and its data, to learn from and held out."""

    stage1: Any
    fusion: Any
    images: tuple[list[PackedImage], list[PackedImage]] = field(repr=False)
    scenes: tuple[list[NativeScene], list[NativeScene]] = field(repr=False)


def pack(stage1: SuperResolutionSettings, fusion: FusionSettings, path: Path) -> None:
    """Write a pack of what two settings name. Raises ConfigError or ReadError where data cannot be used."""
    training, held_out = find_all(stage1.data, Path(stage1.root))
    scenes = load_scenes(fusion.data, Path(fusion.root))
    index: dict[str, Any] = {name: _plain(of) for name, of in (("stage1", stage1), ("fusion", fusion))}
    partial = path.with_name(f".{path.name}")
    with zipfile.ZipFile(partial, "w") as out:
        members: dict[tuple[Path, tuple[int, int, int]], str] = {}
        index["images"] = [
            _packed(out, file, members) | {"held_out": kept}
            for kept, files in ((False, training), (True, held_out))
            for file in files
        ]
        index["scenes"] = []
        for kept, some in zip((False, True), scenes, strict=True):
            for scene in some:
                member = f"scenes/{len(index['scenes']):03d}.npz"
                dn = {band: _steps((x * _DN).round().numpy().astype(np.uint16)) for band, x in scene.bands.items()}
                out.writestr(member, _bytes_of(np.savez, **dn), zipfile.ZIP_LZMA)
                index["scenes"].append({"member": member, "name": scene.name, "held_out": kept})
        out.writestr("index.json", json.dumps(index, indent=1), zipfile.ZIP_DEFLATED)
    partial.replace(path)


def _plain(settings: SuperResolutionSettings | FusionSettings) -> dict[str, Any]:
    """Settings as JSON knows them, without what is of no use elsewhere."""
    return settings.model_dump(mode="json", exclude={"data", "root", "out", "workers"})


def _packed(
    out: zipfile.ZipFile, file: ImageFile, members: dict[tuple[Path, tuple[int, int, int]], str]
) -> dict[str, Any]:
    """An image's entry of the index; its pixels are written unless they are there already."""
    key = (file.path, file.rgb)
    if key not in members:
        name = f"images/{len(members):03d}"
        if file.rgb == (1, 2, 3) and _is_jpeg(file.path):
            members[key] = f"{name}.jpg"
            out.write(file.path, members[key])
        elif (raw := read_bands(file, whole=True)).dtype == np.uint8 and max(raw.shape) <= _WEBP_PX:
            members[key] = f"{name}.webp"
            buffer = io.BytesIO()
            Picture.fromarray(raw.transpose(1, 2, 0)).save(buffer, "WEBP", lossless=True)
            out.writestr(members[key], buffer.getvalue())
        else:
            members[key] = f"{name}.npy"
            out.writestr(members[key], _bytes_of(np.save, raw), zipfile.ZIP_LZMA)
    h, w = _decoded(out.read(members[key]), members[key]).shape[1:]
    first, last = (round(share * h) for share in file.rows)
    entry = {name: value for name, value in asdict(file).items() if name not in ("path", "place", "rgb", "key")}
    return entry | {"member": members[key], "name": file.path.name, "size": (last - first, w)}


def _is_jpeg(path: Path) -> bool:
    """Whether Pillow reads a JPEG of three bands from it."""
    try:
        with Picture.open(path) as picture:
            return picture.format == "JPEG" and picture.mode == "RGB"
    except OSError:
        return False


def _steps(x: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """An image as differences between neighbours, modulo 2¹⁶, high bytes apart from low ones: compresses better."""
    steps = np.diff(np.diff(x, axis=0, prepend=np.uint16(0)), axis=1, prepend=np.uint16(0))
    return np.stack([steps >> 8, steps & 255]).astype(np.uint8)


def _from_steps(x: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Back from `_steps`."""
    steps = (x[0].astype(np.uint16) << 8) | x[1]
    return steps.cumsum(1, dtype=np.uint16).cumsum(0, dtype=np.uint16)


def _bytes_of(save: Any, *arrays: NDArray[Any], **named: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def _decoded(content: bytes, member: str) -> NDArray[Any]:
    """The pixels of a member, (3, H, W)."""
    if member.endswith(".npy"):
        array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        return array
    with Picture.open(io.BytesIO(content)) as picture:
        return np.asarray(picture).transpose(2, 0, 1)


def read_pack(path: Path) -> Pack:
    """What a pack holds; images are decoded when they are read. Raises ConfigError if it is none."""
    try:
        with zipfile.ZipFile(path) as file:
            index = json.loads(file.read("index.json"))
            images = [(_image(path, entry), entry["held_out"]) for entry in index["images"]]
            scenes = [(_scene(file, entry), entry["held_out"]) for entry in index["scenes"]]
            stage1 = SimpleNamespace(
                **index["stage1"] | {"network": Stage1Config.from_dict(index["stage1"]["network"])}
            )
            fusion = SimpleNamespace(**index["fusion"] | {"network": FusionConfig(**index["fusion"]["network"])})
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"data: {path}: is no pack of training data ({type(error).__name__}: {error})") from None
    return Pack(stage1, fusion, _split(images), _split(scenes))


def _image(path: Path, entry: Mapping[str, Any]) -> PackedImage:
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    given.pop("held_out")
    return PackedImage(path, **given)


def _scene(file: zipfile.ZipFile, entry: Mapping[str, Any]) -> NativeScene:
    with np.load(io.BytesIO(file.read(entry["member"])), allow_pickle=False) as bands:
        return NativeScene(
            entry["name"],
            {band: torch.from_numpy(_from_steps(bands[band]).astype(np.float32)) / _DN for band in bands.files},
        )


def _split(items: Sequence[tuple[Any, bool]]) -> tuple[list[Any], list[Any]]:
    return [item for item, held_out in items if not held_out], [item for item, held_out in items if held_out]


def pack_base(data: Path, path: Path, stage1: Path | None = None, fusion: Path | None = None) -> None:
    """Write a pack of the data below a folder that two files of settings name; those of `base` by default."""
    from difffusr.pipeline.weights.training.settings import FusionSettings, SuperResolutionSettings, load_settings

    examples = Path(str(resources.files("difffusr.pipeline.config.examples")))
    pack(
        load_settings(SuperResolutionSettings, stage1 or examples / "train-sr-base.yaml", {"root": data}),
        load_settings(FusionSettings, fusion or examples / "train-fusion-base.yaml", {"root": data}),
        path,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.weights.training.packing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that the settings' paths start from")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--sr", type=Path, help="settings of stage 1; by default train-sr-base.yaml")
    parser.add_argument("--fusion", type=Path, help="settings of the fusion; by default train-fusion-base.yaml")
    args = parser.parse_args(argv)
    pack_base(args.data, args.out, args.sr, args.fusion)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
