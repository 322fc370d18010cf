"""The libraries of the page, from npm: OpenLayers, zarrita, which it reads Zarr with, and proj4 where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.npm import NpmPackage
from difffusr.pipeline.readers.static_map.joined import joined

_OPTION: Final = "--openlayers"

#: The versions that the page is written for.
OPENLAYERS: Final = NpmPackage(
    name="ol",
    version="10.11.0",
    integrity="sha512-OJ+lrx7kx/1O7Xx18Ff9QkVnwZIEL0OuhJQSy2sYgzzDvyZ2qHvuZEGAajbSstUyBwaS1OtQ4RWnY84tRMDdqg==",
    wanted=("dist/ol.js", "ol.css", "LICENSE.md"),
    option=_OPTION,
    title="OpenLayers",
)

ZARRITA: Final = NpmPackage(
    name="zarrita",
    version="0.7.5",
    integrity="sha512-ZriOSEne+Wf2iuM0yjDZvUKpHNlug3dO7qJ6mAxXoOgsYV18DPOkAkwB9e0rf21bHcKcOffFuwoZwn5g6pvUeA==",
    wanted=("dist/src/index.js", "dist/src/*.js", "LICENSE"),
    option=_OPTION,
    title="zarrita",
)

STORAGE: Final = NpmPackage(
    name="@zarrita/storage",
    version="0.2.0",
    integrity="sha512-855ZXqtnds7spnT8vNvD+MXa3QExP1m2GqShe8yt7uZXHnQLgJHgkpVwFjE1B0KDDRO0ki09hmk6OboTaIfPsQ==",
    wanted=("dist/src/fetch.js", "dist/src/util.js", "LICENSE"),
    option=_OPTION,
    title="zarrita's storage",
)

NUMCODECS: Final = NpmPackage(
    name="numcodecs",
    version="0.3.2",
    integrity="sha512-6YSPnmZgg0P87jnNhi3s+FVLOcIn3y+1CTIgUulA3IdASzK9fJM87sUFkpyA+be9GibGRaST2wCgkD+6U+fWKw==",
    wanted=("dist/blosc.js", "dist/chunk-*.js", "LICENSE"),
    option=_OPTION,
    title="numcodecs",
)

PROJ4: Final = NpmPackage(
    name="proj4",
    version="2.22.0",
    integrity="sha512-MVvH09QrYm3A235rcX39WDiCKanrBiblu28l0KYIn/B2DofmYhvP/LLS43kE66jNDfx/P1l/nah3JmsAq8UgbQ==",
    wanted=("dist/proj4.js", "LICENSE.md"),
    option=_OPTION,
    title="proj4",
)

PACKAGES: Final = (OPENLAYERS, ZARRITA, STORAGE, NUMCODECS, PROJ4)


def library_files(given: Path | None, cache: Path, *, with_proj4: bool) -> dict[str, bytes]:
    """The files of the libraries for a page's folder `library/`, by name.

    Args:
        given: folder with the packages' tarballs as `npm pack` leaves them, or as `npm install` unpacks them. None
            takes them from `cache`, downloading them if they are missing.
        cache: a folder of this program.
        with_proj4: whether the page needs proj4.

    Raises:
        ConfigError: `given` lacks a package, or its tarball is another one.
        DifffusrError: the registry cannot be reached, sends other bytes than expected, or the cache cannot be
            written.
    """
    needed = PACKAGES if with_proj4 else PACKAGES[:-1]
    at = {package.name: _folder(package, given, cache) for package in needed}
    files = {
        "ol.js": (at[OPENLAYERS.name] / "dist/ol.js").read_bytes().replace(b"\n//# sourceMappingURL=ol.js.map", b""),
        "ol.css": (at[OPENLAYERS.name] / "ol.css").read_bytes(),
        "zarrita.js": _zarrita(at).encode(),
        "blosc.js": joined("blosc.js", (at[NUMCODECS.name] / "dist").joinpath, "blosc").encode(),
        "LICENSES.txt": "\n\n".join(_licence(package, at[package.name]) for package in needed).encode(),
    }
    return files | ({"proj4.js": (at[PROJ4.name] / "dist/proj4.js").read_bytes()} if with_proj4 else {})


def _folder(package: NpmPackage, given: Path | None, cache: Path) -> Path:
    if given is None:
        return package.folder(None, cache)
    if (tarball := given / package.file_name).is_file():
        return package.folder(tarball, cache)
    for folder in (given / package.name, given / "node_modules" / package.name):
        if package.is_in(folder):
            return folder
    packed = " ".join(f"{one.name}@{one.version}" for one in PACKAGES)
    raise ConfigError(f"{_OPTION}: {given} has no {package.file_name}; fill it with `npm pack {packed}`")


def _zarrita(at: dict[str, Path]) -> str:
    """zarrita as one script; OpenLayers expects it as the global object `zarr`. The page brings its own Blosc codec."""
    roots = {"zarrita": at[ZARRITA.name] / "dist/src", "storage": at[STORAGE.name] / "dist/src"}

    def file(path: str) -> Path:
        root, _, rest = path.partition("/")
        return roots[root] / rest

    return joined("zarrita/index.js", file, "zarr", {"@zarrita/storage/fetch": "storage/fetch.js"})


def _licence(package: NpmPackage, folder: Path) -> str:
    name = next(name for name in package.wanted if name.startswith("LICENSE"))
    return f"{package.title} {package.version}\n\n{(folder / name).read_text(encoding='utf-8').strip()}\n"
