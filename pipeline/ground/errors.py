"""The one error a user sees: what is wrong, where, and what to do about it."""

from __future__ import annotations

EXIT_DONE = 0


EXIT_FAILED = 1


EXIT_USAGE = 2


EXIT_INCOMPLETE = 3


class DifffusrError(Exception):
    """Something outside the code is wrong: input, catalogue, store, weights.

    The message is one line, complete by itself: what is wrong, where, and what to do. The command line prints it
    without a traceback and ends with `exit_code`.
    """

    exit_code = EXIT_FAILED


class ConfigError(DifffusrError):
    """The configuration or the command line is wrong (exit code 2). The message names the key."""

    exit_code = EXIT_USAGE


class CatalogError(DifffusrError):
    """The catalogue cannot be read, answers nothing, or an item is not understood. The message names the item."""


class ReadError(DifffusrError):
    """An asset cannot be read or does not lie where its item says. The message names scene, band and file."""


class StoreError(DifffusrError):
    """The store cannot be read or written. The message names its URL."""


class WeightsError(DifffusrError):
    """The weights cannot be loaded. The message names the file and what is missing."""
