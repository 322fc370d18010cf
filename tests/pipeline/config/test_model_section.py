"""`model`: what a sampler and its uncertainty can be asked for, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "name": "a",
    "area": {"bbox": [103.7, 17.87, 103.76, 17.97]},
    "period": {"start": "2020-02-01", "end": "2020-02-29"},
    "source": {"static_catalog": "/a/catalog.json"},
    "store": {"url": "/out/cube.zarr"},
}


def configured(**model: Any) -> RunConfig:
    return RunConfig.model_validate({**MINIMAL, "model": {"sampler_steps": 2, **model}})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("sampler: best", "model.sampler: found 'best', expected 'reference', 'fast' or 'draft', or null"),
        ("sampler: reference\n  sampler_steps: 7", "model.sampler_steps: found 7, expected an integer from 2"),
        ("sampler: fast\n  sampler_steps: 100", "from 2 to 50 with model.sampler 'fast'"),
        ("sampler: fast\n  sampler_steps: 1", "model.sampler_steps: found 1"),
        ("sampler: draft\n  sampler_steps: 10", "model.sampler_steps: found 10, expected null: not valid with"),
        ("sampler: draft\n  temperature: 0.5", "model.temperature: found 0.5, expected null: not valid with"),
        ("sampler: draft\n  uncertainty_samples: 8", "model.uncertainty_samples: found 8, expected 0: not valid with"),
    ],
)  # fmt: skip
def test_what_a_sampler_cannot_do_is_told_in_one_line(tmp_path, model, said):
    file = tmp_path / "run.yaml"
    file.write_text(
        "area: {tiles: [31UGR]}\nperiod: {start: 2023-06-01, end: 2023-06-30}\n"
        f"source: {{stac_api: 'https://example.com'}}\nstore: {{url: cube.zarr}}\nmodel:\n  {model}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [1, -1, 33, 2.5, "many", True, None])
def test_a_wrong_number_of_samples_is_refused_by_name(tmp_path: Path, value: Any):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "model": {"uncertainty_samples": value}}))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith("config.yaml: model.uncertainty_samples: found ")
    assert "expected 0 (off) or an integer from 2 to 32" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 2, 32])
def test_the_allowed_numbers_of_samples(value: int):
    assert configured(uncertainty_samples=value).model.uncertainty_samples == value
    assert configured().model.uncertainty_samples == 0
