"""A first configuration as a commented file: what was asked for, and commented out what else may be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from difffusr.pipeline.config.schema import MODELINE


@dataclass(frozen=True)
class Catalogue:
    """A STAC API that is known by name.

    Attributes:
        url: its address.
        collection: of Level-2A scenes.
        note: what whoever reads from it needs.
    """

    url: str
    collection: str
    note: str


#: The catalogues that `init` knows by name.
CATALOGUES = {
    "earth-search": Catalogue(
        "https://earth-search.aws.element84.com/v1",
        "sentinel-2-c1-l2a",
        "Element 84's Earth Search, files at AWS, in us-west-2: read without keys.",
    ),
    "planetary-computer": Catalogue(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        "sentinel-2-l2a",
        "Microsoft's Planetary Computer, files at Azure: pip install 'difffusr[planetary-computer]' signs requests.",
    ),
    "cdse": Catalogue(
        "https://stac.dataspace.copernicus.eu/v1",
        "sentinel-2-l2a",
        "ESA's CDSE: its S3 keys stand in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    ),
}

_AREA = {
    "bbox": "West, south, east, north in degrees (WGS84); or instead `tiles`, `geojson` or `file`.",
    "tiles": "MGRS tiles; or instead `bbox`, `geojson` or `file`.",
    "geojson": "A GeoJSON file with polygons; or instead `bbox`, `tiles` or `file`.",
    "file": "Polygons of a vector file, in any CRS; `where` chooses among them (OGR SQL). Or else `bbox` or `tiles`.",
}

_SOURCE = {
    "stac_api": "A STAC API; or instead `static_catalog` or `items`.",
    "static_catalog": "A static STAC catalogue; or instead `stac_api` or `items`.",
    "items": "A file of STAC items (GeoJSON or stac-geoparquet); or instead `stac_api` or `static_catalog`.",
}


def drafted(data: Mapping[str, Any], command: str) -> str:
    """A configuration's file.

    Args:
        data: its sections `area`, `period`, `source`, `model`, `store` and maybe `name`, `compute`.
        command: what is typed to run it, without `difffusr plan` or `run` before it.
    """
    area, source, model = data["area"], data["source"], data["model"]
    compute = data.get("compute", {})
    lines = [
        MODELINE,
        "# A run of DiffFuSR. Relative paths are relative to this file. Every key: `difffusr schema`.",
        "#",
        f"#     difffusr plan {command}    # which scenes, chips and shards",
        f"#     difffusr run {command}     # again after any interruption: it continues",
        "",
        *([f"name: {_flow(data['name'])}", ""] if "name" in data else []),
        "area:",
        *_said(area, _AREA),
        "",
        "# One step of the cube's time axis: 2024-06, 2024, 2024-06-05_2024-07-04 (both days included, UTC), or",
        "# last-month: the whole month before the current one.",
        f"period: {_flow(data['period'])}",
        "",
        "source:",
        *_said(source, {**_SOURCE, "collection": _note(source)}),
        "  # Scenes cloudier than this (per cent of the whole tile) are ignored. The rest are judged chip by chip.",
        "  max_cloud_cover: 80",
        "",
        "scenes:",
        "  # Which scene of a chip comes first: neighbours (few borders between dates), clearest, newest, or a date as",
        "  # closest_to(2024-06-15). What is cloudy in it comes from up to max_scenes scenes.",
        "  policy: neighbours",
        "  max_scenes: 3",
        "  # Brings scenes of different days and orbits to one brightness: none, nbar (view angles) or full.",
        "  # balance: full",
        "",
        "model:",
        *_said(
            model,
            {
                "preset": "small: weights that ship with the package and run on CPUs. published: the paper's networks, "
                "with their files.",
            },
        ),
        "  # reference, fast or draft: 19, 4 or no evaluations of the diffusion network a chip; without it what the",
        "  # weights are meant for.",
        "  # sampler: fast",
        "",
        "store:",
        "  # The cube: a path, or a URL such as s3://bucket/cube.zarr. Credentials come from the environment. What is",
        "  # staged lies beside it, in a folder that ends in .staging.",
        *_said(data["store"], {}),
        "",
        *_compute(compute),
        "",
        "# A webhook that is told how a run has ended. The variables hold its URL and the secret that messages are",
        "# signed with.",
        "# notify:",
        "#   url_env: DIFFFUSR_HOOK",
        "#   secret_env: DIFFFUSR_HOOK_SECRET",
        "",
        "# What things cost, for `difffusr plan --estimate`; with a calibration (`difffusr calibrate`) and a budget a",
        "# run that would cost more does not start.",
        "# costs:",
        "#   calibration: calibration.json",
        "#   currency: EUR",
        "#   prices: {gpu_hour: 0.90, cpu_hour: 0.04, gb_month: 0.023}",
        "# budget: 250",
    ]
    return "\n".join(lines) + "\n"


def _compute(compute: Mapping[str, Any]) -> list[str]:
    """The lines of the section `compute`, which may have nothing to say."""
    most = "# actors_max: 8 # of those that the GPUs, or on CPUs the cores, have room for"
    if "address" in compute:
        return [
            "compute:",
            "  # The Ray cluster: auto is the one that this machine belongs to.",
            *_said(compute, {}),
            f"  {most}",
        ]
    return [
        "# Ray is started on this machine. `address: auto` is the Ray cluster that it belongs to.",
        "# compute:",
        "#   address: auto",
        f"#   {most[2:]}",
    ]


def _said(section: Mapping[str, Any], comments: Mapping[str, str]) -> list[str]:
    """The keys of a section, each below its comment."""
    lines = []
    for key, value in section.items():
        if comment := comments.get(key):
            lines.append(f"  # {comment}")
        lines.append(f"  {key}: {_flow(value)}")
    return lines


def _note(source: Mapping[str, Any]) -> str:
    return next((one.note for one in CATALOGUES.values() if one.url == source.get("stac_api")), "")


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
    return text.removesuffix("...\n").strip()
