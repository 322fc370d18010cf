"""Patches are the cube's chunks, each once, of enough ground, in an order that a seed repeats, on all ranks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from file_bucket import serve
from pyproj import Transformer
from random_cubes import random_cube, window_around
from torch.utils.data import DataLoader

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import utm_epsg
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.readers import CubePatches, open_cube
from difffusr.pipeline.storage.objects import Storage

ZONES = (32632, 32633)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two zones on both sides of a border, two months, with a spread; the second month of one zone alone."""
    folder = tmp_path_factory.mktemp("bucket")
    windows = {zone: window_around(zone, 12.0, 48.0, (2, 4)) for zone in ZONES}
    storage = Storage(str(folder / "cube.zarr"))
    random_cube(storage, {32632: windows[32632]}, months=(1,), samples=4)
    random_cube(storage, windows, months=(2,), samples=4)
    return storage.url


Place = tuple[int, str, float, float]

#: What makes a place.
AT = ("zone", "period", "x", "y")


def _plain(values: Any) -> list[Any]:
    return list(values.tolist() if isinstance(values, torch.Tensor) else values)


def place(item: dict[str, Any]) -> Place:
    return int(item["zone"]), str(item["period"]), float(item["x"]), float(item["y"])


def by_hand(url: str, size: int, least: float, usable: tuple[int, ...] = (1, 2)) -> dict[Place, dict[str, Any]]:
    """Every square of every zone and period with enough ground whose middle is in its zone, from whole arrays."""
    cube, found = Cube(Storage(url)), {}
    for zone in cube.zones:
        whole = {name: np.asarray(cube.array(zone, name)[:]) for name in cube.variables(zone)}
        window = cube.window(zone)
        to_degrees = Transformer.from_crs(f"EPSG:{zone}", "EPSG:4326", always_xy=True)
        for label, (step, _) in cube.periods(zone).items():
            for row in range(0, window.height, size):
                for col in range(0, window.width, size):
                    part = (step, ..., slice(row, row + size), slice(col, col + size))
                    x, y = 2.5 * (window.col + col), -2.5 * (window.row + row)
                    lon, lat = to_degrees.transform(x + 1.25 * size, y - 1.25 * size)
                    if np.isin(whole["quality"][part], usable).mean() >= least and utm_epsg(lon, lat) == zone:
                        found[zone, label, x, y] = {name: values[part] for name, values in whole.items()}
    return found


@pytest.mark.parametrize(("size", "least"), [(16, 1.0), (32, 0.9), (32, 0.5), (32, 0.0), (64, 0.5)])
def test_every_patch_with_enough_ground_comes_once_with_its_values(size, least, url):
    wanted = by_hand(url, size, max(least, 1e-9))
    found = {place(item): item for item in CubePatches(url, size, least=least, labels=["source"])}
    assert found.keys() == wanted.keys()
    assert len(found) > 8
    assert {zone for zone, *_ in found} == set(ZONES)
    for at, item in found.items():
        stored = wanted[at]
        np.testing.assert_allclose(item["reflectance"], stored["reflectance"] / 10_000, rtol=1e-6)
        std = np.where(stored["reflectance_std"] == 65_535, 0, stored["reflectance_std"] / 100_000)
        np.testing.assert_allclose(item["reflectance_std"], std, rtol=1e-6)
        np.testing.assert_array_equal(item["quality"], stored["quality"])
        np.testing.assert_array_equal(item["source"], stored["source"])
        assert (item["reflectance"].dtype, item["source"].dtype) == (torch.float32, torch.int32)
    assert sum(1 for _ in CubePatches(url, size, least=least)) == len(wanted)


def test_bands_periods_qualities_areas_and_what_stands_for_nothing_may_be_chosen(url):
    chosen = CubePatches(
        url, 32, bands=["B08", "B02"], periods="2023-02", quality=["cloudy"], least=0.5, fill=-1.0, seed=None
    )
    wanted = by_hand(url, 32, 0.5, usable=(3,))
    items = list(chosen)
    assert {place(item) for item in items} == {at for at in wanted if at[1] == "2023-02"}
    for item in items:
        stored = wanted[place(item)]["reflectance"][[7, 1]]
        np.testing.assert_allclose(item["reflectance"], np.where(stored == 0, -1, stored / 10_000), rtol=1e-6)
    everywhere = {place(item): item for item in CubePatches(url, 32, least=0)}
    west = shapely.box(0, 40, 11.9999, 50)
    assert {place(item)[0] for item in CubePatches(url, 32, least=0, area=west)} == {32632}
    assert any((item["reflectance"] == 0).any() for item in everywhere.values())


