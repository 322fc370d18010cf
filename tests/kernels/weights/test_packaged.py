"""The shipped weights: whole, known by their sha256, and replaced one stage at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from difffusr.kernels.model import weights_sha256
from difffusr.kernels.sampling import Sampling
from difffusr.kernels.weights import packaged as module
from difffusr.kernels.weights.errors import WeightsError
from difffusr.kernels.weights.packaged import files_sha256, shipped, shipped_sampling, weight_files


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped weights as a test may change it."""
    folder = Path(shipped("small", "stage1")).parent
    for file in [*folder.glob("*.safetensors"), folder / "index.json"]:
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    return tmp_path


def test_the_sha256_of_files_is_that_of_the_weights_in_them():
    assert files_sha256("small", None, None) == weights_sha256("small", None, None)


def test_a_given_file_replaces_the_shipped_one_of_its_stage(tmp_path):
    (tmp_path / "mine").write_bytes(b"anything")
    stage1, fusion = weight_files("small", None, str(tmp_path / "mine"))
    assert (stage1, fusion) == (shipped("small", "stage1"), str(tmp_path / "mine"))
    sha256 = files_sha256("small", None, str(tmp_path / "mine"))
    assert sha256["fusion"] == hashlib.sha256(b"anything").hexdigest()
    assert sha256["stage1"] == files_sha256("small", None, None)["stage1"]


def test_published_weights_come_from_the_caller(tmp_path):
    with pytest.raises(WeightsError, match="a stage1 and a fusion checkpoint"):
        weight_files("published", str(tmp_path / "a.ckpt"), None)
    with pytest.raises(WeightsError, match=r"a\.ckpt: cannot be read \("):
        files_sha256("published", str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt"))


def test_an_altered_or_missing_shipped_file_is_named(copy):
    (copy / "small-stage1.safetensors").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"small-stage1\.safetensors: sha256 is .*install the package again$"):
        shipped("small", "stage1")
    (copy / "small-stage1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"small-stage1\.safetensors: cannot be read .*install the package again$"):
        shipped("small", "stage1")


def test_shipped_weights_have_their_own_sampling(copy):
    index = json.loads((copy / "index.json").read_text())
    index["small"]["sampling"] = {"steps": 4, "temperature": 0.2}
    index["small"]["samplers"] = {"fast": {"temperature": 0.7}}
    (copy / "index.json").write_text(json.dumps(index))
    assert shipped_sampling().steps == 4
    assert [shipped_sampling(sampler=name).temperature for name in ("reference", "fast", "draft")] == [0.2, 0.7, 0.2]
    assert shipped_sampling(sampler="fast").steps == Sampling().by("fast").steps
