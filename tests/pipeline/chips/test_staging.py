"""Staged chips: what is written is read, what is damaged is named."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import safetensors.numpy

from difffusr.pipeline.chips.staging import ChipError, StagedChip, is_whole, read_chip, write_chip
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage

SIDE = 96


def a_chip(with_std: bool = False, with_looks: bool = False) -> StagedChip:
    rng = np.random.default_rng(4)
    spectral, coarse = (12, SIDE, SIDE), (SIDE // 4, SIDE // 4)
    return StagedChip(
        rng.integers(0, 9_000, spectral).astype(np.uint16),
        rng.integers(0, 5, coarse).astype(np.uint8),
        rng.integers(0, 3, coarse).astype(np.uint16),
        rng.integers(0, 900, spectral).astype(np.uint16) if with_std else None,
        rng.integers(0, 17, coarse).astype(np.uint8) if with_looks else None,
    )


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def is_same(read: StagedChip, chip: StagedChip, rows: slice = slice(None)) -> bool:
    labels = np.array_equal(read.quality, chip.quality) and np.array_equal(read.source, chip.source)
    std = chip.std is None or (read.std is not None and np.array_equal(read.std[:, rows], chip.std[:, rows]))
    labels &= (chip.looks is None) == (read.looks is None) and np.array_equal(read.looks, chip.looks)
    return labels and std and np.array_equal(read.dn[:, rows], chip.dn[:, rows])


@pytest.mark.parametrize("with_looks", [False, True])
@pytest.mark.parametrize("with_std", [False, True])
def test_a_chip_is_read_as_it_was_written(store, with_std, with_looks):
    chip = a_chip(with_std, with_looks)
    size = write_chip(store, "a.chip", chip)
    assert size == (Path(store.url) / "chips" / "a.chip").stat().st_size
    assert is_same(read_chip(store, "a.chip"), chip)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(23, 24), slice(24, 48), slice(30, 90), slice(95, 96)])
def test_the_rows_that_are_wanted_are_read(store, rows):
    chip = a_chip(with_std=True, with_looks=True)
    write_chip(store, "a.chip", chip)
    assert is_same(read_chip(store, "a.chip", rows), chip, rows)


def test_a_chip_of_an_earlier_version_is_read(store):
    """One stream an array, of another codec, packed by safetensors itself."""
    chip, packed, layout = a_chip(), {}, {}
    codec = numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.BITSHUFFLE)
    for name in ("dn", "quality", "source"):
        array = getattr(chip, name)
        packed[name] = np.frombuffer(codec.encode(array), np.uint8)
        layout[name] = [array.dtype.str, list(array.shape)]
    store.write("chips/old.chip", safetensors.numpy.save(packed, {"layout": json.dumps(layout)}))
    assert is_same(read_chip(store, "old.chip"), chip)
    assert is_same(read_chip(store, "old.chip", slice(3, 9)), chip, slice(3, 9))


def test_a_chip_is_a_safetensors_file(store):
    chip = a_chip()
    write_chip(store, "a.chip", chip)
    streams = safetensors.numpy.load(store.read("chips/a.chip"))
    assert set(streams) == {"dn", "quality", "source"}
    assert np.array_equal(
        np.frombuffer(numcodecs.Blosc().decode(streams["quality"].tobytes()), np.uint8), chip.quality.ravel()
    )


@pytest.mark.parametrize("keep", [0, 3, 8, 200, 0.5, -1])
def test_a_chip_that_is_cut_short_is_damaged(store, keep):
    write_chip(store, "a.chip", a_chip())
    data = store.read("chips/a.chip")
    store.write("chips/a.chip", data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(StoreError, match=r"chips/a\.chip: is damaged \(.*\); run again to compute it again") as caught:
        read_chip(store, "a.chip")
    assert "\n" not in str(caught.value)


def test_what_is_no_chip_is_damaged(store):
    write_chip(store, "a.chip", a_chip())
    data = store.read("chips/a.chip")
    begin = 8 + int.from_bytes(data[:8], "little")
    for other in (b"\0" * len(data), bytes(range(256)) * 9, data[:begin] + b"\xff" * (len(data) - begin), data + b"x"):
        store.write("chips/a.chip", other)
        with pytest.raises(StoreError, match="is damaged"):
            read_chip(store, "a.chip")


@pytest.mark.parametrize("with_std", [False, True])
def test_no_bit_of_a_staged_chip_changes_unseen(store, with_std):
    write_chip(store, "a.chip", a_chip(with_std))
    data = store.read("chips/a.chip")
    begin = 8 + int.from_bytes(data[:8], "little")
    places = [*range(0, begin, 7), *np.random.default_rng(2).integers(begin, len(data), 150).tolist(), len(data) - 1]
    for at in places:
        torn = bytearray(data)
        torn[at] ^= 1 << at % 8
        store.write("chips/a.chip", bytes(torn))
        with pytest.raises(ChipError) as caught:
            read_chip(store, "a.chip", slice(0, 1))
        assert caught.value.object_name == "a.chip"
        assert not is_whole(store, "a.chip")
    store.write("chips/a.chip", data)
    assert is_whole(store, "a.chip")


def test_another_chip_under_its_name_is_no_chip(store):
    write_chip(store, "a.chip", a_chip())
    store.write("chips/b.chip", store.read("chips/a.chip"))
    with pytest.raises(ChipError, match=r"chips/b\.chip: is damaged \(it is chip a\.chip\); run again"):
        read_chip(store, "b.chip")


def test_a_chip_that_is_not_there_is_told_from_a_store_that_fails(store, monkeypatch):
    with pytest.raises(ChipError, match="is missing; run again"):
        read_chip(store, "a.chip")
    write_chip(store, "a.chip", a_chip())

    def away(*_: str) -> bytes:
        raise StoreError("away")

    monkeypatch.setattr(Storage, "read", away)
    with pytest.raises(StoreError, match="away") as caught:
        read_chip(store, "a.chip")
    assert not isinstance(caught.value, ChipError)


def test_a_workers_error_says_which_chip_it_was(store):
    with pytest.raises(ChipError) as caught:
        read_chip(store, "a.chip")
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.object_name) == (str(caught.value), "a.chip")
