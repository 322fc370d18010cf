"""Ground is told from cloud by a table of makers; cloud and shadow grow by metres."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from masked_scenes import SIDE_M, clouded, window
from numpy.typing import NDArray
from stac_items import ES, ES_C1, PC, item, made_item, needs_items

from difffusr.pipeline.config.sections import ScenesSection
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import CLEAR_CLASSES, UNMEASURED, Quality
from difffusr.pipeline.scenes import masks, network_mask
from difffusr.pipeline.scenes.chip import read_chip, unreadable
from difffusr.pipeline.scenes.item import scene_from_item
from difffusr.pipeline.scenes.mask_classes import Mask, MaskClass
from difffusr.pipeline.scenes.masks import MAKERS, classes_of_scl, grown, mask_overview, mask_window
from difffusr.pipeline.scenes.rules import ChipRules

N = SIDE_M // 20
CLEAR, CLOUD, SHADOW = MaskClass.CLEAR, MaskClass.CLOUD, MaskClass.SHADOW


def test_the_configuration_offers_every_maker() -> None:
    assert set(get_args(ScenesSection.model_fields["masks"].annotation)) == set(MAKERS)


def shown(scl: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a classification shows the ground."""
    return np.isin(scl, CLEAR_CLASSES)


# ---- growing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [20, 31, 60, 120])
@pytest.mark.parametrize("metres", [0, 5, 15, 20, 47, 60, 100, 250, 600])
def test_a_straight_border_moves_by_the_distance_to_half_a_pixel(metres: float, step: float) -> None:
    for turn, (cloud, shadow) in itertools.product((0, 1), ((metres, 0), (0, metres))):
        classes = np.full((90, 90), CLEAR, np.uint8)
        classes[:, :40] = CLOUD if cloud else SHADOW
        found = grown(np.rot90(classes, turn), step, cloud, shadow)
        moved = (int((np.rot90(found, -turn)[45] != CLEAR).sum()) - 40) * step
        assert abs(moved - metres) <= step / 2


@pytest.mark.parametrize("radius", [0.0, 0.49, 0.5, 1.0, 1.2, 2.0, 3.3, 7.0, 15.0, 40.0])
def test_every_pixel_within_the_distance_is_reached_and_no_other(radius: float) -> None:
    rng = np.random.default_rng(int(radius * 10))
    classes = np.where(rng.random((37, 53)) < 0.004, CLOUD, CLEAR).astype(np.uint8)
    classes[0, 0] = classes[36, 52] = CLOUD
    places = np.argwhere(classes == CLOUD)
    rows, cols = np.indices(classes.shape)
    nearest = np.min([(rows - r) ** 2 + (cols - c) ** 2 for r, c in places], axis=0)
    reached = nearest <= (radius + 0.5) ** 2
    assert np.array_equal(grown(classes, 20, 20 * radius, 0) == CLOUD, reached)


@pytest.mark.parametrize(("cloud", "shadow"), [(60, 0), (0, 60), (60, 60), (200, 20), (20, 200)])
def test_cloud_grows_over_shadow_and_neither_over_what_was_not_measured(cloud: float, shadow: float) -> None:
    rng = np.random.default_rng(1)
    classes = rng.choice(np.array(list(MaskClass), np.uint8), (60, 60), p=[0.1, 0.5, 0.15, 0.15, 0.1])
    found = grown(classes, 20, cloud, shadow)
    for kept in (MaskClass.NO_DATA, MaskClass.DEFECTIVE):
        assert np.array_equal(found == kept, classes == kept)
    assert (found[classes == CLOUD] == CLOUD).all()
    assert ((found == CLOUD) >= (grown(classes, 20, cloud, 0) == CLOUD)).all()
    assert ((found == CLEAR) <= (classes == CLEAR)).all()


def test_nothing_grows_by_nothing() -> None:
    classes = np.arange(5, dtype=np.uint8).repeat(5).reshape(5, 5)
    assert grown(classes, 20, 0, 0) is classes


