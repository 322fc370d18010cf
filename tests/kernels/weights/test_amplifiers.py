"""A file of weights of a few kilobytes cannot ask for gigabytes."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.weights import checkpoints
from difffusr.kernels.weights.checkpoints import Weights, load_weights
from difffusr.kernels.weights.errors import WeightsError


def laughs() -> object:
    """A billion values, each level ten times the one below."""
    value: object = "ha"
    for _ in range(9):
        value = [value] * 10
    return value


def endless() -> list:
    value: list = []
    value.append(value)
    return value


STATE = {"a": torch.zeros(8)}

CONTENTS = {
    "one number, many times": {"a": torch.zeros(1).expand(2_000_000_000)},
    "many views of a few numbers": {f"a{i}": torch.zeros(1000).expand(1000, 1000) for i in range(600)},
    "a billion values": {"state_dict": STATE, "hyper_parameters": {"x": laughs()}},
    "no end": {"state_dict": STATE, "hyper_parameters": {"x": endless()}},
    "a tensor of nothing": {"a": torch.zeros(1 << 40, device="meta")},
    "a sparse tensor": {"a": torch.sparse_coo_tensor([[0]], [1.0], (1 << 40,))},
}


def refused(path: Path) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as caught:
            load_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_checkpoint_that_amplifies_is_refused(tmp_path, content):
    path = tmp_path / "small.ckpt"
    torch.save(CONTENTS[content], path)
    assert path.stat().st_size < 8e6
    refused(path)


def rewritten(path: Path, target: Path, change, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", method) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


def test_a_pickle_that_asks_for_bytes_by_number_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "a.ckpt")
    asking = b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", 2_000_000_000) + b"\x85R."

    def change(name: str, data: bytes) -> bytes:
        return asking if name.endswith("data.pkl") else data

    assert "bytearray" in refused(rewritten(tmp_path / "a.ckpt", tmp_path / "b.ckpt", change))


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path):
    torch.save({"a": torch.zeros(5_000_000)}, tmp_path / "a.ckpt")
    packed = rewritten(tmp_path / "a.ckpt", tmp_path / "b.ckpt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 100_000
    assert "unpacks to more than 4 times" in refused(packed)


@pytest.mark.parametrize("cut", [10, 100, 400, -1, -60])
def test_an_archive_that_is_cut_is_damaged(tmp_path, cut):
    torch.save(STATE, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:cut])
    assert "is damaged" in refused(tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 62]}},
        {"a": {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}},
        {f"a{i}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for i in range(50)},
    ],
)
def test_a_safetensors_header_that_declares_more_than_there_is_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    refused(tmp_path / "a.safetensors")


def test_a_safetensors_header_longer_than_its_file_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    refused(tmp_path / "a.safetensors")


def test_tensors_that_share_memory_are_no_amplifier(tmp_path):
    one = torch.rand(100_000)
    torch.save({"a": one, "b": one, "c": one.view(100, 1000)}, tmp_path / "a.ckpt")
    assert load_weights(tmp_path / "a.ckpt").state_dict["c"].shape == (100, 1000)


def test_hyper_parameters_of_usual_size_come_back_plain(tmp_path, monkeypatch):
    given = OrderedDict(a=[1, (2, 3)], b=OrderedDict(c=None))
    torch.save({"state_dict": STATE, "hyper_parameters": given}, tmp_path / "a.ckpt")
    assert load_weights(tmp_path / "a.ckpt").hyper_parameters == {"a": [1, (2, 3)], "b": {"c": None}}
    monkeypatch.setattr(checkpoints, "_MOST_VALUES", 3)
    with pytest.raises(WeightsError, match="more than 3 values"):
        load_weights(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "sizes",
    [
        {"rrdb": {"blocks": 10**9}},
        {"rrdb": {"channels": 10**6}},
        {"encoder": {"widths": [64] * 10**5}},
        {"unet": {"channel_mults": [10**12]}},
        {"unet": {"inner_channels": -1}},
        {"unet": {"inner_channels": "many"}},
        {"unet": {"inner_channels": None}},
        {"unet": [1, 2]},
        [["rrdb"]],
        "published",
    ],
)
def test_sizes_that_no_network_has_are_refused_before_it_is_built(sizes):
    state, said = {"ema.first_conv_x.weight": torch.zeros(1)}, {"config": json.dumps(sizes)}
    weights = Weights(state, {}, said, "stage1", "", "f")
    with pytest.raises(WeightsError, match=r"^f: "):
        Stage1.from_weights(weights)
