"""The layers of a map: colour composites, indices, labels, and the colours of their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, WAVELENGTH_NM, band_indices


@dataclass(frozen=True)
class Label:
    """How a label (a whole number) is shown.

    Attributes:
        colour: as #rrggbb.
        name: for people.
        day: date of a scene.
    """

    colour: str
    name: str
    day: str = ""


#: Colours and names of the quality flags, by CF meaning.
QUALITY: Final[dict[str, Label]] = {
    "no_data": Label("#9aa0a6", "no data"),
    "clear": Label("#3c9d5d", "clear"),
    "filled": Label("#4c8fd6", "filled from another scene"),
    "cloudy": Label("#e9b93a", "cloudy"),
    "failed": Label("#d1344b", "failed"),
    "interpolated": Label("#7d5fb2", "interpolated, not super-resolved"),
    "interpolated_cloud": Label("#c9a6d8", "interpolated cloud"),
}

#: Colours of scenes in turn, easy to tell apart.
SCENES: Final = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2",
    "#eeca3b", "#9d755d", "#2f4b7c", "#ff9da6", "#8cb369", "#6a4c93",
)  # fmt: skip

_VEGETATION = ("#7a4a21", "#c8a26c", "#f1ebd3", "#a5ce82", "#3e8f41", "#0a4d25")

_WATER = ("#80552a", "#d9c5a0", "#f4f5f2", "#8ec4e4", "#2373b6", "#0a2f66")

_MOISTURE = ("#8a5a1f", "#dcbf8a", "#f5f4ee", "#8fd0c4", "#1f8a82", "#06423f")

_BURN = ("#5b1420", "#c9503f", "#f8dfc0", "#c4e09c", "#3e8f41", "#0a4d25")

_SNOW = ("#5c4a38", "#b9ab98", "#f2f3f4", "#a3d5ef", "#2d80bf", "#0b3c75")

#: Most observations that a pixel of a composite can have: what `scenes.looks` allows.
MOST_LOOKS: Final = 16

_SPREAD = ("#fdf5de", "#f8cb77", "#e3733c", "#a02c50", "#3d1251")


@dataclass(frozen=True)
class Layer:
    """One way to look at a cube.

    Attributes:
        name: in the map's address.
        title: for people.
        group: heading over layers of one kind.
        kind: "colour" mixes three bands, "scale" colours one number, "labels" colours whole numbers one by one.
        variable: of the cube.
        bands: of a composite red, green, blue; of an index the two of (a - b) / (a + b); of `reflectance_std` those
            whose mean is shown; none of labels.
        low, high: default numbers for the darkest and brightest, or the first and last colour.
        limits: least `low` and greatest `high` that can be chosen.
        colours: of a scale, from low to high, as #rrggbb.
    """

    name: str
    title: str
    group: str
    kind: Literal["colour", "scale", "labels"]
    variable: str = "reflectance"
    bands: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.3
    limits: tuple[float, float] = (0.0, 1.0)
    colours: tuple[str, ...] = ()

    @property
    def formula(self) -> str:
        """What is shown, in bands."""
        if self.kind == "labels":
            return ""
        if self.variable == "reflectance_std":
            return f"mean of {', '.join(self.bands)}"
        if self.kind == "scale":
            a, b = self.bands
            return f"({a} − {b}) / ({a} + {b})"
        return " · ".join(dict.fromkeys(self.bands))

    @property
    def is_index(self) -> bool:
        """Whether it is a normalised difference of two bands."""
        return self.kind == "scale" and self.variable == "reflectance"

    @property
    def band_indices(self) -> list[int] | None:
        """Positions of the bands to read; None if the variable has none."""
        return band_indices(list(dict.fromkeys(self.bands))) if self.bands else None


def layers_of(variables: Sequence[str]) -> dict[str, Layer]:
    """The layers, by name, of a cube with these variables."""
    return {layer.name: layer for layer in _all() if layer.variable in variables}


def _all() -> Iterator[Layer]:
    for name, title, bands, high in (
        ("true-colour", "True colour", ("B04", "B03", "B02"), 0.25),
        ("infrared", "False colour, near infrared", ("B08", "B04", "B03"), 0.4),
        ("red-edge", "Red edge", ("B07", "B05", "B04"), 0.4),
        ("shortwave", "Short-wave infrared", ("B12", "B8A", "B04"), 0.4),
        ("agriculture", "Agriculture", ("B11", "B08", "B02"), 0.4),
        ("geology", "Geology", ("B12", "B11", "B02"), 0.4),
        ("coast", "Coast and shallow water", ("B04", "B03", "B01"), 0.2),
    ):
        yield Layer(name, title, "Band combinations", "colour", bands=bands, high=high)
    for name, title, pair, low, high, colours in (
        ("ndvi", "NDVI, vegetation", ("B08", "B04"), -0.2, 0.9, _VEGETATION),
        ("ndre", "NDRE, red edge", ("B8A", "B05"), -0.1, 0.7, _VEGETATION),
        ("ndwi", "NDWI, open water", ("B03", "B08"), -0.7, 0.7, _WATER),
        ("ndmi", "NDMI, moisture", ("B8A", "B11"), -0.4, 0.6, _MOISTURE),
        ("nbr", "NBR, burnt ground", ("B8A", "B12"), -0.3, 0.8, _BURN),
        ("ndsi", "NDSI, snow", ("B03", "B11"), -0.8, 0.8, _SNOW),
    ):
        yield Layer(
            name, title, "Indices", "scale", bands=pair, low=low, high=high, limits=(-1.0, 1.0), colours=colours
        )
    yield Layer("quality", "Quality", "About each pixel", "labels", "quality")
    yield Layer("source", "Source scene", "About each pixel", "labels", "source")
    yield Layer("looks", "Observations", "About each pixel", "labels", "looks")
    yield Layer(
        "uncertainty", "Uncertainty of red, green, blue", "About each pixel", "scale", "reflectance_std",
        ("B04", "B03", "B02"), 0.0, 0.03, (0.0, 0.2), _SPREAD,
    )  # fmt: skip
    for band in BANDS:
        title = f"{band}, {WAVELENGTH_NM[band]:.0f} nm"
        yield Layer(band, title, "Single bands", "colour", bands=(band,) * 3, high=0.4)


def numbers(layer: Layer, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers that a layer shows, from the bands that it reads.

    Args:
        values: (k, h, w), bands as `Layer.band_indices`, NaN where there is no data.

    Returns:
        (3, h, w) for a composite, else (1, h, w); NaN where there is no data.
    """
    if layer.kind == "colour":
        return np.broadcast_to(values, (3, *values.shape[1:]))
    if layer.is_index:
        return normalised_difference(values[0], values[1])[None]
    return values.mean(axis=0, keepdims=True)


