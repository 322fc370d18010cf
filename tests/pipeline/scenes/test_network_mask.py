"""A network's masks are made once, kept, and the same for whoever reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_masks import ALBERTA, LABELLED, Counts, alberta, coarser, finer, labelled
from masked_scenes import SIDE_M, clouded, window
from numpy.typing import NDArray

from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.scenes import csmask, network_mask
from difffusr.pipeline.scenes.chip import read_chip, unreadable
from difffusr.pipeline.scenes.csmask import network_version, run_network
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.mask_classes import MaskClass
from difffusr.pipeline.scenes.masks import MASK, mask_overview, mask_window
from difffusr.pipeline.scenes.network_mask import STEP_M, made_mask, mask_of
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.storage.objects import Storage

needs_network = pytest.mark.skipif(not network_version(), reason="ukis-csmask is not installed")

CELLS = SIDE_M // STEP_M


@dataclass
class StandIn:
    """Finds cloud where blue is bright, shadow where it is dark; counts how often it is asked, and with what bands."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    images: list[Mapping[str, NDArray[np.float32]]] = field(default_factory=list)

    def __call__(self, image: Mapping[str, NDArray[np.float32]]) -> NDArray[np.uint8]:
        self.asked.append(tuple(image))
        self.images.append(image)
        blue = image["blue"]
        return np.where(blue > 0.6, 1, np.where(blue < 0.1, 2, 0)).astype(np.uint8)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for the network, where a test does not ask `run_network` itself."""
    made = StandIn()
    monkeypatch.setattr(network_mask, "run_network", made)
    another_process()
    yield made
    another_process()


def another_process() -> None:
    """Forget what this process has in memory."""
    network_mask._fetched.cache_clear()


def blue(seed: int = 0) -> NDArray[np.int64]:
    """(h, w) DN of B02 whose blocks of 60 m have one value each."""
    cells = np.random.default_rng(seed).choice([500, 3000, 8000], (CELLS, CELLS), p=[0.1, 0.8, 0.1])
    return cells.repeat(6, axis=0).repeat(6, axis=1)


def scene_of(folder: Path, seed: int = 0, **bands: NDArray[Any]) -> Scene:
    return clouded(folder / "a", np.full((SIDE_M // 20,) * 2, 4), bands={"B02": blue(seed), **bands})


def rules_of(folder: Path | None, version: str = "1") -> ChipRules:
    kept = Storage(str(folder / "staging")) if folder else None
    return ChipRules(masks="csmask", mask_version=version, kept=kept)


def objects(folder: Path) -> list[Path]:
    return sorted((folder / "staging").rglob("*.npz"))


def test_a_mask_is_made_once_and_kept(tmp_path: Path, network: StandIn) -> None:
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)
    first = mask_of(scene, rules)
    assert mask_of(scene, rules) is first
    another_process()
    again = mask_of(scene, rules)
    assert len(network.asked) == 1
    assert np.array_equal(again.classes, first.classes)
    assert again[1:] == first[1:]
    (kept,) = objects(tmp_path)
    assert kept.parent.name == "masks"
    assert kept.stat().st_size < 5000


def test_cells_have_the_class_of_their_pixels(tmp_path: Path) -> None:
    mask = mask_of(scene_of(tmp_path), rules_of(tmp_path))
    dn = blue()[::6, ::6]
    expected = np.select([dn == 8000, dn == 500], [MaskClass.CLOUD, MaskClass.SHADOW], MaskClass.CLEAR)
    assert np.array_equal(mask.classes, expected)
    clear = mask_window(scene_of(tmp_path), window(), rules_of(tmp_path)).clear
    assert np.array_equal(clear, (blue() == 3000)[::2, ::2])


@pytest.mark.parametrize(
    "change",
    [
        {"updated": "2024-01-01T00:00:00Z"},
        {"baseline": "05.11"},
        {"id": "other"},
        {"collection": "sentinel-2-c1-l2a"},
    ],
)
def test_another_version_of_a_scene_has_a_mask_of_its_own(
    tmp_path: Path, change: dict[str, Any], network: StandIn
) -> None:
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)
    for one in (scene, replace(scene, **change), scene):
        mask_of(one, rules)
    assert len(objects(tmp_path)) == len(network.asked) == 2


def test_another_version_of_the_network_makes_masks_of_its_own(tmp_path: Path, network: StandIn) -> None:
    for version in ("1", "2", "1"):
        mask_of(scene_of(tmp_path), rules_of(tmp_path, version))
    assert len(objects(tmp_path)) == len(network.asked) == 2


def packed(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


SOUND = {"classes": np.ones((CELLS, CELLS), np.uint8), "place": np.array([1, 2, STEP_M])}

DAMAGES = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "a byte short": lambda data: data[:-1],
    "a byte flipped": lambda data: data[:120] + bytes([data[120] ^ 255]) + data[121:],
    "a web page": lambda data: b"<html>503</html>",
    "no array": lambda data: packed(place=SOUND["place"]),
    "another type": lambda data: packed(**{**SOUND, "classes": np.ones((3, 3))}),
    "unknown classes": lambda data: packed(**{**SOUND, "classes": np.full((3, 3), 9, np.uint8)}),
    "one dimension": lambda data: packed(**{**SOUND, "classes": np.ones(3, np.uint8)}),
    "no cells": lambda data: packed(**{**SOUND, "classes": np.ones((0, 3), np.uint8)}),
    "another step": lambda data: packed(**{**SOUND, "place": np.array([1, 2, 30])}),
    "no place": lambda data: packed(**{**SOUND, "place": np.array([1])}),
    "objects": lambda data: packed(**{**SOUND, "classes": np.array([{"a": 1}], object)}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_mask_is_made_again(tmp_path: Path, damage: str, network: StandIn, caplog: Any) -> None:
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)
    first = mask_of(scene, rules)
    (kept,) = objects(tmp_path)
    sound = kept.read_bytes()
    kept.write_bytes(DAMAGES[damage](sound))
    another_process()
    assert np.array_equal(mask_of(scene, rules).classes, first.classes)
    assert len(network.asked) == 2
    assert "is damaged: the mask of a is made again" in caplog.text
    another_process()
    mask_of(scene, rules)
    assert len(network.asked) == 2


def test_of_two_that_make_a_mask_both_have_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)

    def slow(image: Any) -> NDArray[np.uint8]:
        """Another process is done first, and its network was of another mind."""
        monkeypatch.setattr(network_mask, "run_network", lambda image: np.ones(image["blue"].shape, np.uint8))
        network_mask._fetched.__wrapped__(wanted)
        return np.zeros(image["blue"].shape, np.uint8)

    name = f"masks/{scene.version_key()[:32]}-csmask-1-{STEP_M}m.npz"
    assert rules.kept is not None
    wanted = network_mask._Wanted(name, rules.kept.url, scene, rules.kept)
    monkeypatch.setattr(network_mask, "run_network", slow)
    assert (mask_of(scene, rules).classes == MaskClass.CLOUD).all()


def test_without_a_folder_to_write_to_masks_are_made_all_the_same(tmp_path: Path, network: StandIn) -> None:
    (tmp_path / "staging").write_text("a file, not a folder")
    scene = scene_of(tmp_path)
    for rules in (rules_of(tmp_path), rules_of(None)):
        another_process()
        assert mask_of(scene, rules).classes.any()
    assert len(network.asked) == 2


# ---- what the network is shown --------------------------------------------------------------------------------------


def test_the_network_sees_reflectance_without_offset(tmp_path: Path, network: StandIn) -> None:
    scene = scene_of(tmp_path, B12=np.full((SIDE_M // 20,) * 2, 500))
    assets = {name: replace(asset, offset_dn=-1000) for name, asset in scene.assets.items()}
    made_mask(replace(scene, assets=assets))
    (image,) = network.images
    assert tuple(image) == ("blue", "green", "red", "nir", "swir16", "swir22")
    assert image["green"].dtype == np.float32
    assert np.allclose(image["green"], 0.2)
    assert np.allclose(image["swir22"], 0)
    assert np.unique(image["blue"]).tolist() == pytest.approx([0.0, 0.2, 0.7])


@pytest.mark.parametrize("lacking", [("B11",), ("B12",), ("B11", "B12")])
def test_without_short_wave_infrared_a_network_of_four_bands_is_asked(
    tmp_path: Path, lacking: tuple[str, ...], network: StandIn
) -> None:
    scene = scene_of(tmp_path)
    made_mask(replace(scene, assets={k: asset for k, asset in scene.assets.items() if k not in lacking}))
    assert network.asked == [("blue", "green", "red", "nir")]


@pytest.mark.parametrize("lacking", ["B02", "B03", "B04", "B08"])
def test_a_scene_without_a_visible_band_is_not_masked(tmp_path: Path, lacking: str) -> None:
    scene = scene_of(tmp_path)
    with pytest.raises(ReadError, match=f"scene a: csmask needs {lacking}, which it lacks"):
        made_mask(replace(scene, assets={k: asset for k, asset in scene.assets.items() if k != lacking}))


def test_beyond_the_swath_is_no_data_and_the_network_is_spared(tmp_path: Path, network: StandIn) -> None:
    east = {name: np.full((SIDE_M // gsd,) * 2, 3000) for name, gsd in (("B02", 10), ("B03", 10), ("B11", 20))}
    for band in east.values():
        band[:, : band.shape[1] // 2] = 0
    mask = made_mask(scene_of(tmp_path, **east))
    assert network.images[0]["blue"].shape == (CELLS, CELLS // 2)
    assert (mask.classes[:, : CELLS // 2] == MaskClass.NO_DATA).all()
    assert (mask.classes[:, CELLS // 2 :] == MaskClass.CLEAR).all()


def test_of_a_scene_without_data_the_network_is_not_asked(tmp_path: Path, network: StandIn) -> None:
    mask = made_mask(scene_of(tmp_path, B02=np.zeros((SIDE_M // 10,) * 2)))
    assert not mask.classes.any()
    assert not network.asked


def test_a_scene_whose_bands_cannot_be_read_is_named(tmp_path: Path) -> None:
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)
    Path(scene.assets["B11"].href).write_bytes(b"no raster")
    for ask in (lambda: mask_overview(scene, 120, rules), lambda: mask_window(scene, window(), rules)):
        with pytest.raises(ReadError, match=r"scene a, B11: .*B11\.tif"):
            ask()
    (broken,) = unreadable(window(), [scene], rules)
    assert (broken.scene, broken.band) == ("a", "B11")
    assert objects(tmp_path) == []


def test_a_mask_that_cannot_be_made_is_its_scenes_fault_though_every_window_is_read(tmp_path: Path) -> None:
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)
    scene = replace(scene, assets={k: asset for k, asset in scene.assets.items() if k != "B04"})
    (broken,) = unreadable(window(), [scene], rules)
    assert (broken.scene, broken.band) == ("a", MASK)
    assert "csmask needs B04" in broken.why


def test_chips_have_cloud_where_the_network_sees_it(tmp_path: Path) -> None:
    scene = scene_of(tmp_path)
    chip = read_chip(window(), [scene], rules_of(tmp_path))
    assert np.array_equal(chip.quality == 1, blue() == 3000)
    grown = read_chip(window(), [scene], replace(rules_of(tmp_path), dilate_cloud_m=60, dilate_shadow_m=60))
    assert 0 < (grown.quality == 1).sum() < (chip.quality == 1).sum()


# ---- the package ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["ukis_csmask", "onnxruntime"])
def test_the_extra_is_named_where_the_package_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csmask, "_is_installed", lambda module: module != missing)
    with pytest.raises(ConfigError) as caught:
        run_network({"blue": np.zeros((4, 4), np.float32)})
    assert str(caught.value).endswith("pip install 'difffusr[csmask]'")
    assert "\n" not in str(caught.value)


def test_a_kept_mask_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have the network's version from who planned."""
    scene, rules = scene_of(tmp_path), rules_of(tmp_path)
    first = mask_of(scene, rules)
    another_process()
    monkeypatch.setattr(csmask, "_is_installed", lambda module: False)
    monkeypatch.setattr(network_mask, "run_network", run_network)
    assert np.array_equal(mask_of(scene, rules).classes, first.classes)
    with pytest.raises(ConfigError, match=r"difffusr\[csmask\]"):
        mask_of(replace(scene, id="another"), rules)
    with pytest.raises(ConfigError, match=r"difffusr\[csmask\]"):
        mask_of(scene, ChipRules.of({"masks": "csmask"}, rules.kept))


