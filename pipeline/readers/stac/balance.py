"""What balance did to the scenes of an item, as a property of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import ScenesSection
from difffusr.pipeline.plan import SceneBalance

#: Most scenes whose coefficients an item has; of more the cube's attribute alone has them.
_MOST_SCENES: Final = 100

_LINEAGE: Final = {
    "none": "",
    "nbar": ", scenes brought to nadir (c-factor)",
    "full": ", scenes brought to nadir (c-factor) and balanced with each other (gain and offset by granule and band)",
}


def balance_lineage(told: Mapping[str, Any]) -> str:
    """What a lineage says of a `balance_property`, with a comma before; "" for nothing."""
    return _LINEAGE[told["method"]]


def balance_property(made: Mapping[str, Any], scenes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The value of `difffusr:balance`.

    Args:
        made: the cube's provenance, which is that of its latest run.
        scenes: facts of the item's scenes, as `Cube.scenes` has them.

    Returns:
        `method` and, unless it is "none", `sun`, `max_offset` with "full", `formula`, `bands`, the number of `scenes`
        balanced and of hazy ones, `apart`: median over scenes of the difference to overlapping ones by band, before and
        after, reflectance; and `coefficients` by scene, in DN, where scenes are few enough.
    """
    wishes = made.get("config", {}).get("scenes", {})
    facts = [one for one in scenes if one.get("balance")]
    done = SceneBalance.of_cube(facts)
    if done is None:
        return {"method": "none"}
    few = len(facts) <= _MOST_SCENES
    return {
        **_method(wishes, done),
        "formula": "balanced DN = gain * factor * DN + offset; DN = 10000 * reflectance",
        "bands": list(BANDS),
        "scenes": {"balanced": len(done), "hazy": int(done.hazy.sum())},
        **({"apart": {"before": _medians(done.before), "after": _medians(done.after)}} if done.moved else {}),
        **({"coefficients": [_coefficients(one) for one in facts]} if few else {}),
        "described_in": (
            "pages of the cube's scenes, named by its root's attribute difffusr:scene_pages; the grid of a factor, of "
            "which this is the mean, in balance.parquet of the run's plan"
        ),
    }


def _method(wishes: Mapping[str, Any], done: SceneBalance) -> dict[str, Any]:
    """How scenes were balanced: as the latest run wished, if that can be how these were."""
    wished, defaults = wishes.get("balance", "none"), ScenesSection()
    method = "full" if done.moved or wished == "full" else "nbar"
    if method != wished:
        return {"method": method}
    most = {"max_offset": wishes.get("max_offset", defaults.max_offset)} if method == "full" else {}
    return {"method": method, "sun": wishes.get("sun", defaults.sun), **most}


def _coefficients(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a scene; every scene's have the same names, as the table of items needs it."""
    done = facts["balance"]
    unknown: Sequence[None] = [None] * len(BANDS)
    return {
        "id": str(facts["id"]),
        "gain": done["gain"],
        "factor": done["factor"],
        "offset": done["offset"],
        "square": done["square"],
        "hazy": bool(done["hazy"]),
        "before": done.get("before", unknown),
        "after": done.get("after", unknown),
    }


def _medians(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | None]:
    known = [column[np.isfinite(column)] for column in values.T]
    return [round(float(np.median(column)), 5) if column.size else None for column in known]
