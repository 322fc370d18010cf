"""How values are written, as JSON schema says it: for editors, which check a file before it is loaded.

The loader's own checks are in `values`; a table of wrong files in the tests holds both together. Regular expressions
are those that Python and ECMAScript share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from difffusr.pipeline.ground.urls import OBJECT_STORES

_URL = r"[A-Za-z][A-Za-z0-9+.:-]*://"


def _any_case(word: str) -> str:
    """A pattern of a word in capital or small letters."""
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else re.escape(letter) for letter in word)


_FILE = _any_case("file") + ":"
_HTTP = _any_case("http") + "[Ss]?://"
_BUCKETS = "|".join(map(_any_case, OBJECT_STORES))

#: Texts that point nowhere (see `ground.urls.located`).
_NOWHERE = (
    r"[\x00-\x1f\x7f]",
    r"^([A-Za-z]:|\\\\)",  # of Windows
    rf"^(?!{_FILE}|{_URL})[A-Za-z][A-Za-z0-9+._-]*:",  # no // after the scheme
    rf"^(?!{_FILE}|{_URL}|/)[^\\]*\\",
    rf"^{_FILE}(?!/)",
    rf"^{_FILE}//(?!/|localhost/|127\.0\.0\.1/)",
    rf"^{_FILE}/*[A-Za-z][:|]",
    rf"^({_BUCKETS})://(/|$)",
    rf"^{_HTTP}([/?#:]|$)",
)


def _text(pattern: str | None = None, never: Iterable[str] = ()) -> dict[str, Any]:
    """A text that matches a pattern, and none of others."""
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if pattern is not None:
        schema["pattern"] = pattern
    if wrong := [{"pattern": one} for one in never]:
        schema["not"] = {"anyOf": wrong} if len(wrong) > 1 else wrong[0]
    return schema


PATH_OR_URL = _text(never=_NOWHERE)

STORAGE_URL = _text(
    # A path takes any letters; a URL no login with a password, and no query that may hold a key.
    never=(
        *_NOWHERE,
        rf"^{_URL}[^/?#]*:[^/?#]*@",
        rf"^(?!{_FILE}){_URL}[^?#]*\?[^#]*=",
        rf"^(?!{_FILE}|(icechunk\+)?({_BUCKETS})://){_URL}[^?#]*\?[^#]",
    )
)

HTTP_URL = _text(rf"^{_HTTP}", _NOWHERE)

#: Of a webhook: http:// is for this machine alone.
HOOK_URL = _text(
    rf"^({_any_case('https')}://|{_any_case('http')}://(localhost|127\.\d+\.\d+\.\d+|\[::1\])([:/]|$))", _NOWHERE
)

_DAY = (
    r"(?!0000)\d{4}-(?:(?:0?[13578]|1[02])-(?:0?[1-9]|[12]\d|3[01])|(?:0?[469]|11)-(?:0?[1-9]|[12]\d|30)"
    r"|0?2-(?:0?[1-9]|[12]\d))"
)
#: With two digits each.
_WHOLE_DAY = _DAY.replace("0?", "0")

DATE = _text(rf"^\s*{_DAY}(?:[Tt ]00:00(?::00(?:\.0+)?)?(?:[Zz]|[+-]00:?00)?)?\s*$")

#: A period by its name; as a number a year.
PERIOD_NAME = (
    _text(rf"^\s*((?!0000)\d{{4}}(-(0[1-9]|1[0-2]))?|{_WHOLE_DAY}_{_WHOLE_DAY}|last-month)\s*$"),
    {"type": "integer", "minimum": 1000, "maximum": 9999},
)

_UNIT = r"(?:[Dd]|[Hh]|[Mm][Ii][Nn]|[Mm]|[Ss])"

#: A deadline: some time, written in units, or a moment of a day.
DEADLINE = {
    "anyOf": [
        _text(rf"^\s*(?:\d{{1,9}}(?:\.\d{{1,9}})?\s*{_UNIT}\s*)+$", never=[r"^[^1-9]*$"]),
        _text(
            rf"^\s*{_WHOLE_DAY}[Tt ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{{1,6}})?)?"
            r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?\s*$"
        ),
        {"type": "null"},
    ]
}

POLICIES = ("neighbours", "clearest", "newest")

POLICY = {"anyOf": [{"enum": list(POLICIES)}, _text(rf"^\s*closest_to\(\s*{_WHOLE_DAY}\s*\)\s*$")]}

SHARE = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        _text(r"^\s*\+?(100(\.0*)?|\d{1,2}(\.\d*)?|\.\d+)\s*%\s*$"),
    ]
}


def tile(columns: Sequence[str]) -> dict[str, Any]:
    """An MGRS tile id in capital or small letters.

    Args:
        columns: letters of the columns, by zone modulo 3.
    """
    either = [
        f"(?:{'|'.join(_zone(zone) for zone in range(1, 61) if zone % 3 == rest)})"
        f"[C-HJ-NP-Xc-hj-np-x][{letters}{letters.lower()}]"
        for rest, letters in enumerate(columns)
    ]
    return _text(rf"^\s*[Tt]?(?:{'|'.join(either)})[A-HJ-NP-Va-hj-np-v]\s*$")


def _zone(number: int) -> str:
    return f"0?{number}" if number < 10 else str(number)
