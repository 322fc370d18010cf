"""What balance did to the scenes of a plan or a cube, as tables, pages and JSON tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.plan.balance import Balanced
from difffusr.pipeline.plan.tables import Plan, StoredPlan
from difffusr.pipeline.scenes import Scene

#: Bands whose shift is shown where there is no room for all.
SHOWN_SHIFTS: Final = ("B02", "B04", "B08")

#: What is known of every band of a scene, and what turns the stored figure into the one that is told.
_BY_BAND: Final = {"gain": 1.0, "factor": 1.0, "shift": DN_SCALE, "before": DN_SCALE, "after": DN_SCALE}


@dataclass(frozen=True, eq=False)
class SceneBalance:
    """What was done to scenes; NaN by band where a figure is not known, as for scenes that could not be balanced.

    Attributes:
        ids: (s,) of the scenes.
        gain: (s, 12) in BANDS order.
        factor: (s, 12) mean of what brings the scene to nadir.
        shift: (s, 12) reflectance by which gain and offset move the scene's mean.
        before, after: (s, 12) median absolute difference to the scenes that it overlaps, reflectance.
        angles: (s,) where the angles are from: "granule", "item" or "nothing"; "" where it is not known.
        hazy: (s,) whether it was moved so far that it counts as under cloud.
    """

    ids: tuple[str, ...]
    gain: NDArray[np.float64]
    factor: NDArray[np.float64]
    shift: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    angles: tuple[str, ...]
    hazy: NDArray[np.bool_]

    @classmethod
    def of(cls, plan: Plan | StoredPlan) -> SceneBalance | None:
        """Of a plan's scenes, in their order; None if it does not balance any."""
        if isinstance(plan, StoredPlan):
            if "correction" not in plan.scenes:
                return None
            names = [name for name in ("id", "angles", "hazy", *_BY_BAND) if name in plan.scenes]
            return cls.of_rows(plan.scenes[names].to_dict("records"))
        if plan.balance is None:
            return None
        return cls.of_rows([{"id": scene.id, **_figures(plan.balance, scene.id)} for scene in plan.scenes])

    @classmethod
    def of_all(cls, made: Balanced) -> SceneBalance:
        """Of all scenes that were balanced, those that no chip uses included, in order of id."""
        return cls.of_rows([{"id": name, **_figures(made, name)} for name in sorted(made.correction)])

    @classmethod
    def of_cube(cls, scenes: Iterable[Mapping[str, Any]]) -> SceneBalance | None:
        """Of the facts of a cube's scenes; None if none of them is balanced."""
        rows = [{"id": str(facts["id"]), **facts["balance"]} for facts in scenes if facts.get("balance")]
        return cls.of_rows(rows) if rows else None

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]]) -> SceneBalance:
        """Of rows that have figures in DN by the names of the attributes; those that are missing are not known."""
        return cls(
            tuple(str(row["id"]) for row in rows),
            **{name: _by_band([row.get(name) for row in rows]) / unit for name, unit in _BY_BAND.items()},
            angles=tuple(row["angles"] if isinstance(row.get("angles"), str) else "" for row in rows),
            hazy=np.array([bool(row.get("hazy")) for row in rows], bool),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def balanced(self) -> NDArray[np.bool_]:
        """(s,) whether anything is known to have been done."""
        return np.asarray(np.isfinite(self.gain).any(axis=1))

    @property
    def moved(self) -> bool:
        """Whether gain and offset do anything, as with `full`; with `nbar` the factors alone do."""
        return bool((np.nan_to_num(self.shift) != 0).any() or (np.nan_to_num(self.gain, nan=1.0) != 1).any())

    def difference(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(s,) before and after: the mean over the bands."""
        return _mean_of_known(self.before), _mean_of_known(self.after)

    def to_json(self) -> list[dict[str, Any]]:
        """What tables show of each scene; None where it is not known. The plan's scenes.parquet has every band."""
        there, (before, after) = self.balanced, self.difference()
        shown = [BANDS.index(band) for band in SHOWN_SHIFTS]
        return [
            {
                "id": name,
                "balanced": bool(there[i]),
                "shift": dict(zip(SHOWN_SHIFTS, _known(self.shift[i, shown], 5), strict=True)),
                "gain": _known(_range(self.gain[i]), 4),
                "factor": _known(_range(self.factor[i]), 4),
                "before": _known(before[i : i + 1], 5)[0],
                "after": _known(after[i : i + 1], 5)[0],
                "angles": self.angles[i] or None,
                "hazy": bool(self.hazy[i]),
            }
            for i, name in enumerate(self.ids)
        ]


def balance_facts(plan: Plan, scene: Scene) -> dict[str, Any]:
    """What was done to a scene, for a cube's scene table; empty for nothing. Figures in DN, by band in BANDS order."""
    if scene.correction is None:
        return {}
    told = {} if plan.balance is None else _figures(plan.balance, scene.id)
    known: dict[str, Any] = {name: _known(told[name], 1) for name in ("shift", "before", "after") if name in told}
    return {**scene.correction.to_json(), **known, **({"angles": told["angles"]} if told else {})}


def _figures(made: Balanced, scene: str) -> dict[str, Any]:
    """A row for `SceneBalance.of_rows`; empty for a scene that could not be balanced."""
    done = made.correction.get(scene)
    if done is None:
        return {}
    return {
        "gain": done.gain,
        "factor": done.factor.mean(axis=(1, 2), dtype=np.float64),
        "hazy": done.hazy,
        "angles": made.angles[scene],
        "shift": made.shift[scene],
        "before": made.before[scene],
        "after": made.after[scene],
    }


def _by_band(rows: Sequence[Any]) -> NDArray[np.float64]:
    """(s, 12) of lists that may be missing, and of numbers that may."""
    out = np.full((len(rows), len(BANDS)), np.nan)
    for i, row in enumerate(rows):
        if row is not None and np.ndim(row) == 1 and len(row) == len(BANDS):
            out[i] = [np.nan if value is None else value for value in row]
    return out


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    there = np.isfinite(values)
    total, count = np.where(there, values, 0).sum(axis=1), there.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    there = values[np.isfinite(values)]
    return np.array([there.min(), there.max()]) if there.size else np.array([np.nan, np.nan])


def _known(values: NDArray[np.float64], digits: int) -> list[float | None]:
    """For JSON: NaN as None."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]
