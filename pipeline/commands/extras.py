"""Packages that an extra of difffusr brings: which extra to install where one is missing.

What each extra brings is read from the installed package's own metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from difffusr.pipeline.ground.errors import ConfigError


def missing_extra(error: ModuleNotFoundError, command: str) -> ConfigError | None:
    """What to tell the user of a command that failed to import a module.

    None where the module is part of difffusr or of what always comes with it: then the installation is broken.
    """
    module = (error.name or "").partition(".")[0]
    if module in ("", "difffusr"):
        return None
    extra = _extra_with(error.name or "", command)
    return None if extra is None else _needs(command, module, extra)


def check_store(url: str) -> None:
    """Raise ConfigError if a store's URL needs a package that is not installed."""
    from difffusr.pipeline.config.values import ICECHUNK

    if url.startswith(ICECHUNK):
        if not _is_installed("icechunk"):
            raise _needs(url.partition("://")[0], "icechunk", "icechunk")
        url = url.removeprefix(ICECHUNK)
    if "://" not in url:
        return
    import fsspec

    for protocol in urlsplit(url).scheme.split("::"):
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            cause = error.__cause__
            module = (cause.name if isinstance(cause, ImportError) else None) or protocol
            raise _needs(f"{protocol}://", module.partition(".")[0], _extra_with(module, "")) from None
        except ValueError:
            return  # unknown to fsspec: whoever opens the store says so


def _needs(what: str, module: str, extra: str | None) -> ConfigError:
    package = f"difffusr[{extra}]" if extra else module
    return ConfigError(f"{what} needs the package {module}: pip install '{package}'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _extra_with(module: str, command: str) -> str | None:
    """The extra that brings a module: the one named like the command, else the first that lists its package.

    None for a package that comes with difffusr itself, and for one that no extra lists unless an extra has the
    command's name: then one of its packages needs it.
    """
    listing = [extra for extra, package in _requirements() if _provides(package, module)]
    if "" in listing:
        return None
    named = [extra for extra, _ in _requirements() if extra == command]
    return next((extra for extra in listing if extra == command), None) or next(iter(listing + named), None)


def _requirements() -> Iterator[tuple[str, str]]:
    """Pairs of an extra, "" for none, and a package that it brings, in the order of the package's metadata."""
    try:
        facts = metadata("difffusr")
    except PackageNotFoundError:  # run from its sources
        return
    wanted = [Requirement(text) for text in facts.get_all("Requires-Dist") or []]
    for extra in ("", *(facts.get_all("Provides-Extra") or [])):
        for requirement in wanted:
            marker = requirement.marker
            always = marker is None or marker.evaluate({"extra": ""})
            if always if extra == "" else not always and marker is not None and marker.evaluate({"extra": extra}):
                yield extra, canonicalize_name(requirement.name)


def _provides(package: str, module: str) -> bool:
    """Whether a package of a canonical name is the one that a module belongs to, by their names."""
    name = canonicalize_name(module.replace(".", "-"))
    return name == package or name.startswith(f"{package}-") or package.startswith(f"{name}-")
