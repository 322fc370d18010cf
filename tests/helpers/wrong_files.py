"""Configuration files that are wrong, one table for the loader and for the JSON schema; and files that are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from configs import MINIMAL

#: Why a file is refused by the loader alone.
COMPARES = "JSON schema cannot compare two values"
CALENDAR = "leap years are beyond a pattern"
KINDS = "JSON has one kind of numbers"
NOT_JSON = "JSON has no such value"
NO_DATA = "it holds no data that a schema could look at"
INSTALLED = "what is known depends on what is installed"


@dataclass(frozen=True)
class Wrong:
    """A file that is refused.

    Attributes:
        text: of the file.
        what: is wrong: a part of the loader's message.
        only: why the schema takes it, or cannot be asked; "" where it refuses it, too.
    """

    text: str
    what: str
    only: str = ""

    def __str__(self) -> str:
        return self.what


def wrong(what: str, only: str = "", **sections: Any) -> Wrong:
    """The minimal configuration with some of its sections replaced."""
    return Wrong(yaml.safe_dump({**MINIMAL, **sections}), what, only)


def lacking(what: str, section: str) -> Wrong:
    """The minimal configuration without a section."""
    return Wrong(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != section}), what)


_ITEMS = {"items": "items.json"}
_ZONES = {"source": {"cube": "zones.zarr"}, "grid": {"crs": "EPSG:3035"}}

WRONG = (
    # what is no configuration
    Wrong("", "found nothing"),
    Wrong("- area\n", "found a list"),
    Wrong("just text\n", "found a str"),
    Wrong("area: {bbox: [1, 2, 3\n", "not valid YAML", NO_DATA),
    Wrong("name: a\nname: b\n", "key 'name' is given twice", NO_DATA),
    # sections
    *(lacking(f"{section}: missing", section) for section in ("area", "period", "source", "store")),
    wrong("stor: unknown key", stor={"url": "x"}),
    wrong("grid.overlp_px: unknown key", grid={"overlp_px": 24}),
    wrong("costs.prices.gpu: unknown key", costs={"prices": {"gpu": 1}}),
    wrong("area: found 7", area=7),
    wrong("area: found none", area=None),
    wrong("compute: found", compute=[1]),
    wrong("costs.prices: found", costs={"prices": None}),
    # name
    wrong("name: found '../x'", name="../x"),
    wrong("name: found ''", name=""),
    wrong("name: found", name="a" * 101),
    wrong("name: found 5", name=5),
    wrong("name: found null", name=None),
    # area
    wrong("area: found none, expected exactly one", area={}),
    wrong("area: found none, expected exactly one", area={"bbox": None}),
    wrong("area: found bbox and tiles", area={"bbox": [1, 2, 3, 4], "tiles": ["48QUE"]}),
    wrong("area: found geojson and file", area={"geojson": "a.geojson", "file": "b.gpkg"}),
    wrong("area.bbox: found [10, 50, 15]", area={"bbox": [10, 50, 15]}),
    wrong("area.bbox: found", area={"bbox": [10, 50, 15, 55, 60]}),
    wrong("area.bbox", area={"bbox": [10, 50, 190, 55]}),
    wrong("area.bbox", area={"bbox": [10, -95, 15, 55]}),
    wrong("area.bbox", area={"bbox": ["a", 50, 15, 55]}),
    wrong("area.bbox", area={"bbox": "10,50,15,55"}),
    wrong("area.bbox", COMPARES, area={"bbox": [10, 55, 15, 50]}),
    wrong("area.bbox", COMPARES, area={"bbox": [10, 50, 5, 55]}),
    wrong("area.bbox", COMPARES, area={"bbox": [10, 50, 10, 55]}),
    wrong("area.bbox", NOT_JSON, area={"bbox": [10, 50, float("nan"), 55]}),
    wrong("area.tiles: found []", area={"tiles": []}),
    wrong("area.tiles.0: found 5", area={"tiles": [5]}),
    wrong("area.tiles.1: found '99ZZZ'", area={"tiles": ["48QUE", "99ZZZ"]}),
    wrong("area.tiles.0: found '48QAE'", area={"tiles": ["48QAE"]}),  # no such column in zone 48
    wrong("area.tiles.0: found '48QUW'", area={"tiles": ["48QUW"]}),
    wrong("area.tiles.0: found '61QUE'", area={"tiles": ["61QUE"]}),
    wrong("area.tiles: found", area={"tiles": "48QUE"}),
    wrong("area.layer: found", area={"geojson": "a.geojson", "layer": "a"}),
    wrong("area.where: found", area={"bbox": [1, 2, 3, 4], "where": "a = 1"}),
    wrong("area.file: found ''", area={"file": ""}),
    # period
    wrong("period.end: missing", period={"start": "2023-06-01"}),
    wrong("period: found '2023-13'", period="2023-13"),
    wrong("period: found 'next-month'", period="next-month"),
    wrong("period: found true", period=True),
    wrong("period: found 202306", period=202306),
    wrong("period: found '2023-06-31_2023-07-04'", period="2023-06-31_2023-07-04"),
    wrong("period.start: found 'June'", period={"start": "June", "end": "2023-06-01"}),
    wrong("period.start: found '01.06.2023'", period={"start": "01.06.2023", "end": "2023-06-30"}),
    wrong("period.start: found 20230601", period={"start": 20230601, "end": "2023-06-30"}),
    wrong("period.end: found '2024-06-31'", period={"start": "2024-06-01", "end": "2024-06-31"}),
    wrong("period.end: found '2024-02-30'", period={"start": "2024-02-01", "end": "2024-02-30"}),
    wrong("period.end: found '2024-13-01'", period={"start": "2024-02-01", "end": "2024-13-01"}),
    wrong("period.start: found '0000-01-01'", period={"start": "0000-01-01", "end": "2024-01-01"}),
    wrong("period.end: found '2023-02-29'", CALENDAR, period={"start": "2023-02-01", "end": "2023-02-29"}),
    wrong("period.end: found", COMPARES, period={"start": "2023-06-30", "end": "2023-06-01"}),
    wrong("period.end: found", COMPARES, period="2023-07-04_2023-06-05"),
    # source
    wrong("source: found none", source={"collection": "x"}),
    wrong("source: found stac_api and items", source={"stac_api": "https://a/v1", "items": "b.json"}),
    wrong("source.stac_api: found 'earth-search'", source={"stac_api": "earth-search"}),
    wrong("source.stac_api", source={"stac_api": "s3://bucket/api"}),
    wrong("source.stac_api", source={"stac_api": "https:///v1"}),
    wrong("source.stac_api", INSTALLED, source={"stac_api": "https://host:port/"}),
    wrong("source.items", source={"items": "C:\\items.json"}),
    wrong("source.items", source={"items": "data\\items.json"}),
    wrong("source.items", source={"items": "file://server/items.json"}),
    wrong("source.max_cloud_cover: found 120", source={**_ITEMS, "max_cloud_cover": 120}),
    wrong("source.max_cloud_cover: found 'low'", source={**_ITEMS, "max_cloud_cover": "low"}),
    wrong("source.min_sun_elevation: found -91", source={**_ITEMS, "min_sun_elevation": -91}),
    wrong("source.max_left_out: found '110%'", source={**_ITEMS, "max_left_out": "110%"}),
    wrong("source.max_left_out: found 2", source={**_ITEMS, "max_left_out": 2}),
    wrong("source.unsigned: found 'my-bucket'", source={**_ITEMS, "unsigned": "my-bucket"}),
    wrong("source.unsigned.1: found 's3://other'", source={**_ITEMS, "unsigned": ["my-bucket", "s3://other"]}),
    wrong("source.collection: found ''", source={**_ITEMS, "collection": ""}),
    # grid
    wrong("grid.chip_px: found 200", grid={"chip_px": 200}),
    wrong("grid.chip_px: found 0", grid={"chip_px": 0}),
    wrong("grid.chip_px: found 192.5", grid={"chip_px": 192.5}),
    wrong("grid.chip_px: found 192.0", KINDS, grid={"chip_px": 192.0}),
    wrong("grid.overlap_px: found 20", grid={"overlap_px": 20}),
    wrong("grid.overlap_px: found 96", COMPARES, grid={"overlap_px": 96}),
    wrong("grid.shard_px: found 2000", COMPARES, grid={"shard_px": 2000}),
    wrong("grid.collar_m: found 30000", grid={"collar_m": 30000}),
    wrong("grid.crs: found 'EPSG:3035'", grid={"crs": "EPSG:3035"}),
    wrong("grid.resolution: found 5", grid={"resolution": 5}),
    # model
    wrong("model.preset: found 'large'", model={"preset": "large"}),
    wrong("model.fusion: found null", model={"preset": "published", "stage1": "a"}),
    wrong("model.stage1 and model.fusion: found null", model={"preset": "published"}),
    wrong("model.sampler: found 'slow'", model={"sampler": "slow"}),
    wrong("model.sampler_steps: found 30", model={"sampler_steps": 30}),
    wrong("model.sampler_steps: found 100", model={"sampler": "fast", "sampler_steps": 100}),
    wrong("model.sampler_steps: found 4", model={"sampler": "draft", "sampler_steps": 4}),
    wrong("model.temperature: found 3", model={"temperature": 3}),
    wrong("model.seed: found -1", model={"seed": -1}),
    wrong("model.seed: found true", model={"seed": True}),
    wrong("model.seed: found 9223372036854775808", model={"seed": 2**63}),
    wrong("model.consistency: found 'maybe'", model={"consistency": "maybe"}),
    wrong("model.uncertainty_samples: found 1", model={"uncertainty_samples": 1}),
    wrong("model.uncertainty_samples: found 2", model={"sampler": "draft", "uncertainty_samples": 2}),
    # scenes, skip
    wrong("scenes.min_clear_share: found 5", scenes={"min_clear_share": 5}),
    wrong("scenes.policy: found 'best'", scenes={"policy": "best"}),
    wrong("scenes.policy: found", scenes={"policy": "closest_to(June)"}),
    wrong("scenes.max_scenes: found 17", scenes={"max_scenes": 17}),
    wrong("scenes.masks: found 'fmask'", scenes={"masks": "fmask"}),
    wrong("scenes.max_offset: found 0", scenes={"max_offset": 0}),
    wrong("skip.water: found 1", skip={"water": 1}),
    # store
    wrong("store.url: missing", store={}),
    wrong("store.url: found null", store={"url": None}),
    wrong("store.url: 's3://' has no bucket", store={"url": "s3://"}),
    wrong("store.url: 's3:bucket/a.zarr' lacks //", store={"url": "s3:bucket/a.zarr"}),
    wrong("store.url: found credentials", store={"url": "s3://me:SECRET@bucket/cube.zarr"}),
    wrong("store.url: found credentials", store={"url": "https://host/cube.zarr?sig=SECRET"}),
    wrong("store.url: found 's4://b/c.zarr'", INSTALLED, store={"url": "s4://b/c.zarr"}),
    wrong("store.staging", store={"url": "a.zarr", "staging": "icechunk+s3://b/c"}),
    wrong("store.staging", COMPARES, store={"url": "a.zarr", "staging": "a.zarr/tmp"}),
    wrong("store.storage_options: found a value not shown", store={"url": "a.zarr", "storage_options": [1]}),
    wrong("store.keep_revisions: found 4", store={"url": "a.zarr", "keep_revisions": 4}),
    # compute, failures
    wrong("compute.batch: found 'four'", compute={"batch": "four"}),
    wrong("compute.batch: found 0", compute={"batch": 0}),
    wrong("compute.actors_min: found 0", compute={"actors_min": 0}),
    wrong("compute.actors_max: found 0", compute={"actors_max": 0}),
    wrong("compute.actors_max: found 2", COMPARES, compute={"actors_min": 3, "actors_max": 2}),
    wrong("compute.gpus_per_actor: found 1.5", compute={"gpus_per_actor": 1.5}),
    wrong("compute.gpus_per_actor: found 'all'", compute={"gpus_per_actor": "all"}),
    wrong("compute.gpus_per_actor: found -1", compute={"gpus_per_actor": -1}),
    wrong("compute.wait_minutes", compute={"wait_minutes": 20, "actors_max": 4}),
    wrong("compute.wait_minutes", compute={"wait_minutes": 20, "gpus_per_actor": 1}),
    wrong("failures.max_failed: found '1 of 10'", failures={"max_failed": "1 of 10"}),
    wrong("failures.stall_minutes: found 0", failures={"stall_minutes": 0}),
    # costs
    wrong("costs.prices.gpu_hour: found -1", costs={"prices": {"gpu_hour": -1}}),
    wrong("costs.prices.gpu_hour_spot: found 'cheap'", costs={"prices": {"gpu_hour_spot": "cheap"}}),
    wrong("costs.prices.cpu_hour: found", NOT_JSON, costs={"prices": {"cpu_hour": float("nan")}}),
    wrong("budget: found 250", budget=250),
    *(
        wrong("deadline: found", deadline=value)
        for value in ("soon", "6", 6, "-6h", "0h", "6 hours", "2026-12-01", "18:00", "2026-13-01T06:00Z", True, ["6h"])
    ),
    wrong("deadline: found", "no year has as many days", deadline="99999999d"),
    wrong("compute.preemption: found 'azure'", compute={"preemption": "azure"}),
    wrong("budget: found -1", budget=-1, costs={"calibration": "calibration.json"}),
    # notify
    wrong("notify: found a value not shown", notify="https://hooks.example/SECRET"),
    wrong("notify.url: found a value not shown, expected the https://", notify={"url": "http://hooks.example/SECRET"}),
    wrong("notify.url: found a value not shown, expected the https://", notify={"url": "/SECRET"}),
    wrong("notify.url: the URL (not shown", notify={"url": "https:///SECRET"}),
    wrong("notify: found url and url_env", notify={"url": "https://a.example/SECRET", "url_env": "HOOK"}),
    wrong("notify.url_env: found a value not shown", notify={"url_env": "https://a.example/SECRET"}),
    wrong("notify: found secret_env without url", notify={"secret_env": "KEY"}),
    wrong("notify.secret_env: found a value not shown", notify={"url_env": "HOOK", "secret_env": "SECRET-%"}),
    wrong("notify.events.0: found 'begun'", notify={"url_env": "HOOK", "events": ["begun"]}),
    wrong("notify.events: found []", notify={"url_env": "HOOK", "events": []}),
    # cubes of one CRS
    wrong("grid.crs: found null", source={"cube": "zones.zarr"}),
    wrong("derived[0].name: found '../x'", derived=[{"name": "../x", "crs": "EPSG:3035", "url": "e.zarr"}]),
    wrong("derived[0].url: missing", derived=[{"name": "x", "crs": "EPSG:3035"}]),
    wrong("derived: found", derived={"name": "x"}),
    wrong(
        "derived: found 'x', expected nothing", **_ZONES, derived=[{"name": "x", "crs": "EPSG:3035", "url": "e.zarr"}]
    ),
    wrong(
        "derived: found 'x, x'", COMPARES, derived=[{"name": "x", "crs": "EPSG:3035", "url": f"{u}.zarr"} for u in "ab"]
    ),
    wrong("store.url: found", COMPARES, **_ZONES, store={"url": "zones.zarr"}),
)

#: Files that both take: what is unusual, and at the edge of what is allowed.
RIGHT: tuple[dict[str, Any], ...] = (
    {},
    {"name": "a.b-c_1"},
    {"grid": None, "model": None, "scenes": None, "skip": None, "compute": None, "failures": None, "costs": None},
    {"notify": None, "budget": None, "derived": []},
    {"deadline": "6h", "compute": {"preemption": "file"}},
    {"deadline": "1 h 30 m"},
    {"deadline": "2026-12-01T06:00Z"},
    {"deadline": "2026-12-01 06:00:00+01:00"},
    {"area": {"bbox": [176, -20, -171, -10]}},
    {"area": {"bbox": [-180, -90, 180, 90], "tiles": None}},
    {"area": {"tiles": ["48QUE", "t33twm", "5QKB", "05QKB"]}},
    {"area": {"file": "countries.gpkg", "layer": "a", "where": "ISO_A3 = 'LUX'"}},
    {"area": {"geojson": "area #1?.geojson"}},
    {"period": "last-month"},
    {"period": 2023},
    {"period": "2023-06"},
    {"period": "2024-02-29_2024-03-04"},
    {"period": {"start": "2024-6-1", "end": "2024-06-30T00:00:00Z"}},
    {"source": {"stac_api": "HTTPS://host.example:8080/v1", "collection": None, "max_left_out": "10%"}},
    {"source": {"items": "s3://bucket/a b.json", "unsigned": ["my-bucket"], "max_left_out": 0}},
    {"source": {"static_catalog": "file:///data/catalog.json"}},
    {"source": {"items": "/data/back\\slash.json"}},
    {"model": {"sampler": "fast", "sampler_steps": 30}},
    {"model": {"sampler": "draft", "sampler_steps": None, "uncertainty_samples": 0}},
    {"model": {"sampler": "reference", "sampler_steps": 100, "uncertainty_samples": 32}},
    {"model": {"preset": "published", "stage1": "a.ckpt", "fusion": "https://host/b.ckpt"}},
    {"scenes": {"policy": "closest_to(2023-07-15)"}},
    {"store": {"url": "icechunk+s3://bucket/cube"}},
    {"store": {"url": "abfs://container@account/cube.zarr", "storage_options": {"anon": True}}},
    {"store": {"url": "cube.zarr", "staging": None, "keep_revisions": 3}},
    {"compute": {"gpus_per_actor": 0.5, "batch": 4, "actors_max": None}},
    {"compute": {"gpus_per_actor": 2, "actors_max": 4, "wait_minutes": 20}},
    {"failures": {"max_failed": "1%", "on_failed": "refuse"}},
    {"failures": {"max_failed": "0.5 %"}},
    {"costs": {"calibration": "calibration.json", "prices": {"gpu_hour": 1, "gpu_hour_spot": None}}, "budget": 250},
    {**_ZONES},
    {**_ZONES, "budget": 10},
    {"derived": [{"name": "europe", "crs": "EPSG:3035", "url": "europe.zarr", "staging": None}]},
    {"notify": {"url": "https://hooks.example/a?b=c"}},
    {"notify": {"url": "http://127.0.0.1:8080/hook", "secret_env": "KEY", "events": ["failed"]}},
    {"notify": {"url_env": "HOOK", "url": None}},
)