def normalised_difference(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[Any]:
    """(a - b) / (a + b), NaN where both are 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(a + b != 0, (a - b) / (a + b), np.nan)


def coloured(shown: NDArray[np.float32], low: float, high: float, colours: Sequence[str] = ()) -> NDArray[np.uint8]:
    """(3, h, w) red, green, blue for the `numbers` of a composite or a scale; 0 where there is no data.

    Args:
        low, high: as in `Layer`; numbers beyond them get the colour of the end.
        colours: of a scale.
    """
    with np.errstate(invalid="ignore"):
        step = np.nan_to_num(np.clip((shown - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)
    if not colours:
        return step
    table: NDArray[np.uint8] = ramp(colours)[step[0]].transpose(2, 0, 1)
    return np.where(np.isfinite(shown), table, np.uint8(0))


def ramp(colours: Sequence[str]) -> NDArray[np.uint8]:
    """(256, 3) colours, interpolated evenly from the first to the last."""
    stops = rgb(colours)
    place = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(place, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def rgb(colours: Sequence[str]) -> NDArray[np.uint8]:
    """(n, 3) of colours written as #rrggbb."""
    return np.array([list(bytes.fromhex(colour[1:])) for colour in colours], np.uint8)


def label_colours(layer: Layer, flags: Mapping[int, str], scenes: Mapping[int, Mapping[str, Any]]) -> dict[int, Label]:
    """How the numbers of a layer of labels are shown, by number.

    Args:
        flags: meanings of the quality flags.
        scenes: facts of the cube's scenes.
    """
    if layer.variable == "quality":
        return {number: QUALITY.get(meaning, Label("#888888", meaning)) for number, meaning in sorted(flags.items())}
    if layer.variable == "looks":
        shades = ramp(_WATER)[np.linspace(40, 255, MOST_LOOKS).astype(int)].tolist()
        named = (f"{number} look{'s' * (number > 1)}" for number in range(1, MOST_LOOKS + 1))
        return {
            number: Label(f"#{bytes(shade).hex()}", name)
            for number, (shade, name) in enumerate(zip(shades, named, strict=True), 1)
        }
    return {
        number: Label(SCENES[(number - 1) % len(SCENES)], str(facts["id"]), str(facts.get("datetime", ""))[:10])
        for number, facts in sorted(scenes.items())
    }


def describe_layer(layer: Layer, labels: Mapping[int, Label] | None = None) -> dict[str, Any]:
    """What a page needs to know about a layer.

    Args:
        labels: of a layer of labels, see `label_colours`.
    """
    return {
        "name": layer.name,
        "title": layer.title,
        "group": layer.group,
        "kind": layer.kind,
        "variable": layer.variable,
        "index": layer.is_index,
        "bands": list(layer.bands),
        "formula": layer.formula,
        "low": layer.low,
        "high": layer.high,
        "limits": list(layer.limits),
        "colours": list(layer.colours),
        "labels": [
            {"value": value, "colour": label.colour, "name": label.name, "day": label.day}
            for value, label in (labels or {}).items()
        ],
    }
