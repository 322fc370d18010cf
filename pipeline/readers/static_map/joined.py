"""ES modules joined into one plain script, so that a page asks for one file instead of forty.

Understands modules as the TypeScript compiler writes them, with every import and export at the beginning of a line;
what it does not understand it refuses.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

_IMPORT = re.compile(r'^import\s+(?:(?P<default>\w+)|\{(?P<names>[^}]*)\})\s+from\s+"(?P<whence>[^"]+)";', re.MULTILINE)
_EXPORT_FROM = re.compile(r'^export\s+\{(?P<names>[^}]*)\}\s+from\s+"(?P<whence>[^"]+)";', re.MULTILINE)
_EXPORT_LIST = re.compile(r"^export\s+\{(?P<names>[^}]*)\};", re.MULTILINE)
_EXPORT_DEFAULT = re.compile(r"^export\s+default\s+(?P<name>\w+);", re.MULTILINE)
_EXPORTED = re.compile(
    r"^export\s+(?P<kept>(?:async\s+)?(?:function\s*\*?|class|const|let)\s+(?P<name>\w+))", re.MULTILINE
)
_LEFT = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


def joined(entry: str, file: Callable[[str], Path], name: str, places: Mapping[str, str] | None = None) -> str:
    """A script that makes what a module exports the properties of a global object.

    Args:
        entry: path of the module.
        file: of the module at a path.
        name: of the global object.
        places: paths of modules that are imported by the names of their packages.

    Raises:
        ValueError: a module is written in another way, or modules import each other in a circle.
    """
    parts: list[str] = []
    _add(entry, file, places or {}, {}, parts)
    return "\n".join(['"use strict";', "(() => {", *parts, f"globalThis.{name} = m{len(parts) - 1};", "})();", ""])


def _add(
    path: str,
    file: Callable[[str], Path],
    places: Mapping[str, str],
    known: dict[str, str | None],
    parts: list[str],
) -> str:
    """Add a module after those that it imports; returns the name of its exports."""
    if path in known:
        if (found := known[path]) is None:
            raise ValueError(f"{path} imports itself")
        return found
    known[path] = None
    exports: list[str] = []

    def source(whence: str) -> str:
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), whence))
        return _add(beside if whence.startswith(".") else places[whence], file, places, known, parts)

    def taken(match: re.Match[str]) -> str:
        pairs = _pairs(match["names"]) if match["default"] is None else [("default", match["default"])]
        return f"const {{ {', '.join(f'{theirs}: {ours}' for theirs, ours in pairs)} }} = {source(match['whence'])};"

    def passed_on(match: re.Match[str]) -> str:
        origin = source(match["whence"])
        exports.extend(f"{theirs}: {origin}.{ours}" for ours, theirs in _pairs(match["names"]))
        return ""

    def listed(match: re.Match[str]) -> str:
        exports.extend(f"{theirs}: {ours}" for ours, theirs in _pairs(match["names"]))
        return ""

    def made_default(match: re.Match[str]) -> str:
        exports.append(f"default: {match['name']}")
        return ""

    def declared(match: re.Match[str]) -> str:
        exports.append(match["name"])
        return match["kept"]

    text = file(path).read_text(encoding="utf-8")
    for pattern, act in (
        (_SOURCE_MAP, lambda _: ""), (_IMPORT, taken), (_EXPORT_FROM, passed_on), (_EXPORT_LIST, listed),
        (_EXPORT_DEFAULT, made_default), (_EXPORTED, declared),
    ):  # fmt: skip
        text = pattern.sub(act, text)
    if left := _LEFT.search(text):
        raise ValueError(f"{path}: cannot be joined: {left[0]}")
    known[path] = own = f"m{len(parts)}"
    parts.append(f"const {own} = (() => {{\n{text.strip()}\nreturn {{ {', '.join(exports)} }};\n}})();")
    return own


def _pairs(names: str) -> list[tuple[str, str]]:
    """Of `a, b as c`, the names on both sides of `as`."""
    pairs = [re.split(r"\s+as\s+", part.strip()) for part in names.split(",") if part.strip()]
    return [(pair[0], pair[-1]) for pair in pairs]
