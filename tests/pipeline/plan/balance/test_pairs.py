"""What two scenes say of the same ground: differences by part, without what changed on the ground."""

from __future__ import annotations

import numpy as np
import pytest

from difffusr.pipeline.plan.balance.pairs import Pairs, compare
from difffusr.pipeline.plan.balance.samples import Samples

SIDE = 60


def ground(seed: int = 0) -> np.ndarray:
    """(4, n) DN of blue, green, red, near infrared over a square of points."""
    rng = np.random.default_rng(seed)
    field = rng.uniform(0.4, 1.6, (4, SIDE // 6, SIDE // 6)).repeat(6, axis=1).repeat(6, axis=2).reshape(4, -1)
    return field * np.array([[400], [700], [600], [3000]])


def samples(dn: np.ndarray, day: float = 0.0, keep: np.ndarray | None = None, shift: float = 0.0) -> Samples:
    row, col = np.divmod(np.arange(SIDE**2), SIDE)
    place = np.stack([(col + 0.5) / SIDE - shift, (row + 0.5) / SIDE], axis=1).astype(np.float32)
    keep = np.ones(SIDE**2, bool) if keep is None else keep
    return Samples(np.arange(SIDE**2)[keep], place[keep], np.rint(dn).astype(np.uint16)[:, keep], day)


def comparison(a: Samples, b: Samples, spacing_m: float = 500.0) -> Pairs:
    found = compare(3, a, 7, b, [3], spacing_m)
    assert found is not None
    return found


@pytest.mark.parametrize("offset", [(0, 0, 0, 0), (140, 70, 60, -9), (-30, 12, 0, 80)])
def test_an_offset_is_found_in_every_part(offset: tuple[int, ...]) -> None:
    dn = ground()
    found = comparison(samples(dn), samples(dn + np.array(offset)[:, None]))
    assert len(found) == 16
    assert set(found.one) == {3}
    assert set(found.other) == {7}
    np.testing.assert_allclose(found.difference, np.broadcast_to(offset, (16, 4)), atol=1)
    np.testing.assert_allclose(found.middle.mean(axis=0), (dn + np.array(offset)[:, None] / 2).mean(axis=1), rtol=0.01)
    assert (found.error >= 10).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
@pytest.mark.parametrize("days", [10, 20, 35])
def test_fields_that_grew_are_not_compared(share: float, days: int) -> None:
    dn, rng = ground(), np.random.default_rng(4)
    later = dn + np.array([140, 70, 60, 0])[:, None]
    grown = (rng.random((SIDE // 6, SIDE // 6)) < share).repeat(6, 0).repeat(6, 1).ravel()
    later[3, grown] += 1500
    later[2, grown] -= 300
    later[:3, grown] -= 100
    found = comparison(samples(dn), samples(np.maximum(later, 2), days))
    np.testing.assert_allclose(found.difference, np.broadcast_to([140, 70, 60, 0], (len(found), 4)), atol=2)


def test_where_everything_grew_nothing_is_compared() -> None:
    dn = ground()
    later = dn.copy()
    later[3] *= 1.5
    assert compare(0, samples(dn), 1, samples(later, 25), [3], 500.0) is None


def test_within_a_day_relief_on_other_grids_is_compared() -> None:
    dn, rng = ground(), np.random.default_rng(1)
    other = dn + rng.normal(0, 700, dn.shape) * np.array([[0.05], [0.1], [0.1], [1]])
    found = comparison(samples(dn, 0.0), samples(np.maximum(other, 2), 0.0))
    kept = compare(0, samples(dn, 0.0), 1, samples(np.maximum(other, 2), 30.0), [3], 500.0)
    assert kept is not None
    assert found.error[:, 3].mean() > kept.error[:, 3].mean() - 30  # wider, as nothing is cut off
    assert abs(found.difference[:, 3].mean()) < 40


def test_only_common_points_count_and_each_scene_has_its_own_place() -> None:
    dn = ground()
    west = np.arange(SIDE**2) % SIDE < 20
    a, b = samples(dn, keep=west), samples(dn + 50, shift=0.5)
    found = comparison(a, b)
    assert found.place_one[:, 0].max() < 0.34
    np.testing.assert_allclose(found.place_other[:, 0], found.place_one[:, 0] - 0.5, atol=1e-6)
    np.testing.assert_allclose(found.difference, 50, atol=1)


@pytest.mark.parametrize("kept", [0, 3, 9])
def test_too_few_common_points_say_nothing(kept: int) -> None:
    dn = ground()
    few = np.arange(SIDE**2) < kept
    assert compare(0, samples(dn, keep=few), 1, samples(dn), [3], 500.0) is None
    assert compare(0, samples(dn), 1, samples(dn, keep=few), [3], 500.0) is None


def test_the_error_falls_with_points_rises_with_days_and_knows_that_neighbours_err_alike() -> None:
    dn, rng = ground(), np.random.default_rng(2)
    noisy = np.maximum(dn + rng.normal(0, 60, dn.shape), 2)
    few = np.arange(SIDE**2) % 7 == 0
    all_points, some = (comparison(samples(dn), samples(noisy, keep=keep)) for keep in (None, few))
    assert some.error.mean() > all_points.error.mean()
    later = comparison(samples(dn), samples(noisy, 40))
    assert later.error.mean() > all_points.error.mean() + 20
    dense = comparison(samples(dn), samples(noisy), spacing_m=100.0)
    assert dense.error.mean() > all_points.error.mean()


def test_it_does_not_matter_which_scene_comes_first() -> None:
    dn = ground()
    a, b = samples(dn), samples(dn * 1.02 + 30, 3)
    there, back = comparison(a, b), comparison(b, a)
    np.testing.assert_allclose(there.difference, -back.difference, atol=1)
    np.testing.assert_allclose(there.error, back.error, rtol=0.05)


def test_rows_of_several_pairs_are_one_table() -> None:
    dn = ground()
    one = comparison(samples(dn), samples(dn + 5))
    both = Pairs.of([one, one], 4)
    assert len(both) == 2 * len(one)
    assert both.difference.shape == (32, 4)
    assert len(Pairs.of([], 4)) == 0
