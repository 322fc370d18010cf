"""Square crops of many images at once: all images lie side by side in one table on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

#: Turns and flips of a square.
TURNS = 8


@dataclass(frozen=True)
class Crops:
    """Images of any sizes, and how crops of one size are drawn from them: one look-up, whatever their number.

    Attributes:
        size: side of a crop in pixels.
        pixels: (N, C), the pixels of all images, rows first.
        first, width: (L,) int64, by image: its first pixel in `pixels`, and its pixels a row.
        corners, columns: (L,) int64: how many places there are for the upper left corner of a crop, and in each row.
        listed, places: where an image has gaps, its corners without any are a list of their own: they begin at `listed`
            (L,) in `places` (int64, the corner's number); −1 where every corner will do.
        shares: (L,) float64, how often each image is drawn, summed up.
    """

    size: int
    pixels: Tensor
    first: Tensor
    width: Tensor
    corners: Tensor
    columns: Tensor
    listed: Tensor
    places: Tensor
    shares: Tensor

    @classmethod
    def of(
        cls,
        images: Sequence[Tensor],
        valid: Sequence[NDArray[np.bool_] | None],
        shares: NDArray[np.float64],
        size: int,
        each: int = 1,
    ) -> Crops:
        """Crops of images (H, W, C) of one dtype and device, none of them smaller than a crop.

        Args:
            valid: (H, W) where an image has data; None everywhere.
            shares: how often each image is drawn, before crops with gaps are refused: of `each` crops from one image
                all must be without.

        Raises:
            ValueError: no image has a crop without gaps.
        """
        device = images[0].device
        shapes = [(image.shape[0], image.shape[1]) for image in images]
        columns = [w - size + 1 for _, w in shapes]
        corners = [(h - size + 1) * c for (h, _), c in zip(shapes, columns, strict=True)]
        listed, places, kept = [], [np.zeros(1, dtype=np.int64)], shares.astype(np.float64)
        for i, where in enumerate(valid):
            found = None if where is None or where.all() else whole_corners(where, size)
            listed.append(-1 if found is None else sum(map(len, places)))
            if found is not None:
                kept[i] *= (len(found) / corners[i]) ** each
                corners[i] = max(1, len(found))
                places.append(found)
        if not kept.sum():
            raise ValueError(f"no crop of {size} × {size} pixels is without gaps")

        def whole(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        first = np.cumsum([0, *(h * w for h, w in shapes[:-1])])
        return cls(
            size,
            torch.cat([image.flatten(0, 1) for image in images]),
            whole(first.tolist()),
            whole([w for _, w in shapes]),
            whole(corners),
            whole(columns),
            whole(listed),
            torch.from_numpy(np.concatenate(places)).to(device),
            torch.from_numpy(np.cumsum(kept / kept.sum())).to(device),
        )

    def draw(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Crops as `shares` (B, 2 + each), float64 in [0, 1), have them: image, turn, and a place for each crop.

        Returns:
            (B, each, C, size, size), the crops of a row turned alike, in the dtype of the pixels; and the images'
            numbers (B,).
        """
        image = torch.searchsorted(self.shares, shares[:, 0].contiguous(), right=True).clamp_max(len(self.shares) - 1)
        corner = (shares[:, 2:] * self.corners[image][:, None]).long()
        listed = self.listed[image][:, None]
        corner = torch.where(listed < 0, corner, self.places[(listed + corner).clamp(0, len(self.places) - 1)])
        width, columns = self.width[image][:, None], self.columns[image][:, None]
        start = self.first[image][:, None] + corner // columns * width + corner % columns  # (B, each)
        down, right = width, torch.ones_like(width)
        upwards, leftwards, swapped = turn_bits(shares[:, 1:2])
        last = self.size - 1
        start = start + torch.where(upwards, last * down, 0) + torch.where(leftwards, last * right, 0)
        down, right = torch.where(upwards, -down, down), torch.where(leftwards, -right, right)
        down, right = torch.where(swapped, right, down), torch.where(swapped, down, right)
        i = torch.arange(self.size, device=start.device)
        inside = i[:, None] * down[..., None] + i * right[..., None]  # (B, size, size)
        index = start[..., None, None] + inside[:, None]
        found = self.pixels.index_select(0, index.flatten())
        return found.view(*index.shape, -1).movedim(-1, 2), image


def turn_bits(share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the eight turns a number in [0, 1) means: rows upside down, columns backwards, then both exchanged."""
    turn = (share * TURNS).long()
    return (turn & 1).bool(), (turn & 2).bool(), (turn & 4).bool()


def whole_corners(valid: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Numbers (row · columns + column) of the upper left corners of all squares without a gap, from (H, W)."""
    gaps = F.pad(torch.from_numpy(~valid).int().cumsum(0).cumsum(1), [1, 0, 1, 0])  # (H + 1, W + 1)
    inside = gaps[size:, size:] - gaps[:-size, size:] - gaps[size:, :-size] + gaps[:-size, :-size]
    return (inside == 0).flatten().nonzero()[:, 0].numpy()
