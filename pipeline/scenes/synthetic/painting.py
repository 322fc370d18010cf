"""The generated world painted with spectra, at a date."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.scenes.synthetic.drawing import smoothed_1_2_1, soften_image
from difffusr.pipeline.scenes.synthetic.layout import Layout
from difffusr.pipeline.scenes.synthetic.palette import CROPS, DRYNESS, LATER_GAIN, SENESCENCE, SKYLIGHT, SPECTRA, Float


def paint_world(layout: Layout, season: int) -> Float:
    """Reflectance (12, H, W) of the layout on the first (0) or the later (1) date."""
    image = _paint_fields(layout, season)
    fine, broad = 1 + 0.05 * layout.grain, 1 + 0.05 * layout.patch
    _over(image, 0.85 * layout.verge, "mown", fine * broad)
    _over(image, layout.garden, "lawn", fine * (1 + 0.10 * layout.patch))
    _over(image, layout.paved, "paved", fine)
    _over(image, layout.gravel, "gravel", fine)
    _over(image, layout.wood, "forest floor", fine)
    _over(image, layout.track, "gravel", fine * broad * 0.82)
    _over(image, layout.river, "river", 1 + 0.04 * layout.patch)
    _over(image, layout.lake, "lake", 1 + 0.05 * layout.patch)
    _over(image, layout.asphalt, "asphalt", fine)
    where = layout.roof > 0.003
    cover = layout.roof[where]
    image[:, where] += cover * (layout.roof_spectra[layout.roof_kind[where]].T * fine[where] - image[:, where])
    sunlit: Float = layout.tree_tone * layout.shade * np.float32(0.94 if season else 1)
    _over(image, layout.tree * (1 - layout.conifer), "broadleaf", sunlit)
    _over(image, layout.tree * layout.conifer, "conifer", sunlit)
    where = layout.shadow > 0.003
    image[:, where] *= 1 - layout.shadow[where] * (1 - SKYLIGHT[:, None])
    soften_image(image)
    if season:
        image *= LATER_GAIN[:, None, None]
    return np.clip(image, 0.001, 1.0, out=image)


def _paint_fields(layout: Layout, season: int) -> Float:
    """Soil under the growing crop of each parcel, with rows, tramlines, and uneven growth."""
    state = [kind.later if season else kind.first for kind in CROPS]
    plants = np.array([SPECTRA[name] for name, _ in state], np.float32)[layout.crop] / 1000  # (parcels, 12)
    brightness, senescence, dryness = (layout.colour[:, [n]] for n in range(3))
    plants *= (1 + brightness) * np.exp(senescence * SENESCENCE + dryness * DRYNESS)
    soils = np.array(SPECTRA["loam"], np.float32) / 1000 * (1 + 1.5 * brightness) * np.exp(dryness * 0.5 * DRYNESS)
    cover = np.array([cover for _, cover in state], np.float32)[layout.crop]
    lined = np.array([kind.tramlines for kind in CROPS], np.float32)[layout.crop]
    uneven = (0.4 + 6 * np.abs(layout.colour[:, 1]))[layout.parcel]
    growth = uneven * (0.10 * layout.patch - 0.06 * layout.soil) + 0.045 * layout.streak + 0.03 * layout.grain
    mean = cover[layout.parcel]
    mean = np.clip(mean * (1 + growth) - np.maximum(mean - 1 + growth, 0) * 0.5, 0, 1)
    mean *= 1 - 0.16 * lined[layout.parcel] * layout.tramline
    plant_tone = 1 + 0.045 * layout.streak + 0.035 * layout.grain + uneven * 0.045 * layout.patch
    soil_tone = 1 - 0.12 * layout.soil + 0.05 * layout.streak + 0.045 * layout.grain
    image = np.empty((12, *layout.parcel.shape), np.float32)
    edge = np.zeros(layout.parcel.shape, bool)
    for axis in (0, 1):
        differs = layout.parcel != np.roll(layout.parcel, 1, axis)
        edge |= differs | np.roll(differs, -1, axis)
    for band in range(12):
        soil, plant = soils[:, band][layout.parcel], plants[:, band][layout.parcel]
        field = soil * soil_tone * (1 - mean) + plant * plant_tone * mean
        smooth = smoothed_1_2_1(smoothed_1_2_1(field, 0), 1)
        image[band] = np.where(edge, smooth, field)
    return image


def _over(image: Float, alpha: Float, spectrum: str, tone: NDArray[np.floating[Any]]) -> None:
    """Lay a surface over the image where alpha > 0, in place."""
    where = alpha > 0.003
    colour = np.array(SPECTRA[spectrum], np.float32)[:, None] / 1000 * tone[where]
    image[:, where] += alpha[where] * (colour - image[:, where])
