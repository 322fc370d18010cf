"""The scenes that a cube was made of, found again in the catalogues of its runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from difffusr.pipeline.config import RunConfig, SourceSection, staging_beside
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.errors import CatalogError, DifffusrError, StoreError
from difffusr.pipeline.ground.unsigned import open_unsigned
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.scenes import Scene, find_scenes
from difffusr.pipeline.storage import Storage, read_document

#: Scenes that are remembered.
_REMEMBERED: Final = 256

#: Where a cube's run looked for scenes cannot be known without one of these.
_NO_SOURCE: Final = (
    "the cube does not say in which catalogue its scenes were found; start the map with the run's YAML file"
)


class OutOfReachError(LookupError):
    """No scene of a period can be found now. The message is one line."""


class SceneGoneError(LookupError):
    """A scene cannot be found or read. The message is one line."""


class _Manifest(BaseModel):
    """What is needed of a plan's manifest."""

    model_config = ConfigDict(extra="ignore")

    config: dict[str, Any] = {}


class Inputs:
    """Finds the scenes of a cube, one by one: a search of one day and one tile, so that it is as fast in a cube of a
    hundred thousand scenes."""

    def __init__(self, cube: Cube, staging: Storage | None = None, config: RunConfig | None = None) -> None:
        """Asks nobody yet.

        Args:
            staging: the cube's staging folder, which may be deleted.
            config: the run's, if the cube was given by one: its catalogue takes precedence.
        """
        self._scenes = cube.scenes
        self._staging = staging if cube.derived_from is None else _staging_of(cube.derived_from, config)
        self._given = None if config is None or config.source.cube is not None else config.source
        self._told = cube.made_with.get("config") or {}
        self._newest = max((days, label) for zone in cube.zones for label, (_, days) in cube.periods(zone).items())[1]
        self._sources: dict[str, SourceSection] = {}
        self._found: OrderedDict[tuple[str, int], Scene] = OrderedDict()
        self._lock = Lock()

    @property
    def why_not(self) -> str | None:
        """Why no scene can be looked for, in one line; None if it can be tried."""
        known = self._given or _source_in(self._told) or self._planned(self._newest)
        return None if known else _NO_SOURCE

    def scene(self, period: str, number: int) -> Scene:
        """A scene by its number in the cube.

        Args:
            period: one that has it.

        Raises:
            OutOfReachError: the catalogue of that period's run is not known or cannot be read.
            SceneGoneError: the catalogue no longer has the scene.
        """
        facts = self._scenes.get(number)
        if facts is None:
            raise SceneGoneError(f"the cube has no scene {number}")
        if (known := self._found.get((period, number))) is not None:
            return known
        with self._lock:  # one search at a time; who waited for it may find what it found
            if (period, number) not in self._found:
                found = _searched(self._source(period), facts)
                while len(self._found) >= _REMEMBERED:
                    self._found.popitem(last=False)
                self._found[period, number] = found
            return self._found[period, number]

    def _source(self, period: str) -> SourceSection:
        """Where the run of a period looked for scenes."""
        if period not in self._sources:
            found = self._given or self._planned(period) or _source_in(self._told)
            if found is None:
                raise OutOfReachError(_NO_SOURCE)
            self._sources[period] = found
        return self._sources[period]

    def _planned(self, period: str) -> SourceSection | None:
        """As the plan of the period's run says, if it is kept."""
        if self._staging is None:
            return None
        with suppress(StoreError):
            folder = self._staging.child(f"runs/{period}")
            return _source_in(read_document(folder, "published/manifest.json", _Manifest, "").config)
        return None


def _staging_of(source: str, config: RunConfig | None) -> Storage | None:
    """The staging folder of the cube that a cube of one CRS is made of."""
    if config is not None and config.source.cube is not None and config.source.staging:
        return Storage(config.source.staging, config.store.storage_options)
    options = {} if config is None else config.store.storage_options
    with suppress(DifffusrError, ValueError):
        return Storage(staging_beside(source), options)
    return None


def _source_in(config: Mapping[str, Any]) -> SourceSection | None:
    """The catalogue that a stored configuration names; None if this version cannot read it, or there is none."""
    with suppress(ValidationError):
        found = SourceSection.model_validate(config.get("source"))
        return found if found.cube is None else None
    return None


def _searched(source: SourceSection, facts: Mapping[str, Any]) -> Scene:
    """See `Inputs.scene`."""
    name, tile, day = str(facts["id"]), facts.get("tile"), str(facts.get("datetime", ""))[:10]
    # Without limits: what they leave out now was good enough for the run.
    anywhere = {"max_cloud_cover": 100.0, "max_nodata": 100.0, "max_snow_cover": 100.0, "min_sun_elevation": -90.0}
    try:
        config = RunConfig.model_validate(
            {
                "name": "view",
                "area": {"tiles": [tile]},
                "period": {"start": day, "end": day},
                "source": source.model_copy(update={**anywhere, "max_left_out": 1.0}),
                "store": {"url": "/nowhere"},
            }
        )
    except ValidationError:
        raise SceneGoneError(f"the cube does not say of which tile and day scene {name} is") from None
    if source.unsigned:
        open_unsigned(source.unsigned)
    try:
        found = {scene.id: scene for scene in find_scenes(config)}
    except CatalogError as error:
        if str(error).startswith("no scene found"):
            raise SceneGoneError(f"scene {name} is no longer in its catalogue ({one_line(error)})") from None
        raise OutOfReachError(f"the scenes are out of reach: {one_line(error)}") from None
    except DifffusrError as error:
        raise OutOfReachError(f"the scenes are out of reach: {one_line(error)}") from None
    if name not in found:
        raise SceneGoneError(f"scene {name} is no longer in its catalogue, which has {', '.join(found)} of that day")
    return found[name]
