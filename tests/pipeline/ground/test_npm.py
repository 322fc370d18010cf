"""Packages of npm by name and version; what is fetched and kept is tested with the pages that need it."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.npm import NpmPackage


def package(name: str = "thing", integrity: str = "", wanted: tuple[str, ...] = ("dist/a.js",)) -> NpmPackage:
    return NpmPackage(name, "1.2.3", integrity, wanted, "--thing", "Thing")


def tarball(path: Path, members: dict[str, bytes]) -> str:
    """Write a tarball; returns its checksum as the registry has it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.mark.parametrize(
    ("name", "file", "url"),
    [
        ("ol", "ol-1.2.3.tgz", "https://registry.npmjs.org/ol/-/ol-1.2.3.tgz"),
        ("maplibre-gl", "maplibre-gl-1.2.3.tgz", "https://registry.npmjs.org/maplibre-gl/-/maplibre-gl-1.2.3.tgz"),
        (
            "@zarrita/storage",
            "zarrita-storage-1.2.3.tgz",
            "https://registry.npmjs.org/@zarrita/storage/-/storage-1.2.3.tgz",
        ),
    ],
)
def test_tarballs_are_named_as_npm_names_them(name, file, url):
    assert (package(name).file_name, package(name).tarball) == (file, url)


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (("dist/a.js",), {"dist/a.js"}),
        (("dist/*.js", "LICENSE"), {"dist/a.js", "dist/deep/b.js", "LICENSE"}),
        (("LICENSE*",), {"LICENSE"}),
        (("*",), {"dist/a.js", "dist/deep/b.js", "dist/c.css", "LICENSE"}),
    ],
)
def test_only_what_is_wanted_is_kept_and_nothing_leaves_the_folder(tmp_path, wanted, kept):
    held = [
        "package/dist/a.js",
        "package/dist/deep/b.js",
        "package/dist/c.css",
        "package/LICENSE",
        "package/../../out.js",
    ]
    published = tarball(tmp_path / "given.tgz", {name: name.encode() for name in held})
    folder = package(integrity=published, wanted=wanted).folder(tmp_path / "given.tgz", tmp_path / "cache")
    assert folder == tmp_path / "cache" / "thing-1.2.3"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == kept
    assert [path.name for path in tmp_path.rglob("out.js")] == []


def test_a_kept_package_is_not_read_again_and_one_that_lacks_files_is(tmp_path):
    published = tarball(tmp_path / "given.tgz", {"package/dist/a.js": b"a", "package/dist/b.js": b"b"})
    package(integrity=published).folder(tmp_path / "given.tgz", tmp_path / "cache")
    (tmp_path / "given.tgz").unlink()
    assert package(integrity=published).folder(None, tmp_path / "cache") == tmp_path / "cache" / "thing-1.2.3"
    assert not package(wanted=("dist/b.js",)).is_in(tmp_path / "cache" / "thing-1.2.3")
    assert not package(wanted=("dist/b*.js",)).is_in(tmp_path / "cache" / "thing-1.2.3")


@pytest.mark.parametrize("harm", [b"", b"no tarball", None])
def test_another_tarball_is_refused_and_leaves_nothing(tmp_path, harm):
    published = tarball(tmp_path / "given.tgz", {"package/dist/a.js": b"a"})
    if harm is None:
        (tmp_path / "given.tgz").unlink()
    else:
        (tmp_path / "given.tgz").write_bytes(harm)
    with pytest.raises(ConfigError, match="--thing"):
        package(integrity=published).folder(tmp_path / "given.tgz", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
