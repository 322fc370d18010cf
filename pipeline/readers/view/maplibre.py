"""The files of MapLibre GL JS: from a folder, or downloaded once from the npm registry, checked and cached."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.npm import NpmPackage

#: The files that the page needs: path in the package by name.
FILES: Final = {
    "maplibre-gl.mjs": "dist/maplibre-gl.mjs",
    "maplibre-gl-worker.mjs": "dist/maplibre-gl-worker.mjs",
    "maplibre-gl.css": "dist/maplibre-gl.css",
    "LICENSE.txt": "LICENSE.txt",
}

#: The version that the page is written for.
PACKAGE: Final = NpmPackage(
    name="maplibre-gl",
    version="6.17.0",
    integrity="sha512-2chIZwpLGenoUQOcnm9Pk4SLbA8ppNFq8jlpXiq9vcYm3Y1wJ3fc82FL0GLwBaPYJCLzPv/mC46KEupVov75rQ==",
    wanted=tuple(FILES.values()),
    option="--maplibre",
    title="MapLibre GL JS",
)


def maplibre_files(given: Path | None, cache: Path) -> dict[str, Path]:
    """Paths of the files, by name.

    Args:
        given: the unpacked npm package or its `dist` folder, of any version that works with the page; or the tarball of
            `PACKAGE`. None takes the files in `cache`, downloading them if they are missing.
        cache: a folder of this program.

    Raises:
        ConfigError: `given` has no MapLibre GL JS.
        DifffusrError: the registry cannot be reached, sends other bytes than expected, or the cache cannot be
            written.
    """
    if given is not None and given.is_dir():
        return _in_folder(given)
    folder = PACKAGE.folder(given, cache)
    return {name: folder / path for name, path in FILES.items()}


def _in_folder(folder: Path) -> dict[str, Path]:
    for found in (folder / "dist", folder):
        files = {name: found / name for name in FILES if name != "LICENSE.txt"}
        if all(path.is_file() for path in files.values()):
            return files
    raise ConfigError(
        f"--maplibre: {folder} has no MapLibre GL JS; expected dist/maplibre-gl.mjs and its neighbours, as "
        f"`npm pack maplibre-gl@{PACKAGE.version}` packs them"
    )