def test_a_seed_repeats_the_order_and_an_epoch_changes_it(url):
    def order(seed: int | None, epoch: int = 0) -> list[Place]:
        patches = CubePatches(url, 32, least=0.5, seed=seed)
        patches.set_epoch(epoch)
        return [place(item) for item in patches]

    assert order(1) == order(1)
    assert order(1, 3) == order(1, 3)
    assert len({tuple(order(*which)) for which in ((None,), (1,), (2,), (1, 1), (1, 2))}) == 5
    assert order(None) == sorted(order(None), key=lambda at: (at[0], at[1], 0))


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (3, 0), (2, 2), (40, 0)])
def test_ranks_and_workers_share_the_patches(ranks, workers, url):
    whole = sorted(place(item) for item in CubePatches(url, 32, least=0.5))
    parts: list[Place] = []
    for rank in range(ranks):
        patches = CubePatches(url, 32, least=0.5, rank=rank, ranks=ranks)
        loader = DataLoader(patches, batch_size=None, num_workers=workers)
        parts += [place(item) for item in loader]
    assert sorted(parts) == whole


@pytest.mark.parametrize(("count", "ranks", "workers"), [(10, 1, 0), (200, 1, 2), (64, 2, 0), (90, 30, 0)])
def test_a_count_is_kept_by_every_rank(count, ranks, workers, url):
    found = set()
    for rank in range(ranks):
        patches = CubePatches(url, 32, least=0.5, count=count, rank=rank, ranks=ranks)
        items = list(DataLoader(patches, batch_size=None, num_workers=workers))
        assert len(items) == count // ranks
        found |= {place(item) for item in items}
    assert len(found) > 8


def test_ranks_are_those_of_the_environment(url, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    patches = CubePatches(url, 32)
    assert (patches.rank, patches.ranks) == (1, 4)
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ConfigError, match="RANK and WORLD_SIZE"):
        CubePatches(url, 32)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_from_an_object_store(context, url, capsys):
    with serve(Path(url).parent.parent) as bucket:
        cube = open_cube(f"s3://{Path(url).parent.name}/cube.zarr", bucket.s3fs_options)
        patches = CubePatches(cube, 32, least=0.5, bands=["B02"], periods="2023-02")
        before = [place(item) for item in CubePatches(cube, 32, least=0.5, periods="2023-02")]  # connections to inherit
        bucket.counted()
        loader = DataLoader(patches, batch_size=4, num_workers=2, multiprocessing_context=context)
        batches = list(loader)
        counted = bucket.counted()
    found = [at for batch in batches for at in zip(*(_plain(batch[name]) for name in AT), strict=True)]
    assert sorted(found) == sorted(before)
    assert batches[0]["reflectance"].shape == (4, 1, 32, 32)
    with capsys.disabled():
        print(f"\n{len(found)} patches on S3, two workers ({context}): {len(counted.requests)} requests")


def test_items_may_be_changed_on_the_way(url):
    pairs = CubePatches(url, 32, least=0.5, transform=lambda item: (item["reflectance"].mean(), item["zone"]))
    mean, zone = next(iter(pairs))
    assert 0 < float(mean) < 1
    assert zone in ZONES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 48}, "found 48, expected a divisor of the chunks' 32 pixels"),
        ({"size": 0}, "found 0"),
        ({"size": 96}, "that divides the shards' 64"),
        ({"bands": ["B10"]}, "there is no 'B10'"),
        ({"periods": "2020-01"}, "has no '2020-01'"),
        ({"quality": ["clean"]}, "there is no 'clean'; there are clear, filled"),
        ({"least": 1.5}, "expected a share"),
        ({"labels": ["looks"]}, "has no 'looks'"),
        ({"rank": 2, "ranks": 2}, "expected a number below another"),
        ({"rank": 2}, "expected a number below another"),
        ({"count": 3, "rank": 0, "ranks": 4}, "at least one for each of 4 ranks"),
    ],
)
def test_what_is_not_understood_is_said_in_a_line(options, words, url):
    with pytest.raises(ConfigError, match=words):
        CubePatches(url, **{"size": 32, **options})


@pytest.mark.parametrize("count", [None, 5])
def test_no_patch_with_enough_ground_is_nothing_or_an_error(count, url):
    patches = CubePatches(url, 64, quality=["failed"], count=count)
    if count is None:
        assert list(patches) == []
    else:
        with pytest.raises(ConfigError, match="no patch of 64 pixels has 90% of failed ground; lower `least`"):
            next(iter(patches))


def test_a_damaged_chunk_is_named(url, tmp_path):
    shutil.copytree(url, tmp_path / "cube.zarr")
    for path in (tmp_path / "cube.zarr").glob("32632/0/reflectance/c/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-40] + b"\x00" * 40)
    with pytest.raises(StoreError, match="32632/0/reflectance: cannot be read"):
        list(CubePatches(str(tmp_path / "cube.zarr"), 32))
