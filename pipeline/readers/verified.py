"""What `verify` last found of a period, kept in the folder of its runs: `status` shows it without reading the cube."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish import latest_number
from difffusr.pipeline.run import Damaged, is_damage_noted, note_damaged
from difffusr.pipeline.storage import Storage, read_document

_log = logging.getLogger(__name__)

_NAME = "verified.json"

_COUNTED = ("missing", "damaged", "incomplete", "documents", "chips")

_OTHERS = {"documents": "documents and coordinates", "chips": "staged chips"}

_SINCE = {"mended": "damage written again since", "published_since": "published again since"}

_BETWEEN = {"dates": "between dates", "granules": "between granules", "all": "between scenes", "zones": "between zones"}


def keep_verdict(folder: Storage, found: Mapping[str, Any], publication: int) -> None:
    """Write down what was found; a folder that cannot be written to is a warning.

    Args:
        folder: of the period's runs.
        found: the report of `verify` as plain data.
        publication: number of the one that was checked.
    """
    verdict = {
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "publication": publication,
        "clean": found["clean"],
        **{name: len(found[name]) for name in _COUNTED},
        "bands_off": [band["band"] for band in found["bands"] if not band["ok"]],
        "sources": found["sources"],
        "worst_border": found["worst_border"],
    }
    try:
        shards = (*found["missing"], *found["damaged"])
        note_damaged(folder, Damaged(shards, tuple(found["chips"]), tuple(found["documents"])))
        folder.write(_NAME, json.dumps(verdict, indent=1).encode())
    except StoreError as error:
        _log.warning("status and the next run will not know what verify found: %s", error)


def read_verdict(folder: Storage, cube_staging: Storage) -> dict[str, Any] | None:
    """What was last written down, `published_since`, whether the cube was published after that, and `mended`, whether a
    run has written again what was damaged; None for nothing.

    Raises:
        StoreError: it cannot be read.
    """
    if not folder.exists(_NAME):
        return None
    kept = read_document(folder, _NAME, _Verdict, "delete it")
    named = kept.missing or kept.damaged or kept.chips or kept.documents
    mended = bool(named) and not is_damage_noted(folder)
    return {**kept.model_dump(), "published_since": latest_number(cube_staging) != kept.publication, "mended": mended}


class _Part(BaseModel):
    """What is shown; the rest is kept beside it."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")


class _Band(_Part):
    band: str
    ratio: float | None
    ok: bool


class _Kind(_Part):
    kind: Literal["dates", "granules", "all"]
    borders: int
    ok: bool
    bands: list[_Band]


class _Verdict(_Part):
    when: str
    publication: int
    clean: bool
    missing: int
    damaged: int
    incomplete: int
    documents: int = 0
    chips: int = 0
    bands_off: list[str]
    sources: list[_Kind]


def verdict_words(verdict: dict[str, Any]) -> str:
    """One line of it."""
    when = f"{verdict['when'][:16].replace('T', ' ')} UTC"
    faults = [f"{verdict[name]:,} shards {name}" for name in ("missing", "damaged", "incomplete") if verdict[name]]
    faults += [f"{verdict[name]:,} {what} damaged" for name, what in _OTHERS.items() if verdict.get(name)]
    faults += [f"off: {', '.join(verdict['bands_off'])}"] if verdict["bands_off"] else []
    faults += _off_between(verdict["sources"])
    found = "clean" if verdict["clean"] else f"not clean ({'; '.join(faults)})"
    since = [words for key, words in _SINCE.items() if verdict.get(key)]
    return "; ".join([f"{when}: {found}", *since])


def seam_words(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    """Of the kinds of borders that there are: `seams between dates`, `1.02 to 1.31 over 120 borders`."""
    return [
        (f"seams {_BETWEEN[kind['kind']]}", f"{min(known):.2f} to {max(known):.2f} over {kind['borders']:,} borders")
        for kind in verdict["sources"]
        if kind["kind"] != "all" and (known := [band["ratio"] for band in kind["bands"] if band["ratio"] is not None])
    ]


def _off_between(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of borders that are off, with the bands; all together only where no kind alone is."""
    off = [kind for kind in sources if not kind["ok"]]
    named = [kind for kind in off if kind["kind"] != "all"] or off
    bands = [", ".join(band["band"] for band in kind["bands"] if not band["ok"]) for kind in named]
    return [f"seams {_BETWEEN[kind['kind']]} in {which}" for kind, which in zip(named, bands, strict=True)]
