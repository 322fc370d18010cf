"""The networks of a configuration: their weights come from anywhere, and every choice has keys of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
import torch
from odd_names import ODD_NAMES
from safetensors.torch import save_file

from difffusr.kernels.model import model_fingerprint, weights_sha256
from difffusr.kernels.sampling.settings import SAMPLERS, Sampling
from difffusr.kernels.weights.packaged import shipped, shipped_sampling
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import WeightsError
from difffusr.pipeline.plan.keys import ContentKeys
from difffusr.pipeline.plan.networks import local_weights, read_both, read_weights, sampling_of, weights_of
from difffusr.pipeline.run.cost.calibration import conditions_of

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}

PUBLISHED = {"preset": "published", "stage1": "a.ckpt", "fusion": "b.ckpt"}


def configured(**model: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "here",
            "area": {"tiles": ["31UGR"]},
            "period": {"start": "2023-06-01", "end": "2023-06-30"},
            "source": {"stac_api": "https://example.com"},
            "store": {"url": "memory://cube.zarr"},
            "model": model,
        }
    )


def error_of(source: str) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weights(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": TENSORS, "hyper_parameters": {"lr": 1e-4}}, path)
    return path


# ---- where weights come from ----------------------------------------------------------------------------------------


def test_a_path_is_read_where_it_is(checkpoint):
    with local_weights(str(checkpoint)) as path:
        assert path == checkpoint
    weights = read_weights(str(checkpoint))
    assert weights.source == str(checkpoint)
    assert weights.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_an_address_of_this_machine_is_read_where_it_is(checkpoint):
    with local_weights(f"file://{checkpoint}") as path:
        assert path == checkpoint
    weights = read_weights(f"file://{checkpoint}")
    assert weights.source == f"file://{checkpoint}"
    assert torch.equal(weights.state_dict["a.weight"], TENSORS["a.weight"])


def test_a_remote_copy_vanishes_but_its_tensors_stay(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    fsspec.filesystem("memory").pipe("/weights/last.ckpt", checkpoint.read_bytes())
    weights = read_weights("memory://weights/last.ckpt")
    assert weights.source == "memory://weights/last.ckpt"
    assert torch.equal(weights.state_dict["a.weight"], TENSORS["a.weight"])
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_is_not_there_is_named(tmp_path):
    assert "none.ckpt: cannot be read" in error_of(str(tmp_path / "none.ckpt"))
    assert "memory://none.ckpt: cannot be read" in error_of("memory://none.ckpt")
    assert "gopher://weights: cannot be read" in error_of("gopher://weights")


def test_a_damaged_remote_file_is_named_by_its_address_not_by_its_copy():
    fsspec.filesystem("memory").pipe("/damaged/last.ckpt", b"<html>Not found</html>")
    message = error_of("memory://damaged/last.ckpt")
    assert message == "memory://damaged/last.ckpt: is neither a torch checkpoint nor a safetensors file"


def test_an_object_store_without_credentials_is_one_line(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    message = error_of("s3://bucket/last.ckpt")
    assert message.startswith("s3://bucket/last.ckpt: cannot be read (")
    assert "credentials" in message


# ---- the sha256 of weights ------------------------------------------------------------------------------------------


def test_shipped_weights_are_known_by_the_sha256_of_their_files():
    assert weights_of(configured()) == weights_sha256("small", None, None)


def test_given_weights_are_known_by_their_sha256_wherever_they_come_from():
    given = Path(shipped("small", "fusion"))
    fsspec.filesystem("memory").pipe("/given/fusion.safetensors", given.read_bytes())
    config = configured(fusion="memory://given/fusion.safetensors")
    assert weights_of(config) == weights_of(configured())
    assert [weights.kind for weights in read_both(config)] == ["stage1", "fusion_corrected"]


def test_given_weights_of_something_else_are_refused(tmp_path):
    save_file(TENSORS, tmp_path / "other.safetensors")
    for model, complaint in (
        ({"stage1": str(tmp_path / "other.safetensors")}, "holds no stage 1"),
        ({"fusion": str(tmp_path / "other.safetensors")}, "holds no fusion network"),
        ({"fusion": str(tmp_path / "none.safetensors")}, "cannot be read"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            weights_of(configured(**model))


def test_planning_with_shipped_weights_needs_no_torch():
    program = """
import sys
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.plan import networks
config = RunConfig.model_validate({
    "name": "here", "area": {"tiles": ["31UGR"]}, "period": {"start": "2023-06-01", "end": "2023-06-30"},
    "source": {"stac_api": "https://example.com"}, "store": {"url": "memory://cube.zarr"},
})
print(sorted(networks.weights_of(config)), networks.sampling_of(config).solver, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['fusion', 'stage1'] ddim False", done.stderr[-2000:]


# ---- how they are sampled -------------------------------------------------------------------------------------------


def test_reference_with_published_weights_is_the_published_sampler():
    published = Sampling(solver="ddim", steps=20, denoised=False, temperature=1.0)
    assert sampling_of(configured(**PUBLISHED)) == published
    assert sampling_of(configured(**PUBLISHED, sampler="reference")) == published


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_decides_on_solver_and_steps_and_the_weights_on_the_temperature(sampler):
    own, chosen = shipped_sampling(sampler=sampler), sampling_of(configured(sampler=sampler))
    assert (chosen.solver, chosen.steps) == SAMPLERS[sampler]
    assert (chosen.temperature, chosen.denoised) == (own.temperature, own.denoised)


def test_steps_of_the_configuration_replace_those_of_the_sampler():
    assert sampling_of(configured(sampler="fast", sampler_steps=7)) == Sampling(
        solver="multistep", steps=7, denoised=True, temperature=shipped_sampling(sampler="fast").temperature
    )
    assert sampling_of(configured(**PUBLISHED, sampler_steps=100)).steps == 100


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_every_sampler_has_keys_and_calibrations_of_its_own():
    choices = [{"sampler": name} for name in SAMPLERS] + [{"sampler": "fast", "sampler_steps": 20}]
    configs = [configured(**choice) for choice in choices]
    fingerprints = {model_fingerprint("small", None, None, sampling_of(config)) for config in configs}
    assert len(fingerprints) == len(choices)
    assert len({conditions_of(config) for config in configs}) == len(choices)


def test_every_number_of_samples_has_chips_of_its_own():
    def key(samples: int) -> bytes:
        keys = ContentKeys.of(configured(sampler_steps=2, uncertainty_samples=samples), [], "model")
        return keys.table(np.array([[32648, -3, 7]], np.int32), np.array([[-1]], np.int32)).tobytes()

    assert key(0) == key(0)
    assert len({key(samples) for samples in (0, 2, 3)}) == 3


@pytest.mark.parametrize("name", ODD_NAMES)
def test_weights_may_lie_in_a_folder_of_any_name(checkpoint, tmp_path, name):
    (tmp_path / name).mkdir()
    odd = tmp_path / name / "last #2?.ckpt"
    checkpoint.rename(odd)
    for source in (str(odd), f"file://{quote(str(odd))}", f"FILE://localhost{quote(str(odd))}"):
        with local_weights(source) as path:
            assert path == odd
    assert read_weights(str(odd)).source == str(odd)
