"""Dates agree with their neighbours where that costs little."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.pipeline.plan.borders import NEVER, choose_dates, count_borders, energy


def noisy(seed: int, dates: int = 4, size: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 400, (dates, size, size)).astype(np.int32)


def test_the_best_of_all_choices_is_found_where_all_can_be_tried():
    found = 0
    for seed in range(12):
        cost = noisy(seed, 3, 3)
        choices = (np.array(c, np.int32).reshape(3, 3) for c in itertools.product(range(3), repeat=9))
        least = min(energy(cost, 150, choice) for choice in choices)
        found += energy(cost, 150, choose_dates(cost, 150)) == least
    assert found >= 10


def test_one_date_everywhere_where_all_show_the_same():
    cost = np.full((3, 20, 20), 100, np.int32)
    assert count_borders(choose_dates(cost, 10)) == 0


def test_without_a_price_on_borders_every_chip_takes_its_own_best():
    cost = noisy(1)
    assert np.array_equal(choose_dates(cost, 0), cost.argmin(axis=0))


def test_borders_follow_the_cloud_and_not_its_specks():
    cost = np.zeros((2, 40, 40), np.int32)
    cost[0, :, 20:] = 1000  # a cloud bank on the first date
    cost[1, :, :20] = 1000  # and one on the second
    cost[0, 7, 5] = cost[1, 30, 33] = 300  # specks not worth a border
    dates = choose_dates(cost, 200)
    assert count_borders(dates) == 40
    assert (dates[:, :20] == 0).all()


@given(seed=st.integers(0, 10_000), border=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_agreement_never_costs_more_than_every_chip_for_itself(seed, border):
    cost = noisy(seed, 3, 12)
    cost[np.random.default_rng(seed + 1).random(cost.shape) < 0.3] = NEVER
    dates = choose_dates(cost, border)
    here = (cost < NEVER).any(axis=0)
    assert ((dates >= 0) == here).all()
    rows, cols = np.nonzero(here)
    assert (cost[dates[here], rows, cols] < NEVER).all()
    alone = np.where(here, cost.argmin(axis=0), -1).astype(np.int32)
    assert energy(cost, border, dates) <= energy(cost, border, alone)


def test_a_strip_goes_on_with_the_dates_above_it():
    cost = np.full((2, 10, 12), 100, np.int32)
    cost[0] -= 5
    above = np.full(12, 1, np.int32)
    assert (choose_dates(cost, 200, above) == 1).all()
    assert (choose_dates(cost, 200, np.full(12, -1, np.int32)) == 0).all()
    assert (choose_dates(cost, 200, np.full(12, 2, np.int32)) == 0).all()
