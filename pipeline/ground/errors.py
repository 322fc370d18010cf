"""Errors that users see: what is wrong, where, and what to do. And the exit codes of the command line."""

from __future__ import annotations

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3


class DifffusrError(Exception):
    """Something outside the code is wrong: input, catalogue, store, weights.

    The message is one line that says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with `exit_code`.
    """

    exit_code = EXIT_FAILED


class ConfigError(DifffusrError):
    """The configuration or the command line is wrong (exit code 2). The message names the key."""

    exit_code = EXIT_USAGE


class BudgetError(DifffusrError):
    """A run would cost more than its budget; nothing was started."""


class CatalogError(DifffusrError):
    """The catalogue cannot be read, has no scene, or an item is not understood. The message names the item."""


class ReadError(DifffusrError):
    """An asset cannot be read or is not where its item says. The message names scene, band and file."""


class StoreError(DifffusrError):
    """The store cannot be read or written. The message names its URL."""


class CoverageError(DifffusrError):
    """A cube has nothing of a place or period: nobody has written it. The message names the place."""


class WeightsError(DifffusrError):
    """The weights cannot be loaded. The message names the file and what is missing."""
