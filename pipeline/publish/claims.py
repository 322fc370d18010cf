"""Which driver writes where: claims on the keys of a plain store.

A Zarr array's keys have no room for the number of an attempt, but an array has four sets of keys, one for each chunk
key encoding, and each revision of a zone uses the next. So two attempts that might write different pixels to one key
are kept apart by their sets: who takes over while a writer of the attempt before may still be at work, with other
pixels, writes a new revision.

An attempt keeps its claims in an object of its own, ``claims/{lease}.json``: which revision and step of each zone it
writes, for which period and with which pixels. The object is written before anything else is, and the lease is read
after that: so of two drivers that overlap, the later one sees the claim, or the earlier one sees the later lease.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace

from difffusr.pipeline.cube import ENCODINGS
from difffusr.pipeline.storage import Lease, Storage, read_document

_FOLDER = "claims"

#: Names of its documents; whatever else lies in the folder is a stranger's.
_NUMBERED = re.compile(r"\d{8,18}\.json", re.ASCII)

_ADVICE = "delete it, and run again"

#: Where earlier versions noted revision, step and period by zone.
_EARLIER = "claims.json"


@dataclass(frozen=True)
class Claim:
    """What an attempt writes in a zone.

    Attributes:
        revision, step, label: the zone's revision, and which period at which index in time.
        pixels: digest of what all of its shards will hold.
        revised: whether the revision is a new one: then objects of other periods are copied into it, too.
        ready: whether nothing that others have left is there any more.
    """

    revision: int
    step: int
    label: str
    pixels: str = ""
    revised: bool = False
    ready: bool = True

    def is_for(self, other: Claim) -> bool:
        """Whether both are for the same period at the same place."""
        return (self.revision, self.step, self.label) == (other.revision, other.step, other.label)

    def meets(self, other: Claim) -> bool:
        """Whether both may write the same key."""
        same = _keys(self.revision) == _keys(other.revision)
        return same and (self.step == other.step or self.revised or other.revised)


@dataclass(frozen=True)
class Claims:
    """The claims of one attempt.

    Attributes:
        attempt: number of its lease; 0 without one.
        zones: by EPSG code.
        open: whether its writers may be at work.
        clearing: by EPSG code, the revisions whose objects it is deleting.
    """

    attempt: int
    zones: Mapping[int, Claim] = field(default_factory=dict)
    open: bool = True
    clearing: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As an object of the staging folder."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()


class ClaimBook:
    """All claims on a cube, as found, and this attempt's own.

    Args:
        lease: this attempt's; None for who only reads, and for a driver that is alone for sure.
    """

    def __init__(self, staging: Storage, lease: Lease | None) -> None:
        self._staging, self._lease = staging, lease
        self._attempt = lease.number if lease is not None else 0
        self._silent = frozenset(lease.holder.silent if lease is not None else ())
        found = {claims.attempt: claims for claims in _read(staging)}
        # Without a lease there is one attempt: the same each time.
        self._own = found.pop(self._attempt, Claims(self._attempt, open=False))
        self._others = [found[attempt] for attempt in sorted(found)]

    def of_zone(self, epsg: int) -> Claim | None:
        """Who wrote to a zone last, or None."""
        claims = [claims.zones[epsg] for claims in (*self._others, self._own) if epsg in claims.zones]
        return claims[-1] if claims else None

    def is_free(self, epsg: int, wanted: Claim) -> bool:
        """Whether nobody else may still write, or delete, what this attempt is about to write."""
        return not any(self._is_in_the_way(claims, epsg, wanted) for claims in self._others)

    def note(self, zones: Mapping[int, Claim]) -> None:
        """Make claims, in place of this attempt's own of the same zones, and read the lease."""
        own = replace(self._own, zones={**self._own.zones, **zones}, open=True)
        if own != self._own:
            self._write(own)
            self._drop_outdated()
        self.check()

    def note_clearing(self, revisions: Mapping[int, Collection[int]]) -> None:
        """Note that objects of these revisions are about to be deleted, and read the lease."""
        self._write(replace(self._own, clearing={epsg: tuple(some) for epsg, some in revisions.items()}))
        self.check()

    @property
    def is_clearing(self) -> bool:
        """Whether this attempt, or one before that has died of it, has begun to delete revisions."""
        return any(claims.clearing for claims in (*self._others, self._own))

    def close(self) -> None:
        """No writer of this attempt is at work any more, and nothing is being deleted."""
        if self._own.open or self._own.clearing:
            self._write(replace(self._own, open=False, clearing={}))

    def check(self) -> None:
        """Read the lease."""
        if self._lease is not None:
            self._lease.check()

    def guard(self) -> None:
        """See `Lease.guard`."""
        if self._lease is not None:
            self._lease.guard()

    def _is_in_the_way(self, claims: Claims, epsg: int, wanted: Claim) -> bool:
        # A driver that is dead for sure deletes nothing more. Its workers may still write what it has told them to.
        is_silent = claims.attempt in self._silent
        if is_silent and any(_keys(revision) == _keys(wanted.revision) for revision in claims.clearing.get(epsg, ())):
            return True
        claim = claims.zones.get(epsg)
        if not claims.open or claim is None or not claim.meets(wanted):
            return False
        return not claim.is_for(wanted) or claim.pixels != wanted.pixels or (is_silent and not claim.ready)

    def _drop_outdated(self) -> None:
        """Delete the claims of attempts that have ended, where there are newer ones of the same zones."""
        newer = set(self._own.zones)
        for claims in reversed(self._others):
            if not claims.open and newer >= set(claims.zones):
                self._staging.delete(_EARLIER if claims.attempt < 0 else _name(claims.attempt))
            newer |= set(claims.zones)

    def _write(self, own: Claims) -> None:
        self._staging.write(_name(self._attempt), own.to_json())
        self._own = own


def _read(staging: Storage) -> list[Claims]:
    names = [f"{_FOLDER}/{name}" for name in staging.names(_FOLDER) if _NUMBERED.fullmatch(name)]
    found = [read_document(staging, name, Claims, _ADVICE) for name in names]
    if staging.exists(_EARLIER):
        before = read_document(staging, _EARLIER, dict[int, tuple[int, int, str]], _ADVICE)
        found.append(Claims(-1, {epsg: Claim(*claim) for epsg, claim in before.items()}, open=False))
    return found


def _name(attempt: int) -> str:
    return f"{_FOLDER}/{attempt:08d}.json"


def _keys(revision: int) -> int:
    """Which set of keys a revision has."""
    return revision % len(ENCODINGS)
