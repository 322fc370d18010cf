"""Angles of granules, real ones and made ones: missing detectors, two at a node, azimuths around north."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from beside import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.kernels.brdf import c_factor
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.granule import Granule, View, read_granule

FOLDER = SHARED / "data" / "balance" / "granules"
FILES = sorted(FOLDER.glob("*.xml.gz"))
N = 23


@pytest.mark.skipif(not FILES, reason=f"no real granules: {FOLDER} is not there")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".xml.gz"))
def test_real_granules_have_a_factor_at_every_node(path) -> None:
    granule = read_granule(path.read_bytes(), path.name)
    (tile,) = re.findall(r"(\d\d)([A-Z])[A-Z]{2}", path.name.replace("_0_L2A", ""))[-1:]
    assert granule.epsg == (32600 if tile[1] >= "N" else 32700) + int(tile[0])
    assert granule.step_m == 5000
    for band in BANDS:
        factors = granule.factors(band)
        assert factors.shape == (N, N)
        assert ((factors > 0.85) & (factors < 1.15)).all(), band
        assert not np.allclose(factors, 1)
    # seen from where the sun stands the ground is bright, and to be darkened
    east = max(granule.views["B08"], key=lambda view: np.nanmax(view.zenith))
    cosine = np.cos(np.radians(granule.sun.azimuth - east.azimuth))
    towards = np.nanmean(np.where(cosine > 0, 1, -1) * np.isfinite(east.zenith))
    seen = np.isfinite(east.zenith) & (east.zenith > 3)
    if seen.any() and (np.abs(cosine[seen]) > 0.3).all():
        assert (np.nanmean(granule.factors("B08")[seen]) < 1) == (towards > 0)


def made(views: list[View], sun_azimuth: float = 150.0) -> Granule:
    sun = View(np.full((N, N), 40.0), np.full((N, N), sun_azimuth))
    return Granule(32632, 600_000, 5_200_020, 5000, sun, {"B08": tuple(views)})


def view(zenith: float, azimuth: float, seen: NDArray[np.bool_] | None = None) -> View:
    nodes = np.ones((N, N), bool) if seen is None else seen
    return View(np.where(nodes, zenith, np.nan), np.where(nodes, azimuth, np.nan))


def masks() -> st.SearchStrategy[NDArray[np.bool_]]:
    """Stripes as detectors see them: from a column on, so many columns wide."""
    columns = np.arange(N)
    return st.tuples(st.integers(-3, N - 1), st.integers(1, 9)).map(
        lambda at: np.broadcast_to((columns >= at[0]) & (columns < at[0] + at[1]), (N, N))
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(0.1, 12), st.floats(0, 360), masks()), max_size=6),
    st.floats(0, 360),
)
def test_whichever_detectors_are_missing_each_node_has_the_mean_of_its_own_or_the_nearest(
    detectors: list[tuple[float, float, NDArray[np.bool_]]], sun: float
) -> None:
    granule = made([view(*one) for one in detectors], sun)
    factors = granule.factors("B08")
    known = [(mask, float(c_factor("B08", 40, zenith, sun - azimuth))) for zenith, azimuth, mask in detectors]
    columns = [[factor for mask, factor in known if mask[0, col]] for col in range(N)]
    seen = [col for col, found in enumerate(columns) if found]
    for col in range(N):
        if not seen:
            allowed = [1.0]
        else:
            near = min(abs(col - other) for other in seen)
            allowed = [float(np.mean(columns[other])) for other in seen if abs(col - other) == near]
        assert any(np.allclose(factors[:, col], value, rtol=1e-12) for value in allowed)


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 179.0, 181.0, 359.5])
def test_a_full_turn_changes_nothing(azimuth: float) -> None:
    plain = made([view(8, azimuth)]).factors("B08")
    for turned in (made([view(8, azimuth + 360)]), made([view(8, azimuth)], 150 - 360)):
        np.testing.assert_allclose(turned.factors("B08"), plain, rtol=1e-12)


def test_two_detectors_on_either_side_of_nadir_cancel_out() -> None:
    """The mean of their azimuths would look to the side."""
    both = made([view(0.5, 100), view(0.5, 280)]).factors("B08")
    assert np.abs(both - 1).max() < 1e-3


GOOD = """<n1:Level-2A_Tile_ID xmlns:n1="x"><n1:Geometric_Info>
<Tile_Geocoding><HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE>
<Geoposition resolution="10"><ULX>600000</ULX><ULY>5200020</ULY></Geoposition></Tile_Geocoding><Tile_Angles>
<Sun_Angles_Grid><Zenith><COL_STEP>5000</COL_STEP>
<Values_List><VALUES>40 41</VALUES><VALUES>42 43</VALUES></Values_List></Zenith>
<Azimuth><Values_List><VALUES>150 150</VALUES><VALUES>150 150</VALUES></Values_List></Azimuth></Sun_Angles_Grid>
<Viewing_Incidence_Angles_Grids bandId="7" detectorId="3">
<Zenith><Values_List><VALUES>5 NaN</VALUES><VALUES>5 NaN</VALUES>
</Values_List></Zenith><Azimuth><Values_List><VALUES>100 NaN</VALUES><VALUES>100 NaN</VALUES></Values_List></Azimuth>
</Viewing_Incidence_Angles_Grids></Tile_Angles></n1:Geometric_Info></n1:Level-2A_Tile_ID>"""


def test_angles_are_read_plain_and_gzipped() -> None:
    for data in (GOOD.encode(), gzip.compress(GOOD.encode())):
        granule = read_granule(data, "MTD_TL.xml")
        assert (granule.epsg, granule.left, granule.top) == (32632, 600_000, 5_200_020)
        assert granule.sun.zenith.tolist() == [[40, 41], [42, 43]]
        assert [len(granule.views[band]) for band in ("B08", "B8A")] == [1, 0]
        assert (granule.factors("B8A") == 1).all()
        assert (granule.factors("B08") != 1).all()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no xml", b"<a/>", b"\x1f\x8bbroken", GOOD.replace("<ULX>600000</ULX>", "").encode(),
        GOOD.replace("EPSG:32632", "UTM").encode(), GOOD.replace("Sun_Angles_Grid", "Other").encode(),
        GOOD.replace("<VALUES>42 43</VALUES>", "<VALUES>42</VALUES>").encode(),
        GOOD.replace("40 41", "40 east").encode(),
        GOOD.replace('bandId="7"', 'bandId="70"').encode(), GOOD.encode("utf-16")[:200],
    ],
)  # fmt: skip
def test_what_is_no_metadata_is_one_line(data: bytes) -> None:
    with pytest.raises(
        CatalogError, match=r"^a\.xml: is not the metadata of a Sentinel-2 granule \(MTD_TL\.xml\): "
    ) as found:
        read_granule(data, "a.xml")
    assert "\n" not in str(found.value)
