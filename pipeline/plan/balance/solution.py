"""What is done to every scene of a plan, and why: made from a survey, kept in the plan, and used again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import RunConfig, ScenesSection
from difffusr.pipeline.engine import in_order
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.balance.fit import Fit, fit
from difffusr.pipeline.plan.balance.survey import Surveyed, survey
from difffusr.pipeline.scenes import ChipRules, Correction, Nadir, Scene, nadir_of
from difffusr.pipeline.storage import Storage

log = logging.getLogger("difffusr.planner")

#: Changed whenever the same scenes are balanced in another way.
_VERSION = 1

#: Gains and offsets (DN) are kept to these, factors to theirs: rounding does not depend on the machine.
_GAIN_STEP, _OFFSET_STEP, _FACTOR_STEP = 1e-4, 0.1, 2e-5

#: A scene keeps its former gain and offset while no band would come out different by more DN in the mean, and at a
#: corner: a further scene in the catalogue is no reason to compute all others again.
_SAME_DN, _SAME_CORNER_DN = 5.0, 20.0

#: DN at which gains are compared with offsets.
_TYPICAL_DN = 2000.0

_FILE = "balance.parquet"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Balanced:
    """Corrections of scenes.

    Attributes:
        fingerprint: identifies the scenes and settings that they were made for.
        version: by scene id, the `Scene.version_key` that the correction is for.
        correction: by scene id.
        angles, why: by scene id, where the angles are from, and why not from the granule's metadata.
        shift: by scene id, (12,) DN by which gain and offset move the scene's mean; zeros without `full`.
        before, after: by scene id, (12,) median absolute difference to overlapping scenes; NaN without any.
        group: by scene id; scenes of one number are linked by overlaps.
    """

    fingerprint: str
    version: Mapping[str, str]
    correction: Mapping[str, Correction]
    angles: Mapping[str, str]
    why: Mapping[str, str]
    shift: Mapping[str, Array]
    before: Mapping[str, Array]
    after: Mapping[str, Array]
    group: Mapping[str, int]

    def applied_to(self, scenes: Sequence[Scene]) -> list[Scene]:
        """The scenes with their corrections."""
        return [replace(scene, correction=self.correction.get(scene.id)) for scene in scenes]

    def to_parquet(self) -> bytes:
        """As a table: one row a scene."""
        rows = [self._row(scene) for scene in sorted(self.correction)]
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"fingerprint": self.fingerprint})
        out = BytesIO()
        pq.write_table(table, out, compression="zstd")
        return out.getvalue()

    def _row(self, scene: str) -> dict[str, Any]:
        one = self.correction[scene]
        grid = np.rint(one.factor.astype(np.float64) / _FACTOR_STEP).astype(np.uint16)
        return {
            "id": scene,
            "version": self.version[scene],
            "bands": list(BANDS),
            "gain": one.gain.tolist(),
            "offset": one.offset.ravel().tolist(),
            "shift": self.shift[scene].tolist(),
            "before": self.before[scene].tolist(),
            "after": self.after[scene].tolist(),
            "hazy": one.hazy,
            "group": self.group[scene],
            "angles": self.angles[scene],
            "why": self.why[scene],
            "left": one.left,
            "top": one.top,
            "side_m": one.side_m,
            "factor": grid.ravel().tolist(),
            "factor_rows": one.factor.shape[1],
            "factor_step": _FACTOR_STEP,
            "factor_left": one.factor_left,
            "factor_top": one.factor_top,
            "factor_step_m": one.factor_step_m,
        }

    @classmethod
    def from_parquet(cls, data: bytes) -> Balanced:
        """What `to_parquet` gave. Raises ValueError, KeyError or an error of pyarrow if it is something else."""
        table = pq.read_table(BytesIO(data))
        rows = table.to_pylist()
        fingerprint = (table.schema.metadata or {})[b"fingerprint"].decode()
        by_id = {row["id"]: row for row in rows}

        def column(name: str) -> dict[str, Any]:
            return {scene: row[name] for scene, row in by_id.items()}

        def arrays(name: str) -> dict[str, Array]:
            return {scene: np.array(row[name], np.float64) for scene, row in by_id.items()}

        corrections = {scene: _correction_of(row) for scene, row in by_id.items()}
        words = column("version"), corrections, column("angles"), column("why")
        return cls(fingerprint, *words, arrays("shift"), arrays("before"), arrays("after"), column("group"))


def _correction_of(row: Mapping[str, Any]) -> Correction:
    bands, factor = len(row["bands"]), np.array(row["factor"], np.float64) * row["factor_step"]
    return Correction(
        row["left"],
        row["top"],
        row["side_m"],
        np.array(row["gain"], np.float64),
        np.array(row["offset"], np.float64).reshape(bands, 2, 2),
        factor.astype(np.float32).reshape(bands, row["factor_rows"], -1),
        row["factor_left"],
        row["factor_top"],
        row["factor_step_m"],
        row["hazy"],
    )


def balance(config: RunConfig, scenes: Sequence[Scene], staging: Storage) -> Balanced | None:
    """What is to be done to each scene; None if the configuration wants nothing done.

    What an earlier plan found is used where scenes and settings are the same, and where it hardly differs.

    Args:
        staging: the run's own folder; it need not exist.
    """
    wishes = config.scenes
    if wishes.balance == "none":
        return None
    rules = ChipRules.of(config.canonical()["scenes"], staging)
    mark = _fingerprint(wishes, rules, scenes)
    before = _earlier(staging.child("plan"))
    if before is not None and before.fingerprint == mark:
        return before
    made = _nbar(scenes, wishes, mark) if wishes.balance == "nbar" else _full(scenes, wishes, rules, mark)
    _report(scenes, made, wishes)
    return made if before is None else _settled(before, made)


def write_balance(made: Balanced | None, plan: Storage) -> None:
    """Keep it beside the plan. Raises StoreError."""
    if made is not None:
        plan.write(_FILE, made.to_parquet())
    elif plan.exists(_FILE):
        plan.delete(_FILE)


def read_balance(plan: Storage) -> Balanced | None:
    """What a plan's folder holds; None if its scenes are not balanced.

    Raises:
        StoreError: it cannot be read.
    """
    if not plan.exists(_FILE):
        return None
    try:
        return Balanced.from_parquet(plan.read(_FILE))
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise StoreError(f"{plan.url}/{_FILE}: is damaged ({error}); delete it, and plan again") from None


def _earlier(plan: Storage) -> Balanced | None:
    """What an earlier plan found, None where there is none that can be read: it is made anew then."""
    try:
        return read_balance(plan)
    except StoreError as error:
        log.warning("%s; the balance is made anew", error)
        return None


def _fingerprint(wishes: ScenesSection, rules: ChipRules, scenes: Sequence[Scene]) -> str:
    settings: list[Any] = [_VERSION, wishes.balance, wishes.sun]
    if wishes.balance == "full":
        settings += [wishes.max_offset, rules.masks, rules.mask_version]
        settings += [rules.max_cloud_probability] if rules.masks == "asset" else []
        settings += [rules.dilate_cloud_m, rules.dilate_shadow_m] if rules.masks != "scl" else []
    content = [settings, sorted((scene.id, scene.version_key()) for scene in scenes)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _nbar(scenes: Sequence[Scene], wishes: ScenesSection, mark: str) -> Balanced:
    """Factors alone."""
    found = list(in_order(partial(nadir_of, sun=wishes.sun), scenes))
    shape = len(scenes), len(BANDS)
    unknown = np.full(shape, np.nan)
    nothing = Fit(np.ones(shape), np.zeros((*shape, 2, 2)), unknown, unknown, np.zeros(len(scenes), np.int32))
    squares = {number: (0.0, 0.0, 1.0) for number in range(len(scenes))}
    shift, hazy = np.zeros(shape), np.zeros(len(scenes), bool)
    return _collected(scenes, dict(enumerate(found)), squares, nothing, shift, hazy, mark)


def _full(scenes: Sequence[Scene], wishes: ScenesSection, rules: ChipRules, mark: str) -> Balanced:
    """Factors, gains and offsets."""
    found = survey(scenes, wishes.sun, rules)
    for number, error in sorted(found.unread.items()):
        log.warning("scene %s is not balanced: %s", scenes[number].id, error)
    solved = fit(found.pairs, found.mean, found.centre)
    solved, shift, hazy = guarded(solved, found, wishes.max_offset * 10_000)
    if hazy.any():
        _solve_again(found, solved, shift, hazy)
    return _collected(scenes, found.nadir, found.square, solved, shift, hazy, mark)


def _solve_again(found: Surveyed, solved: Fit, shift: Array, hazy: NDArray[np.bool_]) -> None:
    """Replace what was found of the scenes that are not hazy by what these alone say: haze so thick is uneven, and what
    gain and offset cannot follow of it would be spread over all scenes."""
    again = fit(found.pairs.without(hazy), found.mean, found.centre)
    again, moved, _ = guarded(again, found, np.inf)
    clear = ~hazy
    for name in ("gain", "offset", "before", "after"):
        getattr(solved, name)[clear] = getattr(again, name)[clear]
    solved.group[:] = again.group  # without them, others may be linked no more
    shift[clear] = moved[clear]


def guarded(solved: Fit, found: Surveyed, most: float) -> tuple[Fit, Array, NDArray[np.bool_]]:
    """The fit with offsets such that the mean over the scenes that are not hazy stays where it was; the DN (scenes,
    bands) by which each scene's mean moves; and which scenes are hazy: moved by more than `most` DN in some band,
    against the middle of those that they are linked with."""
    moved = (solved.gain - 1) * found.mean
    moved += np.einsum("sc,sbc->sb", found.centre, solved.offset.reshape(*solved.gain.shape, 4))
    shift, hazy = moved.copy(), np.zeros(len(moved), bool)
    for group in np.unique(solved.group):
        here = np.flatnonzero(solved.group == group)
        far = np.abs(moved[here] - np.median(moved[here], axis=0)).max(axis=1) > most
        kept = here[~far] if not far.all() else here
        drift = moved[kept].mean(axis=0)
        shift[here] = moved[here] - drift
        hazy[here] = np.abs(shift[here]).max(axis=1) > most
        solved.offset[here] -= drift[:, None, None]
    return solved, shift, hazy


def _collected(
    scenes: Sequence[Scene],
    nadir: Mapping[int, Nadir],
    squares: Mapping[int, tuple[float, float, float]],
    solved: Fit,
    shift: Array,
    hazy: NDArray[np.bool_],
    mark: str,
) -> Balanced:
    ids = {number: scenes[number].id for number in sorted(nadir)}
    corrections = {}
    for number, name in ids.items():
        one = nadir[number]
        corrections[name] = Correction(
            *squares[number],
            np.round(np.rint(solved.gain[number] / _GAIN_STEP) * _GAIN_STEP, 6),
            np.round(np.rint(solved.offset[number] / _OFFSET_STEP) * _OFFSET_STEP, 3),
            (np.rint(one.factor.astype(np.float64) / _FACTOR_STEP) * _FACTOR_STEP).astype(np.float32),
            one.left,
            one.top,
            one.step_m,
            bool(hazy[number]),
        )

    def by_id(values: Array) -> dict[str, Array]:
        return {name: np.round(values[number], 1) for number, name in ids.items()}

    return Balanced(
        mark,
        {name: scenes[number].version_key() for number, name in ids.items()},
        corrections,
        {name: nadir[number].source for number, name in ids.items()},
        {name: nadir[number].why for number, name in ids.items()},
        by_id(shift),
        by_id(solved.before),
        by_id(solved.after),
        {name: int(solved.group[number]) for number, name in ids.items()},
    )


def _settled(before: Balanced, made: Balanced) -> Balanced:
    """The new corrections, on the level of the former ones, and the former one of each scene that would hardly change.

    A further scene moves the mean of all, and would move every scene by the same few DN: those that were there before
    stay, and it joins them.
    """
    known = {scene for scene in made.correction if _comparable(before, made, scene)}
    linked: dict[int, list[str]] = {}
    for scene, group in made.group.items():
        linked.setdefault(group, []).append(scene)
    level = dict.fromkeys(linked, np.zeros(len(BANDS)))
    for group, scenes in linked.items():
        moved = [before.shift[scene] - made.shift[scene] for scene in scenes if scene in known]
        if 2 * len(moved) >= len(scenes):
            level[group] = np.round(np.median(moved, axis=0), 1)
    corrections, shift = dict(made.correction), dict(made.shift)
    for scene, one in made.correction.items():
        up = level[made.group[scene]]
        now = replace(one, offset=np.round(one.offset + up[:, None, None], 3))
        corrections[scene], shift[scene] = now, np.round(made.shift[scene] + up, 1)
        if scene in known:
            was = before.correction[scene]
            off = (now.gain - was.gain)[:, None, None] * _TYPICAL_DN + now.offset - was.offset
            if np.abs(off.mean(axis=(1, 2))).max() <= _SAME_DN and np.abs(off).max() <= _SAME_CORNER_DN:
                corrections[scene], shift[scene] = was, before.shift[scene]
    return replace(made, correction=corrections, shift=shift)


def _comparable(before: Balanced, made: Balanced, scene: str) -> bool:
    """Whether a scene was corrected before, in this version, with the same angles, and hazy or not as now."""
    was, now = before.correction.get(scene), made.correction[scene]
    if was is None or before.version[scene] != made.version[scene] or was.hazy != now.hazy:
        return False
    same_place = (was.left, was.top, was.side_m) == (now.left, now.top, now.side_m)
    return same_place and was.factor.shape == now.factor.shape and bool(np.array_equal(was.factor, now.factor))


def _report(scenes: Sequence[Scene], made: Balanced, wishes: ScenesSection) -> None:
    """Say once what is not known, and which scenes are hazy."""
    for source, what in (
        ("item", "balanced by the mean angles of their items, not by those of the granules"),
        ("nothing", "not brought to nadir: their angles are not known"),
    ):
        names = sorted(scene for scene, angles in made.angles.items() if angles == source)
        if names:
            log.warning(
                "%d of %d scenes are %s (%s …: %s)", len(names), len(scenes), what, names[0], made.why[names[0]]
            )
    alone = sorted(scene for scene, before in made.before.items() if np.isnan(before).all())
    if alone and wishes.balance == "full":
        log.warning(
            "%d of %d scenes share no ground with another that is clear in both and has not changed (%s …): they have "
            "neither gain nor offset",
            len(alone), len(made.correction), alone[0],
        )  # fmt: skip
    for scene, correction in sorted(made.correction.items()):
        if correction.hazy:
            worst = int(np.abs(made.shift[scene]).argmax())
            log.warning(
                "scene %s counts as hazy and is used last: it differs by %+.3f in %s from those it overlaps, more than "
                "scenes.max_offset: %g",
                scene, -made.shift[scene][worst] / 10_000, BANDS[worst], wishes.max_offset,
                extra={"scene": scene},
            )  # fmt: skip
