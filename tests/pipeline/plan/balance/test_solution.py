"""What is done to every scene of a made-up world whose truth is known: made, kept, used again, told."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configs import written

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import RunConfig, load_config
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.balance import solution
from difffusr.pipeline.plan.balance.solution import Balanced, balance, read_balance, write_balance
from difffusr.pipeline.plan.decision import decide, plan_run
from difffusr.pipeline.plan.files import read_plan
from difffusr.pipeline.scenes import Scene, find_scenes
from difffusr.pipeline.scenes.synthetic import TwoOrbits, write_two_orbits
from difffusr.pipeline.storage import Storage, staging_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TwoOrbits:
    return write_two_orbits(tmp_path_factory.mktemp("world"), size_m=(3000, 3660))


def configured(world: TwoOrbits, folder: Path, **scenes: Any) -> RunConfig:
    folder.mkdir(parents=True, exist_ok=True)
    sections = {
        "area": {"bbox": list(world.bbox)},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "store": {"url": str(folder / "cube.zarr")},
        "model": {"sampler": "draft"},
    }
    return load_config(written(folder, scenes={"balance": "full", **scenes}, **sections))


@pytest.fixture(scope="module")
def made(world: TwoOrbits, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Scene], Balanced]:
    config = configured(world, tmp_path_factory.mktemp("made"))
    scenes = find_scenes(config)
    found = balance(config, scenes, Storage(str(tmp_path_factory.mktemp("plan"))))
    assert found is not None
    return scenes, found


def test_the_haze_that_was_put_in_is_what_is_taken_out(world: TwoOrbits, made) -> None:
    _, found = made
    blue = BANDS.index("B02")
    usual = [name for name in found.correction if not found.correction[name].hazy]
    put = np.array([world.conditions[name].haze_blue for name in usual]) * 10_000
    out = np.array([-found.shift[name][blue] for name in usual])
    assert np.corrcoef(put, out)[0, 1] > 0.95
    np.testing.assert_allclose(out - out.mean(), put - put.mean(), atol=40)


def test_what_haze_hides_from_the_classification_is_used_last(world: TwoOrbits, made) -> None:
    _, found = made
    hazy = {name for name, one in found.correction.items() if one.hazy}
    assert hazy == {name for name, went in world.conditions.items() if went.haze_blue > 0.04}


def test_scenes_differ_less_after_it(made) -> None:
    _, found = made
    usual = [name for name, one in found.correction.items() if not one.hazy]
    before, after = (np.nanmedian([values[name] for name in usual], axis=0) for values in (found.before, found.after))
    assert (after < 25).all()
    assert (after[[BANDS.index(band) for band in ("B02", "B03", "B04")]] < before[[1, 2, 3]] / 2).all()


def test_the_mean_of_all_scenes_stays(made) -> None:
    _, found = made
    usual = [name for name, one in found.correction.items() if not one.hazy]
    assert np.abs(np.mean([found.shift[name] for name in usual], axis=0)).max() < 1


def test_kept_and_read_again_it_is_the_same_to_the_bit(made, tmp_path: Path) -> None:
    scenes, found = made
    plan = Storage(str(tmp_path))
    write_balance(found, plan)
    again = read_balance(plan)
    assert again is not None
    assert again.fingerprint == found.fingerprint
    assert {name: one.key() for name, one in again.correction.items()} == {
        name: one.key() for name, one in found.correction.items()
    }
    for one, other in zip(found.applied_to(scenes), again.applied_to(scenes), strict=True):
        assert one.pixels_key() == other.pixels_key() != one.version_key()
    assert again.to_parquet() == found.to_parquet()
    write_balance(None, plan)
    assert read_balance(plan) is None


@pytest.mark.parametrize("spoil", [b"", b"PAR1 and nothing more", b"{}"])
def test_what_is_kept_and_damaged_is_one_line(made, tmp_path: Path, spoil: bytes) -> None:
    plan = Storage(str(tmp_path))
    plan.write("balance.parquet", spoil)
    with pytest.raises(StoreError, match=r"balance\.parquet: is damaged .*; delete it, and plan again"):
        read_balance(plan)


def test_the_same_scenes_are_not_read_twice(world: TwoOrbits, made, tmp_path: Path, monkeypatch) -> None:
    scenes, found = made
    plan, config = Storage(str(tmp_path / "run")), configured(world, tmp_path)
    write_balance(found, plan.child("plan"))
    monkeypatch.setattr(solution, "survey", lambda *_: pytest.fail("scenes were read again"))
    again = balance(config, scenes, plan)
    assert again is not None
    assert again.to_parquet() == found.to_parquet()
    shuffled = balance(config, scenes[::-1], plan)
    assert shuffled is not None
    assert shuffled.fingerprint == found.fingerprint


@pytest.mark.parametrize("changes", [{"sun": "noon"}, {"max_offset": 0.2}, {"balance": "nbar"}])
def test_other_settings_are_another_balance(world: TwoOrbits, made, tmp_path: Path, changes: dict[str, Any]) -> None:
    scenes, found = made
    plan = Storage(str(tmp_path / "plan"))
    write_balance(found, plan.child("plan"))
    other = balance(configured(world, tmp_path, **changes), scenes, plan)
    assert other is not None
    assert other.fingerprint != found.fingerprint
    if "max_offset" in changes:
        assert not any(one.hazy for one in other.correction.values())


def test_a_scene_more_does_not_change_the_others_keys(world: TwoOrbits, tmp_path: Path) -> None:
    """A month is planned again when a further scene has come: what hardly differs is not computed again."""
    config, plan = configured(world, tmp_path), Storage(str(tmp_path / "plan"))
    scenes = find_scenes(config)
    fewer = scenes[:-1]
    first = balance(config, fewer, plan)
    assert first is not None
    write_balance(first, plan.child("plan"))
    then = balance(config, scenes, plan)
    assert then is not None
    same = [one.id for one in fewer if then.correction[one.id].key() == first.correction[one.id].key()]
    alone = balance(config, scenes, Storage(str(tmp_path / "other")))
    assert alone is not None
    assert scenes[-1].id in then.correction
    assert len(same) >= len(fewer) // 2
    for name, one in then.correction.items():
        gap = one.offset - alone.correction[name].offset
        level = np.mean([each.offset - alone.correction[key].offset for key, each in then.correction.items()], axis=0)
        assert np.abs((gap - level).mean(axis=(1, 2))).max() <= 12


def test_nbar_reads_no_pixel(world: TwoOrbits, tmp_path: Path, monkeypatch) -> None:
    config = configured(world, tmp_path, balance="nbar")
    scenes = find_scenes(config)
    monkeypatch.setattr(solution, "survey", lambda *_: pytest.fail("pixels were read"))
    found = balance(config, scenes, Storage(str(tmp_path / "plan")))
    assert found is not None
    for one in found.correction.values():
        assert (one.gain == 1).all()
        assert (one.offset == 0).all()
        assert not one.hazy
        assert not np.allclose(one.factor, 1, atol=0.01)


def test_scenes_that_cannot_be_compared_are_told_of(world: TwoOrbits, made, tmp_path: Path, caplog) -> None:
    alone = made[0][:1]
    with caplog.at_level(logging.WARNING):
        found = balance(configured(world, tmp_path), alone, Storage(str(tmp_path / "run")))
    assert found is not None
    assert (found.correction[alone[0].id].offset == 0).all()
    said = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("1 of 1 scenes share no ground with another") for text in said)


def test_thick_haze_on_one_day_does_not_move_the_other_days(world: TwoOrbits, made, tmp_path: Path) -> None:
    scenes, found = made
    usual = [one for one in scenes if not found.correction[one.id].hazy]
    without = balance(configured(world, tmp_path), usual, Storage(str(tmp_path / "run")))
    assert without is not None
    for one in usual:
        np.testing.assert_allclose(found.shift[one.id], without.shift[one.id], atol=1.0)


def test_none_does_nothing(world: TwoOrbits, tmp_path: Path) -> None:
    config = configured(world, tmp_path, balance="none")
    assert balance(config, find_scenes(config), Storage(str(tmp_path))) is None


@pytest.mark.parametrize("angles", ["item", "nothing"])
def test_what_is_not_known_is_said_once(world: TwoOrbits, made, tmp_path: Path, caplog, angles: str) -> None:
    scenes = [replace(one, granule=None, angles=one.angles if angles == "item" else None) for one in made[0]]
    with caplog.at_level(logging.WARNING):
        found = balance(configured(world, tmp_path, balance="nbar"), scenes, Storage(str(tmp_path / "plan")))
    assert found is not None
    said = [record.getMessage() for record in caplog.records if "scenes are" in record.getMessage()]
    assert len(said) == 1
    assert f"{len(scenes)} of {len(scenes)} scenes are" in said[0]
    assert ("mean angles" if angles == "item" else "not known") in said[0]


def test_the_plan_holds_what_was_done_and_a_second_plan_is_the_same(world: TwoOrbits, tmp_path: Path) -> None:
    config = configured(world, tmp_path)
    plan = plan_run(config)
    stored = read_plan(staging_of(config))
    again = decide(config)
    np.testing.assert_array_equal(plan.chips.key, again.chips.key)
    plain = decide(configured(world, tmp_path / "plain", balance="none"))
    assert not set(map(bytes, plain.chips.key)) & set(map(bytes, plan.chips.key))
    for _, row in stored.scenes.iterrows():
        scene = next(one for one in plan.scenes if one.id == row["id"])
        assert scene.correction is not None
        assert row["correction"] == scene.correction.key()
        np.testing.assert_allclose(np.reshape(row["offset"], (12, 2, 2)), scene.correction.offset)
        np.testing.assert_allclose(row["gain"], scene.correction.gain)
        assert len(row["before"]) == len(row["after"]) == len(row["shift"]) == 12
    hazy = {name for name, went in world.conditions.items() if went.haze_blue > 0.04}
    first = {plan.scenes[number].id for number in np.unique(plan.chips.scenes[:, 0])}
    assert not first & hazy
