"""The error for weights that cannot be used; importing it needs no torch."""

from __future__ import annotations


class WeightsError(ValueError):
    """Weights cannot be used; the message is one line that names the file and what is wrong with it."""
