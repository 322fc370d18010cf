"""The files of MapLibre GL JS: from a folder, or downloaded once from the npm registry, checked and cached."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.ground.urls import first_line

#: Version that the page is written for.
VERSION: Final = "6.17.0"

#: Where it is published, and the registry's checksum.
TARBALL: Final = f"https://registry.npmjs.org/maplibre-gl/-/maplibre-gl-{VERSION}.tgz"

INTEGRITY: Final = "sha512-2chIZwpLGenoUQOcnm9Pk4SLbA8ppNFq8jlpXiq9vcYm3Y1wJ3fc82FL0GLwBaPYJCLzPv/mC46KEupVov75rQ=="

#: The files that the page needs: path in the package by name.
FILES: Final = {
    "maplibre-gl.mjs": "dist/maplibre-gl.mjs",
    "maplibre-gl-worker.mjs": "dist/maplibre-gl-worker.mjs",
    "maplibre-gl.css": "dist/maplibre-gl.css",
    "LICENSE.txt": "LICENSE.txt",
}

#: Limit for the tarball and for each file.
_MOST_BYTES: Final = 64 << 20

_TIMEOUT_S: Final = 60


def maplibre_files(given: Path | None, cache: Path) -> dict[str, Path]:
    """Paths of the files, by name.

    Args:
        given: the unpacked npm package or its `dist` folder, of any version that works with the page; or the tarball of
            `VERSION`. None takes the files in `cache`, downloading them if they are missing.
        cache: a folder of this program.

    Raises:
        ConfigError: `given` has no MapLibre GL JS.
        DifffusrError: the registry cannot be reached, sends other bytes than expected, or the cache cannot be
            written.
    """
    if given is not None and given.is_dir():
        return _in_folder(given)
    kept = cache / f"maplibre-gl-{VERSION}"
    if given is not None or not all((kept / name).is_file() for name in FILES):
        _unpack(_checked(_read(given) if given is not None else _downloaded(TARBALL), given), kept)
    return {name: kept / name for name in FILES}


def _in_folder(folder: Path) -> dict[str, Path]:
    for found in (folder / "dist", folder):
        files = {name: found / name for name in FILES if name != "LICENSE.txt"}
        if all(path.is_file() for path in files.values()):
            return files
    raise ConfigError(
        f"--maplibre: {folder} has no MapLibre GL JS; expected dist/maplibre-gl.mjs and its neighbours, as "
        f"`npm pack maplibre-gl@{VERSION}` packs them"
    )


def _read(tarball: Path) -> bytes:
    try:
        return tarball.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"--maplibre: {tarball} cannot be read ({error.strerror or error}); give the folder of the npm package "
            f"maplibre-gl, or its tarball from {TARBALL}"
        ) from None


def _downloaded(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise DifffusrError(
            f"{url}: cannot be fetched ({first_line(error)}); download it on another machine and give it with "
            "--maplibre FILE"
        ) from None
    return data


def _checked(data: bytes, given: Path | None) -> bytes:
    """The bytes, if they are the published ones."""
    if "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode() != INTEGRITY:
        if given is not None:
            raise ConfigError(f"--maplibre: {given} is not the tarball of maplibre-gl {VERSION}; take {TARBALL}")
        raise DifffusrError(f"{TARBALL}: the download differs from what was published; try again, or elsewhere")
    return data


def _unpack(tarball: bytes, folder: Path) -> None:
    """Unpack the files into a folder, atomically."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as package:
                for name, path in FILES.items():
                    member = package.extractfile(f"package/{path}")
                    assert member is not None
                    (place / name).write_bytes(member.read(_MOST_BYTES))
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise DifffusrError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or give the files with --maplibre"
        ) from None
