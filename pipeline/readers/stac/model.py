"""The item of the model that made a cube, by the MLM extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shapely.geometry import mapping

from difffusr.kernels.bands import BANDS, GROUPS, SCALE
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.readers.footprints import box_around, shape_of
from difffusr.pipeline.readers.stac.words import SHA256, STAC_VERSION, extensions_of


def model_of(cube: Cube, name: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document of the model: networks, weights and sampling, by the MLM extension.

    Place and time are the cube's. Weights that ship with the package are addressed
    within the package, other files as in the run's configuration.

    Args:
        name: the collection's id.
        items: those of `items_of`.
    """
    made = cube.made_with
    whole = box_around(tuple(item["bbox"]) for item in items)
    chip, own = made["config"]["grid"]["chip_px"], made["config"]["model"]
    properties = {
        "title": f"DiffFuSR, weights {own['preset']}",
        "description": (
            "Super-resolution of all 12 Sentinel-2 L2A bands to 2.5 m: a blind diffusion model for red, green and blue "
            "and a fusion network for all bands (arXiv 2506.11764)"
        ),
        "datetime": None,
        "start_datetime": min(item["properties"]["start_datetime"] for item in items),
        "end_datetime": max(item["properties"]["end_datetime"] for item in items),
        "mlm:name": "DiffFuSR",
        "mlm:architecture": "DDPM and fusion network",
        "mlm:tasks": ["super-resolution"],
        "mlm:framework": "pytorch",
        "mlm:framework_version": made["software"]["torch"],
        "mlm:pretrained": True,
        "mlm:hyperparameters": {"seed": own["seed"], **made["sampling"]},
        "mlm:input": [_tensor(f"{gsd} m", list(bands), chip * 10 // gsd, "input") for gsd, bands in GROUPS.items()],
        "mlm:output": [
            {
                **_tensor("2.5 m", list(BANDS), chip * SCALE, "result"),
                "tasks": ["super-resolution"],
                "classification:classes": [],
            }
        ],
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions_of("mlm", "file"),
        "id": f"{name}_model",
        "geometry": mapping(shape_of(whole)),
        "bbox": list(whole),
        "properties": properties,
        "assets": {stage: _weights_asset(made, stage, sha256) for stage, sha256 in _weights(cube).items()},
        "links": [{"rel": "about", "href": "https://arxiv.org/abs/2506.11764", "type": "text/html"}],
    }


def _tensor(name: str, bands: list[str], size: int, kind: str) -> dict[str, Any]:
    structure = {
        "shape": [-1, len(bands), size, size],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    return {"name": name, "description": "surface reflectance", "bands": bands, kind: structure}


def _weights_asset(made: Mapping[str, Any], stage: str, sha256: str) -> dict[str, Any]:
    given = made["config"]["model"].get(stage)
    shipped = f"pkg:pypi/difffusr@{made['software']['difffusr']}#kernels/weights/{made['config']['model']['preset']}"
    href = bare_href(given) if given else f"{shipped}-{stage}.safetensors"
    kind = "safetensors" if href.endswith(".safetensors") else "torch.save"
    return {
        "href": href,
        "type": "application/octet-stream",
        "title": {"stage1": "diffusion model of red, green and blue", "fusion": "fusion network"}[stage],
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": kind,
        "file:checksum": f"{SHA256}{sha256}",
    }


def _weights(cube: Cube) -> dict[str, str]:
    """sha256 of both stages' weights; empty if the cube does not name them."""
    weights: dict[str, str] = cube.made_with.get("weights", {})
    return weights
