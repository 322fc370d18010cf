"""Three bands drawn as red, green and blue, without any library for plots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Shares of values that are drawn black and white, in per cent.
_CLIPPED = 1.0, 99.0

#: Exponent that lightens what is dark.
_GAMMA = 1 / 1.4


def drawn(
    values: NDArray[np.floating | np.integer],
    seen: NDArray[np.bool_],
    low: float | None = None,
    high: float | None = None,
) -> NDArray[np.uint8]:
    """Red, green, blue and opacity.

    All three have one range: a range of their own would take away what is coloured, and colour what is grey.

    Args:
        values: (3, h, w).
        seen: (h, w), elsewhere it is transparent.
        low, high: what becomes black and white; by default the first and the last percentile.

    Returns:
        (h, w, 4).
    """
    shown = np.zeros((*values.shape[1:], 4), np.uint8)
    if not seen.any():
        return shown
    ground = values[:, seen].astype(np.float32)
    dark, bright = (
        end if given is None else given for given, end in zip((low, high), np.percentile(ground, _CLIPPED), strict=True)
    )
    part = np.clip((ground - dark) / max(bright - dark, np.finfo(np.float32).tiny), 0.0, 1.0) ** _GAMMA
    shown[seen, :3] = np.rint(part * 255).astype(np.uint8).T
    shown[..., 3] = seen * np.uint8(255)
    return shown
