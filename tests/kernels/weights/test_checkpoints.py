"""Weights are read from files that may be anything: good ones load, bad ones say in one line what is wrong."""

from __future__ import annotations

import collections
import hashlib
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from difffusr.kernels.weights.checkpoints import Weights, load_into, load_weights
from difffusr.kernels.weights.errors import WeightsError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)


def error_of(source: object) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": TENSORS, "hyper_parameters": {"lr": 1e-4}}, path)
    return path


def test_checkpoint(checkpoint):
    weights = load_weights(checkpoint)
    assert set(weights.state_dict) == set(TENSORS)
    assert all(torch.equal(weights.state_dict[key], TENSORS[key]) for key in TENSORS)
    assert weights.hyper_parameters == {"lr": 1e-4}
    assert weights.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert weights.source == str(checkpoint)


def test_bare_state_dict(tmp_path):
    torch.save(TENSORS, tmp_path / "weights.pt")
    weights = load_weights(tmp_path / "weights.pt")
    assert set(weights.state_dict) == set(TENSORS)
    assert weights.hyper_parameters == {}


def test_safetensors_with_its_header(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path, metadata={"config": "small"})
    weights = load_weights(path)
    assert weights.metadata == {"config": "small"}
    assert torch.equal(weights.state_dict["a.weight"], TENSORS["a.weight"])


def test_half_precision_comes_as_float32_and_views_as_whole_tensors(tmp_path):
    state = {"half": torch.ones(2).half(), "brain": torch.ones(2).bfloat16(), "view": torch.ones(3, 1).expand(3, 4)}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    loaded = load_weights(tmp_path / "last.ckpt").state_dict
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(tensor.is_contiguous() for tensor in loaded.values())


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("ema.first_conv_x.weight", "stage1"),
        ("rrdb_block_10_fusion.rgb_conv_first.weight", "fusion_rrdb_v1"),
        ("rrdb_block_10_fusion.pan_mixer.logits", "fusion_mtf_v2"),
        ("something.else", "unknown"),
    ],
)
def test_kind_is_told_by_the_keys(tmp_path, key, kind):
    torch.save({"state_dict": {key: torch.zeros(1)}}, tmp_path / "last.ckpt")
    assert load_weights(tmp_path / "last.ckpt").kind == kind


def test_easydict_is_read_without_the_package(tmp_path, monkeypatch):
    class EasyDict(dict):
        def __init__(self, entries: dict) -> None:
            super().__init__(entries)
            self.__dict__.update(entries)

    EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
    stand_in = types.ModuleType("easydict")
    stand_in.EasyDict = EasyDict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "easydict", stand_in)
    hyper_parameters = EasyDict({"trainer": EasyDict({"epochs": [1, 2]})})
    content = {"state_dict": TENSORS, "hyper_parameters": hyper_parameters, "other": collections.Counter("aab")}
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.setitem(sys.modules, "easydict", None)  # importing it now fails
    read = load_weights(tmp_path / "last.ckpt").hyper_parameters
    assert read == {"trainer": {"epochs": [1, 2]}}
    assert type(read["trainer"]) is dict


def test_what_is_not_there_is_named(tmp_path):
    assert error_of(tmp_path / "none.ckpt").startswith(f"{tmp_path / 'none.ckpt'}: cannot be read (")
    with pytest.raises(WeightsError, match=r"^the first checkpoint: cannot be read \("):
        load_weights(tmp_path / "none.ckpt", source="the first checkpoint")


@pytest.mark.parametrize("content", [b"", b"hello", b"<html>Not found</html>", b"\x80\x02}q\x00."])
def test_other_files_are_no_weights(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    assert "last.ckpt: is neither a torch checkpoint nor a safetensors file" in error_of(tmp_path / "last.ckpt")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_truncated_checkpoint(checkpoint, kept):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * kept)])
    assert "last.ckpt: is damaged" in error_of(checkpoint)


@pytest.mark.parametrize("kept", [0.2, 0.95])
def test_truncated_safetensors(tmp_path, kept):
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "weights.safetensors: is damaged" in error_of(path)


class Hostile:
    """A pickle that creates a file when it is loaded by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, place):
    content = {"state_dict": TENSORS, place: {"a": Hostile(tmp_path / "ran")}}
    torch.save(content, tmp_path / "last.ckpt")
    message = error_of(tmp_path / "last.ckpt")
    assert "last.ckpt: refused, it holds " in message
    assert "system" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2], {"state_dict": {"a": 1}}, {"state_dict": {}}])
def test_checkpoint_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    assert "holds no state_dict" in error_of(tmp_path / "last.ckpt")


# into a module


def weights_of(state: dict[str, torch.Tensor]) -> Weights:
    return Weights(state, {}, {}, "unknown", "0" * 64, "last.ckpt")


def misfit(state: dict[str, torch.Tensor], prefix: str = "") -> str:
    with pytest.raises(WeightsError) as caught:
        load_into(Net(), weights_of(state), prefix)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("last.ckpt: does not fit Net: ")
    return message


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_module_takes_its_weights(device):
    with torch.device(device):
        net = Net()
    state = {f"ema.{key}": tensor for key, tensor in TENSORS.items()} | {"ema.old.x": torch.ones(1), "x": torch.ones(1)}
    load_into(net, weights_of(state), prefix="ema.", ignore=("old.",))
    assert torch.equal(net.a.weight, TENSORS["a.weight"])


def test_missing_keys_are_named_with_their_prefix():
    assert "1 missing (ema.a.bias)" in misfit({"ema.a.weight": TENSORS["a.weight"]}, "ema.")


def test_unexpected_keys_are_counted_and_the_first_named():
    more = {f"extra.{i}": torch.zeros(1) for i in range(5)}
    assert "5 unexpected (extra.0, extra.1, extra.2, …)" in misfit(TENSORS | more)


def test_wrong_shapes_are_named_with_both_shapes():
    message = misfit({"a.weight": torch.zeros(4, 3), "a.bias": torch.zeros(2)})
    assert message.endswith("1 of another shape (a.weight (4, 3) instead of (2, 3))")


def test_all_that_is_wrong_is_one_line():
    message = misfit({"a.weight": torch.zeros(4, 3), "b": torch.zeros(2)})
    assert "1 missing (a.bias); 1 unexpected (b); 1 of another shape" in message


def test_nothing_is_loaded_where_something_is_wrong():
    net = Net()
    before = net.a.weight.clone()
    with pytest.raises(WeightsError):
        load_into(net, weights_of({"a.weight": TENSORS["a.weight"]}))
    assert torch.equal(net.a.weight, before)
