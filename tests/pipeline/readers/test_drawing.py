"""Bands drawn as colours: one range for all three, transparent where nothing is seen."""

from __future__ import annotations

import numpy as np
import pytest

from difffusr.pipeline.readers.drawing import drawn


def colour(*dn: int) -> np.ndarray:
    return np.array(dn, np.uint16)[:, None, None]


@pytest.mark.parametrize("grey", [300, 1200, 5000])
def test_what_is_grey_on_the_ground_is_grey_in_the_picture(grey):
    scene = np.concatenate(
        [np.tile(colour(400, 900, 300), (1, 1, 50)), np.tile(colour(2500, 2200, 1800), (1, 1, 50))], 2
    )
    scene = np.concatenate([scene, np.tile(colour(grey, grey, grey), (1, 1, 3))], axis=2)
    shown = drawn(scene, (scene > 0).all(axis=0))[0]
    assert len(set(shown[-1, :3].tolist())) == 1
    # Green stays greener than red and blue, sand redder than blue.
    assert shown[0, 1] > max(shown[0, 0], shown[0, 2])
    assert shown[60, 0] > shown[60, 1] > shown[60, 2]


@pytest.mark.parametrize("dn", [np.zeros((3, 4, 5), np.uint16), np.full((3, 4, 5), 700, np.uint16)])
def test_of_nothing_and_of_one_number_there_is_a_picture_too(dn):
    shown = drawn(dn, (dn > 0).all(axis=0))
    assert shown.shape == (4, 5, 4)
    assert set(np.unique(shown[..., 3])) == ({255} if dn.any() else {0})


@pytest.mark.parametrize(("low", "high", "expected"), [(0.0, 1.0, [0, 95, 255]), (None, 0.5, [0, 155, 255])])
def test_what_becomes_black_and_white_can_be_said(low, high, expected):
    values = np.tile(np.array([0.0, 0.25, 1.0], np.float32), (3, 1, 1))
    assert drawn(values, np.ones((1, 3), bool), low, high)[0, :, 0].tolist() == pytest.approx(expected, abs=2)


def test_what_is_not_seen_counts_for_nothing_and_is_transparent():
    values = np.tile(np.array([0.1, 0.2, np.nan, 9.0], np.float32), (3, 1, 1))
    shown = drawn(values, np.array([[True, True, False, False]]))
    assert shown[0, :, 3].tolist() == [255, 255, 0, 0]
    assert shown[0, :2, 0].tolist() == [0, 255]
