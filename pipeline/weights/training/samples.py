"""One held-out place for the contact sheet: measured, enlarged, predicted, true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """A row of a contact sheet.

    Attributes:
        name: of the place.
        images: by label, (3, H, W) reflectance on the CPU, over the same ground; sizes may differ.
    """

    name: str
    images: Mapping[str, Tensor] = field(repr=False)