# ---- by the scene classification ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_class_shows_the_ground_or_not_as_ever(dtype: Any) -> None:
    scl = np.arange(256, dtype=dtype).reshape(16, 16)
    found = classes_of_scl(scl)
    assert np.array_equal(found == CLEAR, shown(scl))
    assert np.array_equal(found != MaskClass.NO_DATA, scl > 0)


def test_what_is_outside_the_file_is_no_data() -> None:
    assert classes_of_scl(np.array([UNMEASURED, 9, 3], np.uint16)).tolist() == [MaskClass.NO_DATA, CLOUD, SHADOW]


def drawn(seed: int = 0, side: int = N, size: int = 7, holes: bool = False) -> NDArray[np.uint8]:
    """A classification with clouds, shadows, water and, where asked for, holes."""
    rng = np.random.default_rng(seed)
    classes = np.full((side, side), 4, np.uint8)
    for value in (3, 8, 9, 10, 3, 6, 9, *((0, 1) if holes else ())):
        row, col = rng.integers(0, side - size, 2)
        classes[row : row + size, col : col + size] = value
    return classes


@pytest.mark.parametrize("seed", range(5))
def test_without_growth_chips_are_as_before_and_nothing_more_is_read(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scl = drawn(seed)
    scene = clouded(tmp_path / "a", scl, 100 * (scl > 7))
    asked = []

    def read(scene: Any, band: str, window: Any) -> Any:
        asked.append((band, window))
        return real(scene, band, window)

    real = masks.read_window
    monkeypatch.setattr(masks, "read_window", read)
    here = window(480, 960, 1920)
    chip = read_chip(here, [scene], ChipRules())
    assert asked == [("SCL", here)]
    part = scl[48:144, 24:120]
    assert np.array_equal(chip.quality[::2, ::2], np.where(shown(part), Quality.CLEAR, Quality.CLOUDY))
    assert np.array_equal(chip.scl, part)


# ---- windows --------------------------------------------------------------------------------------------------------


def network_scene(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scene for which a stand-in of the network finds cloud where it is bright, and shadow where it is dark."""

    def bright(image: Any) -> NDArray[np.uint8]:
        blue = image["blue"]
        return np.where(blue > 0.6, 1, np.where(blue < 0.1, 2, 0)).astype(np.uint8)

    monkeypatch.setattr(network_mask, "run_network", bright)
    network_mask._fetched.cache_clear()
    scl = drawn(seed)
    dn = np.select([scl > 7, scl == 3], [8000, 500], 3000).repeat(2, axis=0).repeat(2, axis=1)
    return clouded(folder, scl, bands={"B02": dn})


MADE = {
    "scl": {},
    "asset of 20 m": {"masks": "asset"},
    "asset of 60 m": {"masks": "asset"},
    "csmask": {"masks": "csmask", "mask_version": "1"},
}


def scene_for(made: str, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    if made == "csmask":
        return network_scene(folder, seed, monkeypatch)
    scl = drawn(seed, holes=True)
    step = 3 if made.endswith("60 m") else 1
    return clouded(folder, scl, (90 * (scl > 7))[::step, ::step], cld_m=20 * step)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(("cloud", "shadow"), [(0, 0), (20, 0), (0, 100), (130, 60), (700, 700)])
def test_windows_agree_where_they_overlap(
    tmp_path: Path, made: str, cloud: float, shadow: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scene_for(made, tmp_path / "a", 3, monkeypatch)
    rules = ChipRules(**MADE[made], dilate_cloud_m=cloud, dilate_shadow_m=shadow)
    whole = mask_window(scene, window(), rules)
    assert whole.clear is not None
    assert 0 < whole.clear.mean() < 1
    for east, south, side in ((0, 0, 1200), (1080, 960, 1200), (2400, 60, 1200), (600, 1800, 1740)):
        part = mask_window(scene, window(east, south, side), rules)
        inside = np.s_[south // 20 : (south + side) // 20, east // 20 : (east + side) // 20]
        assert np.array_equal(part.clear, whole.clear[inside])
        assert np.array_equal(part.scl, whole.scl[inside])


@pytest.mark.parametrize("made", MADE)
def test_beyond_the_scene_is_no_data_and_no_cloud(tmp_path: Path, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_for(made, tmp_path / "a", 1, monkeypatch)
    rules = ChipRules(**MADE[made], dilate_cloud_m=100, dilate_shadow_m=100)
    inside = mask_window(scene, window(), rules).clear
    around = mask_window(scene, window(-600, -600, SIDE_M + 1200), rules).clear
    assert np.array_equal(around[30:-30, 30:-30], inside)
    assert int(around.sum()) == int(inside.sum())
    nowhere = mask_window(scene, window(SIDE_M + 600, 0, 600), rules).clear
    assert not nowhere.any()


def test_a_cloud_beyond_the_window_grows_into_it(tmp_path: Path) -> None:
    scl = np.full((N, N), 4)
    scl[60:90, 49] = 9  # its western border at 980 m, its eastern one at 1000 m
    scene = clouded(tmp_path / "a", scl)
    for metres, columns in ((0, 0), (20, 0), (40, 1), (60, 2), (100, 4)):
        clear = mask_window(scene, window(1020, 1200, 600), ChipRules(dilate_cloud_m=metres)).clear
        assert (~clear[15]).sum() == columns


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("step", [60, 120])
def test_planning_and_reading_see_the_same_clouds(
    tmp_path: Path, made: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample is the pixel nearest to a cell's centre: of an even number of pixels the one to the south-east."""
    scene = scene_for(made, tmp_path / "a", 2, monkeypatch)
    rules = ChipRules(**MADE[made])
    mask = mask_overview(scene, step, rules)
    side = step // 20
    read = mask_window(scene, window(), rules).clear[side // 2 :: side, side // 2 :: side]
    assert mask.classes.shape == read.shape
    assert np.array_equal(mask.classes == CLEAR, read)


# ---- by the item's own cloud probability ----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 39.5, 40, 99, 100])
def test_more_than_the_limit_is_cloud(tmp_path: Path, limit: float) -> None:
    percent = np.arange(N * N).reshape(N, N) % 101
    scene = clouded(tmp_path / "a", np.full((N, N), 4), percent)
    rules = ChipRules(masks="asset", max_cloud_probability=limit)
    assert np.array_equal(mask_window(scene, window(), rules).clear, percent <= limit)
    cells = mask_overview(scene, 60, rules).classes == CLOUD
    assert np.array_equal(cells, percent[1::3, 1::3] > limit)


@pytest.mark.parametrize("cld_m", [20, 60])
def test_the_probability_decides_on_cloud_and_the_classification_on_the_rest(tmp_path: Path, cld_m: int) -> None:
    scl = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).repeat(N // 12)[:, None].repeat(N, axis=1)
    for percent, more in ((0, (8, 9, 10)), (80, ())):
        scene = clouded(tmp_path / str(percent), scl, np.full((SIDE_M // cld_m,) * 2, percent), cld_m=cld_m)
        clear = mask_window(scene, window(), ChipRules(masks="asset")).clear
        seen = set(np.unique(scl[clear]).tolist())
        assert seen == (set() if percent else {2, 4, 5, 6, 7, 11, *more})
        cells = mask_overview(scene, 60, ChipRules(masks="asset")).classes[:, 5]
        assert set(np.unique(scl[1::3, 5][cells == MaskClass.NO_DATA])) == {0}
        assert set(np.unique(scl[1::3, 5][cells == MaskClass.DEFECTIVE])) == {1}


@pytest.mark.parametrize("unknown", [101, 200, 255])
def test_where_there_is_no_probability_the_classification_decides(tmp_path: Path, unknown: int) -> None:
    scl = drawn(4, holes=True)
    scene = clouded(tmp_path / "a", scl, np.full((N, N), unknown))
    by_asset, by_scl = (mask_window(scene, window(), ChipRules(masks=name)).clear for name in ("asset", "scl"))
    assert np.array_equal(by_asset, by_scl)


def test_a_probability_of_half_a_scene_leaves_the_rest_to_the_classification(tmp_path: Path) -> None:
    scl = np.full((N, N), 9)
    scene = clouded(tmp_path / "a", scl, np.zeros((N, N // 2)))
    clear = mask_window(scene, window(), ChipRules(masks="asset")).clear
    assert clear[:, : N // 2].all()
    assert not clear[:, N // 2 :].any()
    cells = mask_overview(scene, 60, ChipRules(masks="asset")).classes
    assert np.array_equal(cells == CLEAR, np.arange(60) < 30 * np.ones((60, 1)))


@pytest.mark.parametrize("scl", [True, False])
@pytest.mark.parametrize("cld", [True, False])
def test_what_a_scene_lacks_is_done_without(tmp_path: Path, scl: bool, cld: bool) -> None:
    classes = drawn(6)
    scene = clouded(tmp_path / "a", classes if scl else None, 90 * (classes == 9) if cld else None)
    rules = ChipRules(masks="asset")
    assert MAKERS["asset"].judges(scene) == (scl or cld)
    clear = mask_window(scene, window(), rules).clear
    chip = read_chip(window(), [scene], rules)
    if not (scl or cld):
        assert clear is None
        assert (chip.quality == Quality.CLEAR).all()
        return
    expected = shown(classes) if not cld else (classes != 9) if not scl else ~np.isin(classes, (3, 9))
    assert np.array_equal(clear, expected)
    assert np.array_equal(chip.quality[::2, ::2] == Quality.CLEAR, expected)
    assert chip.scl.any() == scl


def test_cloudy_follows_the_mask_and_what_is_skipped_the_classification(tmp_path: Path) -> None:
    scene = clouded(tmp_path / "a", np.full((N, N), 6), np.full((N, N), 90))
    chip = read_chip(window(), [scene], ChipRules(masks="asset"))
    assert (chip.quality == Quality.CLOUDY).all()
    assert chip.shows_only((6,))
    assert not read_chip(window(), [scene], ChipRules(masks="asset", allow_cloudy=False)).quality.any()


# ---- names in real items --------------------------------------------------------------------------------------------


@needs_items
@pytest.mark.parametrize(
    ("name", "end"),
    [
        (ES_C1, "/CLD_20m.tif"),
        ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T20EPT", "/CLD_20m.tif"),
        ("earthsearch_v1_sentinel-2-l2a_S2B_20EPT", "/qi/CLD_20m.jp2"),
        ("cdse_v1_S2C_T55WFR", "/QI_DATA/MSK_CLDPRB_20m.jp2"),
        ("cdse_v1_S2B_T36NYH", None),
        (ES, None),
        (PC, None),
        ("stactools_S2A_T01KAB", None),
    ],
)
def test_the_probability_is_found_under_every_providers_name(name: str, end: str | None) -> None:
    scene = scene_from_item(item(name), "https://somewhere.org/items/i.json", remote=True)
    if end is None:
        assert scene.cloud is None
    else:
        assert scene.cloud is not None
        assert scene.cloud.href.endswith(end)
        assert (scene.cloud.gsd_m, scene.cloud.offset_dn) == (20, 0)


def probability(key: str, href: str = "/d/x.tif", **more: Any) -> dict[str, Any]:
    return {key: {"href": href, "type": "image/tiff; application=geotiff", **more}}


@pytest.mark.parametrize(
    ("assets", "key"),
    [
        (probability("MSK_CLDPRB_20m"), "MSK_CLDPRB_20m"),
        (probability("MSK_CLDPRB_60m"), "MSK_CLDPRB_60m"),
        (probability("MSK_CLDPRB_60m") | probability("MSK_CLDPRB_20m"), "MSK_CLDPRB_20m"),
        (probability("msk_cldprb_20m"), "msk_cldprb_20m"),
        (probability("CLD_60m") | probability("CLD_20m"), "CLD_20m"),
        (probability("cloud") | probability("cloud-jp2") | probability("snow"), "cloud"),
        (probability("cloud", "/d/CLD_20m.tif"), "cloud"),
        (probability("cloud", "/d/MSK_CLDPRB_60m.tif") | probability("CLD_20m"), "CLD_20m"),
        (probability("MSK_SNWPRB_20m") | probability("snow") | probability("clouds"), None),
        ({"cloud": {"href": "/d/cloud.json", "type": "application/json"}}, None),
        (probability("CLD_10m"), None),
    ],
)
def test_one_file_of_the_probability_is_taken(assets: dict[str, Any], key: str | None) -> None:
    one = made_item()
    for name, asset in assets.items():
        one["assets"][name] = {**asset, "href": asset["href"].replace("x.tif", f"{name}.tif")}
    scene = scene_from_item(one, "/d/i.json")
    assert (None if scene.cloud is None else scene.cloud.href) == (None if key is None else one["assets"][key]["href"])


@pytest.mark.parametrize(
    "change",
    [
        {"href": "/etc/passwd.tif"},  # a file of this machine, from another
        {"href": "http://[bad/CLD.tif"},
        {"href": "CLD\x00.tif"},
        {"proj:transform": [20, 0, 0, 0, -20, 0]},
        {"proj:shape": [1, 1]},
    ],
)
def test_a_bad_probability_costs_no_scene_and_changes_no_key(change: dict[str, Any]) -> None:
    address = "https://somewhere.org/i.json"
    one = made_item()
    for asset in one["assets"].values():
        asset["href"] = "https://somewhere.org" + asset["href"]
    doubted: list[str] = []
    without = scene_from_item(one, address, remote=True, doubt=doubted.append)
    one["assets"] |= probability("cloud", "https://somewhere.org/CLD_20m.tif")
    one["assets"]["cloud"] |= change
    scene = scene_from_item(one, address, remote=True, doubt=doubted.append)
    assert replace(scene, cloud=None) == without
    assert scene.version_key() == without.version_key()
    assert doubted == []


# ---- files that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"no raster", None])
def test_a_probability_that_cannot_be_read_is_named_as_its_scenes_fault(tmp_path: Path, damage: bytes | None) -> None:
    scene = clouded(tmp_path / "a", drawn(), np.zeros((N, N)))
    file = Path(scene.file("CLD").href)
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    rules = ChipRules(masks="asset")
    for ask in (lambda: mask_window(scene, window(), rules), lambda: mask_overview(scene, 120, rules)):
        with pytest.raises(ReadError, match=r"scene a, CLD: .*CLD\.tif"):
            ask()
    (broken,) = unreadable(window(), [scene], rules)
    assert (broken.scene, broken.band) == ("a", "CLD")
    assert unreadable(window(), [scene], ChipRules()) == []
    assert read_chip(window(), [scene], ChipRules()).quality.any()


def test_a_mask_at_another_step_has_the_cells_nearest_to_the_centres() -> None:
    classes = np.arange(20, dtype=np.uint8).reshape(4, 5)
    found = Mask(classes, 7, 3, 60).at(120)
    assert (found.row, found.col, found.step_m) == (3, 1, 120)
    # Cells 7 | 8 9 | 10 from 7 on, and 3 | 4 5 | 6 7 from 3 on; of two the second is nearest.
    assert found.classes.tolist() == classes[np.ix_([0, 2, 3], [0, 2, 4])].tolist()
    assert Mask(classes, 7, 3, 60).at(60).classes is classes
