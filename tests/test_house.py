"""The house: few entries, small files, every package named, faces that hold, a picture that is up to date."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import house
import pytest
from beside import ROOT

PACKAGES = sorted(
    "difffusr." + ".".join(path.parent.relative_to(ROOT).parts)
    for floor in ("kernels", "pipeline")
    for path in (ROOT / floor).rglob("__init__.py")
)
TEXT = [
    path
    for floor in ("kernels", "pipeline")
    for path in sorted((ROOT / floor).rglob("*"))
    if path.suffix in (".py", ".pyi", ".html", ".css", ".js", ".md", ".yaml")
]


def test_whoever_opens_the_pipeline_sees_at_most_18_entries():
    assert len([path for path in (ROOT / "pipeline").iterdir() if path.name != "__pycache__"]) <= 18


@pytest.mark.parametrize("path", TEXT, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_450_lines(path: Path):
    assert len(path.read_text().splitlines()) <= 450


def test_the_distribution_names_every_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"] == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_face_is_there(package: str):
    face = importlib.import_module(package)
    for name in getattr(face, "__all__", ()):
        assert getattr(face, name) is not None


def test_the_picture_shows_the_house_as_it_is():
    assert house.PICTURE.read_text() == house.picture(), "run: make house"
