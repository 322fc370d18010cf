"""How a chip's pixels are taken from its scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self


@dataclass(frozen=True)
class ChipRules:
    """Those settings of `scenes` that `read_chip` needs.

    Attributes:
        allow_cloudy: whether cloudy cells may fill what no clear one covers.
        dilate_cloud_m, dilate_shadow_m: how far around cloud and its shadow nothing counts as clear, in metres.
        composite: how several clear looks become one: "none" (the best scene that shows a cell), or their medoid or
            geometric median.
        blend: how two scenes meet inside a chip: "hard", or "two-band" (low frequencies wide, high ones narrow).
    """

    allow_cloudy: bool = True
    dilate_cloud_m: float = 0.0
    dilate_shadow_m: float = 0.0
    composite: Literal["none", "medoid", "geomedian"] = "none"
    blend: Literal["hard", "two-band"] = "hard"

    @classmethod
    def of(cls, scenes: Mapping[str, Any]) -> Self:
        """Of the section `scenes` of a configuration, as it is kept in manifests: what is not set has its default."""
        return cls(**{field.name: scenes[field.name] for field in fields(cls) if field.name in scenes})
