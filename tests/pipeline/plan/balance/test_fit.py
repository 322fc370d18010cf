"""Gains and offsets from differences: found where they are, bounded where nothing is known, and no drift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.pipeline.plan.balance.fit import corners, fit
from difffusr.pipeline.plan.balance.pairs import Pairs

BANDS = 3


def every_pair(scenes: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(scenes) for other in range(one + 1, scenes)]


def pairs(gain, offset, links, *, middle=(500.0, 900.0, 3000.0), noise=0.0, parts=4, seed=0) -> Pairs:
    """What scenes with true gains (s, b) and offsets (s, b, 2, 2) would show of the same ground, part by part: scene i
    shows (ground − offset) / gain."""
    rng = np.random.default_rng(seed)
    rows = []
    for one, other in links:
        for down in range(parts):
            for across in range(parts):
                place = np.array([[(across + 0.5) / parts, (down + 0.5) / parts]])
                at = corners(place)[0]
                ground = np.array(middle) * rng.uniform(0.6, 1.4, len(middle))
                shown = [(ground - at @ offset[scene].reshape(-1, 4).T) / gain[scene] for scene in (one, other)]
                rows.append((one, other, place[0], place[0], shown[1] - shown[0], (shown[0] + shown[1]) / 2))
    columns = [np.array([row[i] for row in rows]) for i in range(6)]
    columns[4] = columns[4] + rng.normal(0, noise, columns[4].shape) if noise else columns[4]
    kinds = (np.int32, np.int32, *[np.float32] * 4)
    typed = [column.astype(kind) for column, kind in zip(columns, kinds, strict=True)]
    return Pairs(*typed, np.full(columns[4].shape, 10.0, np.float32))


def flat(offsets) -> np.ndarray:
    """(s, b, 2, 2) offsets that are the same everywhere."""
    return np.asarray(offsets, float)[:, :, None, None] * np.ones((1, 1, 2, 2))


def solved(table: Pairs, scenes: int, middle=(500.0, 900.0, 3000.0)):
    return fit(table, np.tile(middle, (scenes, 1)), np.full((scenes, 4), 0.25))


def left(table: Pairs, found) -> np.ndarray:
    """(rows, bands) what remains of the differences."""
    out = []
    for row in range(len(table)):
        values = []
        for scene, place, sign in (
            (table.one[row], table.place_one, -0.5),
            (table.other[row], table.place_other, 0.5),
        ):
            shown = table.middle[row] + sign * table.difference[row]
            at = corners(place[row : row + 1])[0] @ found.offset[scene].reshape(-1, 4).T
            values.append(found.gain[scene] * shown + at)
        out.append(values[1] - values[0])
    return np.array(out)


@pytest.mark.parametrize("scenes", [2, 3, 6, 12])
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_offsets_are_found(scenes: int, noise: float) -> None:
    rng = np.random.default_rng(scenes)
    offsets = rng.normal(0, 80, (scenes, BANDS))
    offsets -= offsets.mean(axis=0)
    table = pairs(np.ones((scenes, BANDS)), flat(offsets), every_pair(scenes), noise=noise)
    found = solved(table, scenes)
    # pulled towards nothing by a few per cent
    np.testing.assert_allclose(found.offset.mean(axis=(2, 3)), offsets, atol=4 + noise / 2 + 0.05 * 160)
    assert np.abs(found.gain - 1).max() < 0.01
    assert np.median(np.abs(left(table, found))) < 4 + noise


def test_an_offset_that_varies_over_the_scene_is_found() -> None:
    offset = np.zeros((3, BANDS, 2, 2))
    offset[1, 0] = [[60, 20], [-10, -70]]
    found = solved(pairs(np.ones((3, BANDS)), offset, every_pair(3)), 3)
    apart = found.offset[1, 0] - found.offset[[0, 2], 0].mean(axis=0)
    np.testing.assert_allclose(apart, offset[1, 0], atol=25)
    assert apart[0, 0] - apart[1, 1] > 100


@pytest.mark.parametrize("gain", [0.97, 1.03])
def test_gains_are_found_in_part_and_average_one(gain: float) -> None:
    gains = np.ones((4, BANDS))
    gains[2] = gain
    found = solved(pairs(gains, flat(np.zeros((4, BANDS))), every_pair(4), parts=8), 4)
    assert np.sign(found.gain[2, 2] - 1) == np.sign(gain - 1)
    np.testing.assert_allclose(found.gain.mean(axis=0), 1, atol=1e-6)
    assert np.abs(found.gain - 1).max() < 0.04


@pytest.mark.parametrize("seed", range(4))
def test_gains_do_not_shrink_towards_nothing(seed: int) -> None:
    """All gains 0 would leave no difference at all."""
    table = pairs(np.ones((5, BANDS)), flat(np.zeros((5, BANDS))), every_pair(5), noise=300.0, seed=seed)
    found = solved(table, 5)
    np.testing.assert_allclose(found.gain.mean(axis=0), 1, atol=1e-6)
    assert np.abs(found.gain - 1).max() < 0.03


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    scenes=st.integers(2, 7),
    drop=st.floats(0, 0.7),
)
def test_the_mean_over_linked_scenes_stays_where_it_was(seed: int, scenes: int, drop: float) -> None:
    rng = np.random.default_rng(seed)
    links = [link for link in every_pair(scenes) if rng.random() > drop]
    offsets = rng.normal(30, 100, (scenes, BANDS))
    found = (
        solved(pairs(np.ones((scenes, BANDS)), flat(offsets), links, noise=20.0, seed=seed), scenes)
        if links
        else (solved(Pairs.of([], BANDS), scenes))
    )
    mean = np.array([500.0, 900.0, 3000.0])
    moved = (found.gain - 1) * mean + found.offset.mean(axis=(2, 3))
    for group in np.unique(found.group):
        assert np.abs(moved[found.group == group].mean(axis=0)).max() < 0.5


def test_scenes_that_meet_no_other_stay_as_they_are() -> None:
    offsets = flat(np.array([[40.0] * BANDS, [-40.0] * BANDS, [500.0] * BANDS]))
    found = solved(pairs(np.ones((3, BANDS)), offsets, [(0, 1)]), 3)
    assert found.group[0] == found.group[1] != found.group[2]
    np.testing.assert_array_equal(found.gain[2], 1)
    np.testing.assert_allclose(found.offset[2], 0, atol=1e-9)
    assert np.isnan(found.before[2]).all()
    assert np.isnan(found.after[2]).all()


def test_nothing_to_compare_changes_nothing() -> None:
    found = solved(Pairs.of([], BANDS), 4)
    np.testing.assert_array_equal(found.gain, 1)
    np.testing.assert_array_equal(found.offset, 0)


@pytest.mark.parametrize("wrong", [400.0, -900.0])
def test_a_few_parts_that_do_not_fit_do_not_decide(wrong: float) -> None:
    offsets = np.zeros((4, BANDS))
    offsets[1] = 60
    table = pairs(np.ones((4, BANDS)), flat(offsets), every_pair(4), noise=5.0)
    spoilt = table.difference.copy()
    spoilt[::9] += wrong
    clean, found = (
        solved(Pairs(**{**vars(table), "difference": difference}), 4) for difference in (table.difference, spoilt)
    )
    assert np.abs(found.offset.mean(axis=(2, 3)) - clean.offset.mean(axis=(2, 3))).max() < 12


def test_a_chain_carries_over_many_scenes_but_a_continent_does_not_tilt() -> None:
    scenes = 40
    links = [(i, i + 1) for i in range(scenes - 1)]
    offsets = np.zeros((scenes, BANDS))
    offsets[::2] = 70
    found = solved(pairs(np.ones((scenes, BANDS)), flat(offsets), links, noise=10.0), scenes)
    level = found.offset.mean(axis=(2, 3))
    assert np.abs((level[::2] - level[1::2]) - 70).max() < 30
    pairs_of_two = (level[::2] + level[1::2]) / 2
    assert np.abs(pairs_of_two).max() < 40


def test_differences_before_and_after_are_told() -> None:
    offsets = np.zeros((3, BANDS))
    offsets[0] = 100
    found = solved(pairs(np.ones((3, BANDS)), flat(offsets), every_pair(3)), 3)
    np.testing.assert_allclose(found.before[0], 100, atol=1)
    assert (found.after[0] < 10).all()


@pytest.mark.parametrize(
    ("place", "weights"), [((0, 0), (1, 0, 0, 0)), ((1, 0), (0, 1, 0, 0)), ((0.5, 1), (0, 0, 0.5, 0.5))]
)
def test_weights_of_the_corners(place: tuple[float, float], weights: tuple[float, ...]) -> None:
    np.testing.assert_allclose(corners(np.array([place], np.float32)), [weights])


@pytest.mark.parametrize("errors", [(900, 10, 10), (10_000, 10, 1), (0.1, 10, 900), (10, 100, 900)])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("noise", [20.0, 200.0])
def test_a_band_that_is_solved_early_waits_for_the_others(errors: tuple[float, ...], parts: int, noise: float) -> None:
    """A band of which little is known takes few steps, those known sharply take many."""
    scenes = 10
    offsets = np.random.default_rng(1).normal(0, (80, 80, 200), (scenes, BANDS))
    table = pairs(np.ones((scenes, BANDS)), flat(offsets), every_pair(scenes), noise=noise, parts=parts, seed=1)
    spread = np.broadcast_to(np.array(errors, np.float32), table.difference.shape).copy()
    found = solved(replace(table, error=spread), scenes)
    assert np.isfinite(found.gain).all()
    assert np.isfinite(found.offset).all()
    assert (np.abs(left(table, found)).mean(axis=0) < 1.01 * np.abs(table.difference).mean(axis=0)).all()
