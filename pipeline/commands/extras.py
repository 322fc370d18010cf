"""Packages that an extra of difffusr brings: which extra to install where one is missing.

What each extra brings is read from the installed package's own metadata.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import is_url

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from difffusr.pipeline.config import RunConfig


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
    from difffusr.pipeline.config import ICECHUNK

    if url.startswith(ICECHUNK):  # it reads and writes object stores by itself
        if not _is_installed("icechunk"):
            raise _needs(f"{ICECHUNK}…", "icechunk", _extra_with("icechunk", ""))
        return
    if not is_url(url):
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
            return  # unknown to fsspec: opening the store says so


def check_masks(config: RunConfig) -> None:
    """Raise ConfigError if a configuration's masks need a package that is not installed."""
    from difffusr.pipeline.scenes import ChipRules, maker_of

    maker_of(ChipRules(masks=config.scenes.masks)).check()


def check_workers(command: str) -> None:
    """Raise ConfigError if a package is not installed that only workers import: they would fail one by one."""
    for module in ("torch",):
        if not _is_installed(module):
            raise _needs(command, module, _extra_with(module, command))


def _needs(what: str, module: str, extra: str | None) -> ConfigError:
    package = f"difffusr[{extra}]" if extra else module
    return ConfigError(f"{what} needs the package {module}: pip install '{package}'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _extra_with(module: str, command: str) -> str | None:
    """The extra that brings a module: the one named like the command, else the first that lists its package.

    None for a package that comes with difffusr itself, and for one that no extra lists unless an extra has the
    command's name: then one of its packages needs it.
    """
    extras = _packages_of_extras()
    if any(_provides(package, module) for package in extras.pop("", ())):
        return None
    listing = [extra for extra, packages in extras.items() if any(_provides(package, module) for package in packages)]
    return command if command in extras and (command in listing or not listing) else next(iter(listing), None)


def _packages_of_extras() -> dict[str, set[str]]:
    """Names of the packages that each extra brings, in the project's order; "" for those that always come."""
    from importlib.metadata import PackageNotFoundError, metadata

    from packaging.requirements import Requirement

    try:
        facts = metadata("difffusr")
    except PackageNotFoundError:  # run from its sources
        return {}
    wanted = [Requirement(text) for text in facts.get_all("Requires-Dist") or []]
    always = [requirement for requirement in wanted if _applies(requirement, "")]
    found = {"": {requirement.name for requirement in always}}

    def packages(extra: str) -> set[str]:
        own = [requirement for requirement in wanted if requirement not in always and _applies(requirement, extra)]
        inner = [name for requirement in own if requirement.name == "difffusr" for name in requirement.extras]
        return {requirement.name for requirement in own}.union(*map(packages, inner))

    return found | {extra: packages(extra) for extra in facts.get_all("Provides-Extra") or []}


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _provides(package: str, module: str) -> bool:
    """Whether a module belongs to a package, by their names."""
    one, other = (re.sub(r"[-_.]+", "-", name).lower() + "-" for name in (package, module))
    return one.startswith(other) or other.startswith(one)
