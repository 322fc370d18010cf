"""How a chip's pixels are taken from its scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from difffusr.pipeline.scenes.csmask import network_version

if TYPE_CHECKING:
    from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class ChipRules:
    """Those settings of `scenes` that `read_chip` needs.

    Attributes:
        allow_cloudy: whether cloudy cells may fill what no clear one covers.
        masks: who tells ground from cloud: an entry of `masks.MAKERS`.
        max_cloud_probability: per cent; more counts as cloud where the item's own probability decides.
        mask_version: of the network, where one decides.
        kept: the run's folder, in which such masks are kept; None keeps them in memory alone.
        dilate_cloud_m, dilate_shadow_m: how far around cloud and its shadow nothing counts as clear, in metres.
        composite: how several clear looks become one: "none" (the best scene that shows a cell), or their medoid or
            geometric median.
        blend: how two scenes meet inside a chip: "hard", or "two-band" (low frequencies wide, high ones narrow).
    """

    allow_cloudy: bool = True
    masks: str = "scl"
    max_cloud_probability: float = 40.0
    mask_version: str = ""
    kept: Storage | None = field(default=None, compare=False, repr=False)
    dilate_cloud_m: float = 0.0
    dilate_shadow_m: float = 0.0
    composite: Literal["none", "medoid", "geomedian"] = "none"
    blend: Literal["hard", "two-band"] = "hard"

    @classmethod
    def of(cls, scenes: Mapping[str, Any], kept: Storage | None = None) -> Self:
        """Of the section `scenes` of a configuration, as it is kept in manifests: what is not set has its default."""
        rules = cls(**{field.name: scenes[field.name] for field in fields(cls) if field.name in scenes}, kept=kept)
        return replace(rules, mask_version=network_version()) if rules.masks == "csmask" else rules

    def shared(self) -> dict[str, Any]:
        """What the pixels of every chip depend on, as far as it is not the default. What decides by scene (masks) is
        part of the scenes' versions; `allow_cloudy` was here before the others."""
        apart = {"allow_cloudy", "masks", "max_cloud_probability", "mask_version", "kept"}
        found = {one.name: (getattr(self, one.name), one.default) for one in fields(self) if one.name not in apart}
        return {name: value for name, (value, default) in found.items() if value != default}
