"""MapLibre's files are downloaded once, checked and cached."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from difffusr.pipeline.readers.view import maplibre

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


def package(folder: Path) -> bytes:
    """A tarball as npm packs it, with the files that the page needs, and one beside that would leave the folder."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in (*maplibre.FILES.values(), "../../escaped"):
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    (folder / "maplibre-gl.tgz").write_bytes(data.getvalue())
    return data.getvalue()


def test_maplibre_is_fetched_once_and_kept(tmp_path, monkeypatch):
    tarball = package(tmp_path)
    published = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    monkeypatch.setattr(maplibre, "PACKAGE", replace(maplibre.PACKAGE, integrity=published))
    asked: list[str] = []

    def fetch(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(tarball)

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    for _ in range(2):
        files = maplibre.maplibre_files(None, tmp_path / "cache")
        assert {name: path.read_text() for name, path in files.items()} == maplibre.FILES
    assert asked == [f"https://registry.npmjs.org/maplibre-gl/-/maplibre-gl-{maplibre.PACKAGE.version}.tgz"]
    assert not list(tmp_path.rglob("escaped"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"maplibre-gl-{maplibre.PACKAGE.version}"]


def test_other_bytes_than_were_published_are_refused(view, storage, tmp_path, monkeypatch):
    tarball = package(tmp_path)
    code, _, error = view(storage.url, "--maplibre", tmp_path / "maplibre-gl.tgz")
    assert (code, error.count("\n")) == (2, 1)
    assert "is not the tarball of maplibre-gl" in error
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(tarball))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, error = view(storage.url, "--no-browser")
    assert (code, error.count("\n")) == (1, 1)
    assert "the download differs from what was published" in error
    assert not list((tmp_path / "cache").rglob("*.mjs"))


def test_registry_out_of_reach_is_said_with_what_to_do(view, storage, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refuse(url: str, timeout: float) -> io.BytesIO:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    code, _, error = view(storage.url)
    assert (code, error.count("\n")) == (1, 1)
    assert "cannot be fetched" in error
    assert "--maplibre" in error


@pytest.mark.parametrize("given", ["nowhere.tgz", "."])
def test_what_is_no_maplibre_is_said(view, storage, tmp_path, given):
    code, _, error = view(storage.url, "--maplibre", tmp_path / given)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: --maplibre: ")
