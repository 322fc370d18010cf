"""What was written outlives a loss of power, unless a writer can make it again."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from difffusr.pipeline.storage.objects import Storage


@pytest.fixture
def synced(monkeypatch) -> list[str]:
    """Names of what was put on the disk, in order; folders end with a slash, files under a temporary name are *."""
    names: list[str] = []

    def fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        name = path.rsplit("/", 1)[-1]
        names.append(f"{name}/" if os.path.isdir(path) else "*" if name.startswith(".partial-") else name)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda store: store.write("a/b", b"1"), ["*", "a/"]),
        (lambda store: store.create("a/b", b"1"), ["*", "a/"]),
        (lambda store: store.exchange("a/b", b"1", ""), ["*", "a/"]),
        (lambda store: store.write("a/b", b"1", durable=False), []),
    ],
    ids=["write", "create", "exchange", "what can be made again"],
)
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_is_before_the_writer_goes_on(
    tmp_path, synced, write: Callable[[Storage], object], expected
):
    write(Storage(str(tmp_path)))
    assert synced == expected
    assert (tmp_path / "a" / "b").read_bytes() == b"1"


def test_a_file_of_this_machine_is_copied_onto_the_disk(tmp_path, synced):
    (tmp_path / "made").write_bytes(b"1")
    Storage(str(tmp_path / "store")).put("a", tmp_path / "made")
    assert synced == ["*", "store/"]


def test_what_others_have_written_is_put_on_the_disk_with_its_name(tmp_path, synced):
    (tmp_path / "shard").write_bytes(b"1")
    Storage(str(tmp_path)).sync("shard")
    assert synced == ["shard", f"{tmp_path.name}/"]


def test_sizes_are_those_of_names(tmp_path):
    store = Storage(str(tmp_path))
    for name, data in (("a/b", b"12"), ("a/c/d", b""), ("e", b"1")):
        store.write(name, data)
    (tmp_path / "a" / ".partial-x").write_bytes(b"123")
    assert store.sizes("a") == {"b": 2, "c/d": 0}
    assert store.names("a") == {"b", "c/d"}
    assert store.sizes("nothing") == {}