@needs_network
@pytest.mark.parametrize("shape", [(300, 40), (17, 9), (256, 256), (257, 300)])
def test_an_image_of_any_size_is_masked_and_always_the_same(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = {name: rng.random(shape, dtype=np.float32) for name in ("blue", "green", "red", "nir")}
    found = run_network(image)
    assert found.shape == shape
    assert found.max() <= 2
    assert np.array_equal(run_network(image), found)


@needs_network
@pytest.mark.skipif(not ALBERTA.is_dir(), reason=f"the drawn shadows are not at {ALBERTA}")
def test_the_network_finds_shadow_better_than_the_classification() -> None:
    """On images of 60 m as a plan has them, by the network of four bands: the drawn images have no more."""
    ours = scl = Counts(0, 0, 0)
    for day in alberta():
        found = finer(run_network(coarser(day.image, 2)), 2, day.shadow.shape)
        ours += Counts.of(found == 2, day.shadow)
        scl += Counts.of(day.scl == 3, day.shadow)
    assert scl.f1 > 0.3
    assert ours.f1 >= scl.f1 + 0.10


@needs_network
@pytest.mark.skipif(not LABELLED.is_file(), reason=f"the labelled image is not at {LABELLED}")
def test_the_network_of_six_bands_finds_what_people_labelled() -> None:
    truth = labelled()
    found = run_network(truth.image)
    assert Counts.of(found == 1, truth.cloud).f1 > 0.8
    assert Counts.of(found == 2, truth.shadow).f1 > 0.75
