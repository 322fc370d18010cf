"""Shared by all generations of fusion network: configuration, inputs, Wald's protocol, merging (reference section 2).

Fusion lifts all 12 bands to 2.5 m with the super-resolved red, green, blue as the spatial guide. Each group of bands
of one native resolution has its own branch. Everything here is standardised reflectance (`normalisation.FUSION`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difffusr.kernels.bands import BANDS, GROUPS, RGB, TARGET_GSD_M, band_indices
from difffusr.kernels.images import wald_downsample

#: Bands of each native GSD in metres, in channel order.
Groups = Mapping[int, tuple[str, ...]]

#: What a network accepts as bands: a (B, 12, h, w) tensor in `BANDS` order on the 10 m grid, or a mapping of band names
#: (ours or the reference's) to (B, 1, h', w') on native grids, or a mapping of GSD to that group's (B, C, h', w').
Bands = Tensor | Mapping[str, Tensor] | Mapping[int, Tensor]

#: The reference's names of the bands (its spelling).
REFERENCE_NAMES: Final[dict[str, str]] = {
    "B01": "S2:CoastAerosal", "B02": "S2:Blue", "B03": "S2:Green", "B04": "S2:Red", "B05": "S2:RE1", "B06": "S2:RE2",
    "B07": "S2:RE3", "B08": "S2:NIR", "B8A": "S2:RE4", "B09": "S2:WaterVapor", "B11": "S2:SWIR1", "B12": "S2:SWIR2",
}  # fmt: skip


@dataclass(frozen=True)
class FusionConfig:
    """Which network, and how wide.

    `generation`: "v1" (residual dense blocks) and "v2" (learned MTF filters) are published. "folded" is for CPUs; it
    has no residual dense blocks and ignores `growth`. "corrected" corrects a classical estimate; `growth` is its number
    of channels on the guide's grid.
    """

    generation: Literal["v1", "v2", "folded", "corrected"]
    channels: int
    blocks: int
    growth: int

    def __post_init__(self) -> None:
        if self.generation not in ("v1", "v2", "folded", "corrected"):
            raise ValueError(f'generation must be "v1", "v2", "folded" or "corrected", got {self.generation!r}')
        if min(self.channels, self.blocks, self.growth) < 1:
            raise ValueError(f"channels, blocks and growth must be positive, got {self}")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> FusionConfig:
        """The generation and sizes of a fusion network, from its tensors. Raises ValueError for other networks."""
        prefix = "rrdb_block_10_fusion."
        if prefix + "body.0.conv0.weight" in state_dict:
            blocks = sum(key.startswith(prefix + "body.") and key.endswith("conv0.weight") for key in state_dict)
            if prefix + "coarse.weight" in state_dict:
                channels, fine = (len(state_dict[f"{prefix}{name}.weight"]) for name in ("coarse", "fine"))
                return cls("corrected", channels, blocks, fine)
            return cls("folded", len(state_dict[prefix + "first.weight"]), blocks, 1)
        for generation, first, body, blocks_each in _SIGNS:
            if prefix + first not in state_dict:
                continue
            residual = [
                key for key in state_dict if key.startswith(prefix + body) and key.endswith("RDB1.conv1.weight")
            ]
            # without residual dense blocks growth has no effect
            growth = len(state_dict[residual[0]]) if residual else 1
            blocks = len(residual) if blocks_each == 1 else blocks_each * len(residual) + 1
            return cls(generation, len(state_dict[prefix + first]), blocks, growth)
        raise ValueError("holds no fusion network: no generation's keys are there")


#: By generation: its first convolution, the prefix of its residual dense blocks, and how many `blocks` each of them
#: stands for (v2 uses half of the number, rounded down).
_SIGNS: Final[tuple[tuple[Literal["v1", "v2"], str, str, int], ...]] = (
    ("v1", "rgb_conv_first.weight", "rgb_rrdb.", 1),
    ("v2", "detail_net.0.weight", "detail_net.", 2),
)

PUBLISHED_V1: Final = FusionConfig("v1", channels=64, blocks=5, growth=32)

PUBLISHED_V2: Final = FusionConfig("v2", channels=32, blocks=3, growth=16)

FOLDED: Final = FusionConfig("folded", channels=48, blocks=3, growth=1)

SMALL: Final = FusionConfig("corrected", channels=32, blocks=2, growth=16)

BASE: Final = FusionConfig("corrected", channels=48, blocks=4, growth=24)


class FusionNetwork(nn.Module):
    """The frame of all generations: three branches named `rrdb_block_{10,20,60}_fusion`, one for each group of bands.

    A branch takes (guide (B, 3, H, W), bands (B, C, H, W)), both on the guide's grid, and returns its group's bands
    there. `sources`: the groups whose bands each branch sees, in channel order. `groups` is the order of bands in each
    group: the published one by default, configurable because the band labels of the published training are
    uncertain (reference section 2.3).
    """

    sources: ClassVar[Mapping[int, tuple[int, ...]]]

    #: Whether red, green and blue come out as the guide that went in, and all else projected on what was measured and
    #: kept in range: then nothing is projected again.
    passes_rgb: ClassVar[bool] = False

    #: Modules of a branch that `lower` lowers.
    lowered: ClassVar[tuple[str, ...]]

    def __init__(self, groups: Groups = GROUPS) -> None:
        super().__init__()
        self.groups = dict(groups)

    def branch(self, gsd: int) -> nn.Module:
        """The branch of the group of a native GSD in metres."""
        return self.get_submodule(f"rrdb_block_{gsd}_fusion")

    def lower(self, dtype: torch.dtype) -> None:
        """Run the features in a lower precision; the bands, the guide and what is added to the bands stay float32."""
        for gsd in self.groups:
            branch = self.branch(gsd)
            for name in self.lowered:
                branch.get_submodule(name).to(dtype)

    def fuse_group(self, gsd: int, guide: Tensor, *ms: Tensor) -> Tensor:
        """One group on the guide's grid.

        `guide` (B, 3, H, W): red, green, blue. `ms`: the bands of each of `sources[gsd]`, in order, (B, C, h, w) on any
        grid over the same ground. Returns (B, C_gsd, H, W).
        """
        size = guide.shape[-2:]
        stacked = torch.cat([resize_bilinear(m, size) for m in ms], 1)
        out: Tensor = self.branch(gsd)(guide, stacked)
        return out

    def forward(self, bands: Bands, guide: Tensor | None = None) -> dict[int, Tensor]:
        """All 12 bands on the guide's grid.

        `bands`: see `Bands`; standardised. `guide` (B, 3, 4h, 4w) for a 10 m grid of (h, w): the super-resolved red,
        green, blue, standardised; by default the bilinear enlargement of the bands' own. Returns, by native
        GSD in metres, (B, 4, 4h, 4w), (B, 6, 4h, 4w) and (B, 2, 4h, 4w), channels as in `groups`.
        """
        native = split_groups(bands, self.groups)
        guide = self.own_guide(native[10]) if guide is None else guide
        return {gsd: self.fuse_group(gsd, guide, *(native[s] for s in self.sources[gsd])) for gsd in self.groups}

    def own_guide(self, native_10: Tensor) -> Tensor:
        """The guide where none is given: the bilinear enlargement of the bands' own red, green, blue."""
        rgb = self._rgb(native_10)
        return resize_bilinear(rgb, torch.Size(4 * n for n in rgb.shape[-2:]))

    def wald_forward(self, bands: Mapping[str, Tensor] | Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The forward pass of training: inputs coarser by the fusion's own factor, so that the bands are the truth.

        `bands`: all 12 on native grids whose sides in 10 m pixels are a multiple of 24. Returns each group on its
        native grid, by GSD; the target of a group is that group of `split_groups(bands)` (reference section 2.3).
        """
        native = split_groups(bands, self.groups)
        rgb = self._rgb(native[10])
        out = {}
        for gsd in self.groups:
            guide = rgb if gsd == 10 else wald_downsample(rgb, gsd // 10)
            factor = upscale_factor(gsd)
            out[gsd] = self.fuse_group(gsd, guide, *(wald_downsample(native[s], factor) for s in self.sources[gsd]))
        return out

    def _rgb(self, native_10: Tensor) -> Tensor:
        return pick_channels(native_10, [self.groups[10].index(band) for band in RGB])


def split_groups(bands: Bands, groups: Groups = GROUPS) -> dict[int, Tensor]:
    """Bands in any accepted form → by GSD the group's (B, C, h, w), on their own grids."""
    if isinstance(bands, Tensor):
        return {gsd: bands[:, band_indices(names)] for gsd, names in groups.items()}
    given: dict[str | int, Tensor] = dict(bands.items())
    if all(gsd in given for gsd in groups):
        return {gsd: given[gsd] for gsd in groups}
    if "S2:Red" in given:
        given = {band: given[name] for band, name in REFERENCE_NAMES.items()}
    return {gsd: torch.cat([given[name] for name in names], 1) for gsd, names in groups.items()}


def merge_groups(outputs: Mapping[int, Tensor], groups: Groups = GROUPS) -> Tensor:
    """The groups of `FusionNetwork.forward`, all on one grid, as (B, 12, H, W) in `BANDS` order."""
    order = [name for names in groups.values() for name in names]
    stacked = torch.cat([outputs[gsd] for gsd in groups], 1)  # channels as in `order`
    return pick_channels(stacked, [order.index(band) for band in BANDS])


def pick_channels(x: Tensor, channels: Sequence[int]) -> Tensor:
    """Some channels of (B, C, H, W) in the given order; unlike an index, the list is never copied to the device."""
    return torch.stack([x[:, channel] for channel in channels], 1)


def upscale_factor(gsd: int) -> int:
    """From a group's native grid to 2.5 m: 4, 8 or 24."""
    return int(gsd / TARGET_GSD_M)


def resize_bilinear(x: Tensor, size: torch.Size) -> Tensor:
    """(B, C, h, w) → (B, C, *size): bilinear, pixel centres at halves, no antialiasing; unchanged if the size fits."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


def low_frequency(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) after Wald's reduction by a factor and bilinear enlargement back; same shape."""
    return resize_bilinear(wald_downsample(x, factor), x.shape[-2:])


def group_loss(out: Tensor, target: Tensor, gsd: int, low_weight: float = 0.075) -> Tensor:
    """Training loss of one group, a scalar: L1 + `low_weight` · L1 of the low frequencies (v1 trains with weight 0)."""
    loss = F.l1_loss(out, target)
    if low_weight:
        factor = upscale_factor(gsd)
        loss = loss + low_weight * F.l1_loss(low_frequency(out, factor), low_frequency(target, factor))
    return loss


class ConvBlock(nn.Module):
    """x + conv(relu(conv(x))), (B, C, h, w) → same shape; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv1.weight)
        nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv1(F.relu(self.conv0(x), inplace=True))
        return out
