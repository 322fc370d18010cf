"""Kernels and factors of the BRDF against published and independently computed values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from beside import SHARED

from difffusr.kernels.brdf import COEFFICIENTS, c_factor, li_sparse_reciprocal, nominal_sun_zenith, ross_thick

PATH = SHARED / "data" / "balance" / "brdf_reference.json"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason=f"no reference values: {PATH} is not there")


@pytest.fixture(scope="module")
def reference() -> dict:
    return json.loads(PATH.read_text())


def test_kernels_and_factors_are_those_of_the_table(reference: dict) -> None:
    rows = reference["own_table"]["rows"]
    sun, view, phi = (np.array([row[name] for row in rows]) for name in ("sza", "vza", "phi"))
    np.testing.assert_allclose(ross_thick(sun, view, phi), [row["kvol"] for row in rows], atol=1e-6)
    np.testing.assert_allclose(li_sparse_reciprocal(sun, view, phi), [row["kgeo"] for row in rows], atol=1e-6)
    for band in rows[0]["c_same_sza"]:
        expected = [row["c_same_sza"][band] for row in rows]
        np.testing.assert_allclose(c_factor(band, sun, view, phi), expected, atol=1e-6)


def test_coefficients_are_the_published_ones(reference: dict) -> None:
    for band, one in reference["roy_coefficients"]["bands"].items():
        assert COEFFICIENTS[band] == (one["f_iso"], one["f_vol"], one["f_geo"])


def test_the_published_example_is_met(reference: dict) -> None:
    one = reference["published_checks"][0]
    angles = one["sza"], one["vza"], one["phi_used"]
    assert float(ross_thick(*angles)) == pytest.approx(one["kvol"], abs=1e-6)
    assert float(c_factor("B04", *angles, nadir_sun=40)) == pytest.approx(one["cfactor_red_to_sza40"], abs=1e-6)


def test_nine_published_neighbours_are_met(reference: dict) -> None:
    nine = reference["published_checks"][1]
    sun, view = (np.linspace(start, start + 0.8, 9).reshape(3, 3).T for start in (46.1, 10.1))
    kernels = ross_thick(sun, view, 80), li_sparse_reciprocal(sun, view, 80)
    for found, name in zip(kernels, ("kvol", "kgeo_br1_hb2"), strict=True):
        np.testing.assert_allclose(found.ravel(), nine[name], atol=1e-5)
    factors = c_factor("B04", sun, view, 80, nadir_sun=40)
    np.testing.assert_allclose(factors.ravel(), nine["cfactor_red_to_sza40"], atol=1e-5)


def test_the_nominal_sun_is_that_of_hls(reference: dict) -> None:
    for latitude, zenith in reference["hls_nominal_sun_zenith"]["check"].items():
        assert float(nominal_sun_zenith(float(latitude))) == pytest.approx(zenith, abs=1e-3)
